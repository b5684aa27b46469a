//! The blob of a chunked codec: an index of chunks, then the chunks.

use super::{Codec, checked, seal};
use crate::float::Layout;
use crate::limits::{MAX_CHUNK_BYTES, MAX_CHUNK_WORDS};
use crate::rans::bits::take_u32;
use std::ops::Range;

/// Words of a chunk, as far as rows allow: enough that the classes of a chunk fill blocks, few enough that a tensor keeps all cores busy.
const CHUNK_WORDS: usize = 1 << 22;
/// Bytes of a chunk, for the same reason.
const CHUNK_BYTES: usize = 16 << 20;

/// Words of each chunk of a tensor with rows of `row_words`. What learns as it goes gets the largest chunks that there may be.
pub fn chunk_words(codec: Codec, layout: Layout, n_words: u64, row_words: usize) -> usize {
    let most = match codec {
        Codec::Context => (MAX_CHUNK_WORDS as usize).min(MAX_CHUNK_BYTES as usize / layout.word_bytes()),
        _ => CHUNK_WORDS.min(CHUNK_BYTES / layout.word_bytes()),
    };
    let whole_rows = if (1..=most).contains(&row_words) {
        most / row_words * row_words
    } else {
        most
    };
    usize::try_from(n_words).map_or(whole_rows, |n| n.min(whole_rows))
}

/// Where the chunks of a blob lie in it.
#[derive(Debug)]
pub struct Index {
    /// Words of the tensor.
    pub n_words: u64,
    /// Words of each chunk but the last.
    pub chunk_words: usize,
    /// Head and body of each, in bytes of the blob.
    pub chunks: Vec<(Range<u64>, Range<u64>)>,
}

impl Index {
    /// Bytes of the index of `n_chunks`.
    pub fn bytes(n_chunks: usize) -> usize {
        4 + 8 * n_chunks + 4
    }

    /// The number of chunks that the first four bytes of a blob announce. None if they cannot be right.
    pub fn n_chunks(start: [u8; 4], layout: Layout, n_words: u64, blob_bytes: u64) -> Option<usize> {
        let chunk_words = u32::from_le_bytes(start) as u64;
        if chunk_words == 0 || chunk_words > MAX_CHUNK_WORDS || chunk_words * layout.word_bytes() as u64 > MAX_CHUNK_BYTES {
            return None;
        }
        let n_chunks = n_words.div_ceil(chunk_words);
        // A chunk has eight bytes here, and at least four of head.
        (n_chunks <= blob_bytes / 12).then_some(n_chunks as usize)
    }

    /// The stored form for these chunks.
    pub fn write(chunk_words: usize, chunks: &[(u32, u32)]) -> Vec<u8> {
        let mut out = (chunk_words as u32).to_le_bytes().to_vec();
        for (head, body) in chunks {
            out.extend(head.to_le_bytes());
            out.extend(body.to_le_bytes());
        }
        seal(out)
    }

    /// Parses an index of all its bytes. None if it is damaged or contradicts the blob's length.
    pub fn parse(bytes: &[u8], n_words: u64, blob_bytes: u64) -> Option<Index> {
        let mut rest = checked(bytes)?;
        let chunk_words = take_u32(&mut rest)? as usize;
        let mut at = bytes.len() as u64;
        let mut chunks = Vec::with_capacity(rest.len() / 8);
        while !rest.is_empty() {
            let body = at + take_u32(&mut rest)? as u64;
            let end = body + take_u32(&mut rest)? as u64;
            chunks.push((at..body, body..end));
            at = end;
        }
        (at == blob_bytes).then_some(Index {
            n_words,
            chunk_words,
            chunks,
        })
    }

    /// The words of a chunk.
    pub fn words_of(&self, chunk: usize) -> Range<u64> {
        let start = chunk as u64 * self.chunk_words as u64;
        start..self.n_words.min(start + self.chunk_words as u64)
    }

    /// The chunks that hold any of the words in `range`.
    pub fn chunks_of(&self, range: &Range<u64>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        (range.start / self.chunk_words as u64) as usize..range.end.div_ceil(self.chunk_words as u64) as usize
    }
}
