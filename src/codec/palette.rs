//! Chunks of few distinct words: a sorted list of them, and indices into it.

use super::chunk::{Encoding, decode_blocks};
use super::planes::{Pools, decode::Decoder as PlanesDecoder, encode as planes};
use super::{Coded, Damage, HEAD_CRC, HEAD_WRONG, checked, seal};
use crate::float::Layout;
use crate::rans::bits::{take, take_u8};
use crate::simd::Isa;
use std::collections::HashMap;
use std::ops::Range;

/// Distinct words that indices of a byte can tell apart.
pub const MAX_WORDS: usize = 256;

/// The distinct words of `words`, ascending; None if there are more than `max`.
pub fn distinct(words: &[u8], word_bytes: usize, max: usize) -> Option<Vec<u64>> {
    let mut seen: Vec<u64> = Vec::new();
    let mut last = None;
    for word in words.chunks_exact(word_bytes) {
        let word = value(word);
        if last == Some(word) {
            continue;
        }
        last = Some(word);
        if let Err(at) = seen.binary_search(&word) {
            if seen.len() == max {
                return None;
            }
            seen.insert(at, word);
        }
    }
    Some(seen)
}

fn value(word: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..word.len()].copy_from_slice(word);
    u64::from_le_bytes(bytes)
}

/// Encodes a chunk; None if it has too many distinct words.
pub fn encode(encoding: &Encoding<'_>, words: &[u8]) -> Option<Coded> {
    let width = encoding.layout.word_bytes();
    let distinct = distinct(words, width, MAX_WORDS)?;
    let index_of: HashMap<u64, u8> = distinct.iter().enumerate().map(|(i, &word)| (word, i as u8)).collect();
    let mut last = (0, 0);
    let indices: Vec<u8> = (words.chunks_exact(width))
        .map(|word| {
            let word = value(word);
            if last.0 != word || !index_of.contains_key(&last.0) {
                last = (word, index_of[&word]);
            }
            last.1
        })
        .collect();
    let coded = planes::encode(&encoding.plan(Layout::Byte, encoding.row_words), &indices);
    let mut head = vec![distinct.len().checked_sub(1)? as u8];
    distinct
        .iter()
        .for_each(|word| head.extend_from_slice(&word.to_le_bytes()[..width]));
    head.extend(coded.head);
    Some(Coded {
        head: seal(head),
        body: coded.body,
    })
}

/// A chunk whose head has been read.
pub struct Decoder<'a> {
    /// The indices.
    pub planes: PlanesDecoder<'a>,
    words: Vec<u8>,
    width: usize,
}

impl<'a> Decoder<'a> {
    /// Parses a head.
    pub fn new(isa: Isa, layout: Layout, pools: &'a Pools, head: &[u8], n_words: usize, body_bytes: usize) -> Result<Self, Damage> {
        let mut rest = checked(head).ok_or(HEAD_CRC)?;
        let width = layout.word_bytes();
        let mut parse = || {
            let n = take_u8(&mut rest)? as usize + 1;
            take(&mut rest, n * width).map(<[u8]>::to_vec)
        };
        let words = parse().ok_or(HEAD_WRONG)?;
        if !words.chunks_exact(width).is_sorted_by(|a, b| value(a) < value(b)) {
            return Err(HEAD_WRONG.into());
        }
        Ok(Self {
            planes: PlanesDecoder::new(isa, pools.of(Layout::Byte), rest, n_words, body_bytes)?,
            words,
            width,
        })
    }

    /// Decodes the words in `range` from the blocks that cover it.
    pub fn decode(&self, parts: &[&[u8]], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
        let mut indices = vec![0; range.len()];
        decode_blocks(&self.planes, parts, range, &mut indices)?;
        for (word, &index) in out.chunks_exact_mut(self.width).zip(&indices) {
            let known = self
                .words
                .get(index as usize * self.width..)
                .and_then(|words| words.get(..self.width));
            word.copy_from_slice(known.ok_or("an index lies beyond the palette")?);
        }
        Ok(())
    }
}
