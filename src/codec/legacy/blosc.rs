//! A chunk of Blosc2 as the published package makes them: bytes shuffled by their place in the word, zstd frames.

use super::cursor::Cursor;
use super::{bytes, damaged};
use crate::buffer::scratch;
use crate::error::Result;

const HEADER_BYTES: usize = 32;
/// Flags of a header of 32 bytes.
const EXTENDED: u8 = 0x05;
/// The flag of data that is stored as it is.
const STORED: u8 = 0x02;
/// The flag of blocks that are one stream each.
const WHOLE: u8 = 0x10;
/// zstd, in the flags' top bits.
const ZSTD: u8 = 4;
/// The filters of a chunk, one of which shuffles bytes; which place of the row it has differs between releases.
const SHUFFLES: [[u8; 6]; 2] = [[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]];

/// Fills `out`, which the chunk must have as many bytes as.
pub fn decode(chunk: &[u8], out: &mut [u8]) -> Result<()> {
    let mut cursor = Cursor(chunk);
    let header = cursor.take(HEADER_BYTES)?;
    let field = |at: usize| Cursor(&header[at..]).u32().map(|n| n as usize);
    let (flags, width) = (header[2], header[3] as usize);
    let block_bytes = field(8)?;
    if flags & EXTENDED != EXTENDED || field(4)? != out.len() || width == 0 {
        return Err(damaged("is not a Blosc2 chunk of its words"));
    }
    match header[31] >> 4 & 7 {
        0 => (),
        1 => {
            out.fill(0);
            return Ok(());
        }
        _ => return Err(damaged("is a Blosc2 chunk of an unknown kind")),
    }
    if flags & STORED != 0 {
        out.copy_from_slice(cursor.take(out.len())?);
        return Ok(());
    }
    if flags >> 5 != ZSTD || block_bytes == 0 || !SHUFFLES.iter().any(|filters| header[16..22] == *filters) {
        return Err(damaged("is a Blosc2 chunk of an unknown kind"));
    }
    let starts = cursor.u32s(out.len().div_ceil(block_bytes))?;
    let mut shuffled = scratch(block_bytes.min(out.len()) as u64)?;
    for (block, start) in out.chunks_mut(block_bytes).zip(starts) {
        let coded = chunk.get(start as usize..);
        let mut coded = Cursor(coded.ok_or_else(|| damaged("its blocks do not lie in the chunk"))?);
        let shuffled = &mut shuffled[..block.len()];
        // A short last block is never split.
        let n_streams = if flags & WHOLE != 0 || block.len() < block_bytes {
            1
        } else {
            width
        };
        if !block.len().is_multiple_of(n_streams) {
            return Err(damaged("is a Blosc2 chunk of an unknown kind"));
        }
        for stream in shuffled.chunks_mut(block.len() / n_streams) {
            decode_stream(&mut coded, stream)?;
        }
        unshuffle(shuffled, width, block);
    }
    Ok(())
}

fn decode_stream(coded: &mut Cursor<'_>, out: &mut [u8]) -> Result<()> {
    let length = coded.u32()? as i32;
    match usize::try_from(length) {
        Ok(0) => out.fill(0),
        Ok(length) if length == out.len() => out.copy_from_slice(coded.take(length)?),
        Ok(length) => bytes::zstd(coded.take(length)?, out)?,
        Err(_) => {
            let is_run = coded.u8()? & 1 != 0;
            if !is_run {
                return Err(damaged("is a Blosc2 chunk of an unknown kind"));
            }
            out.fill(length.wrapping_neg() as u8);
        }
    }
    Ok(())
}

/// Puts the bytes of words together, which are stored first bytes first; what is no whole word is as it was.
fn unshuffle(shuffled: &[u8], width: usize, out: &mut [u8]) {
    let n_words = shuffled.len() / width;
    let (planes, tail) = shuffled.split_at(n_words * width);
    let (words, out_tail) = out.split_at_mut(n_words * width);
    out_tail.copy_from_slice(tail);
    for (place, plane) in planes.chunks_exact(n_words.max(1)).enumerate() {
        for (word, byte) in words.chunks_exact_mut(width).zip(plane) {
            word[place] = *byte;
        }
    }
}
