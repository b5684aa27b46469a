//! Rows as differences to the row before, in a chunk of Blosc2.

use super::cursor::Cursor;
use super::{blosc, damaged};
use crate::error::Result;

/// Fills `out` with words of 1, 2 or 4 bytes.
pub fn decode(blob: &[u8], out: &mut [u8]) -> Result<()> {
    let mut blob = Cursor(blob);
    let width = blob.u8()? as usize;
    let is_difference = blob.u8()? != 0;
    let (n_rows, n_columns) = (blob.u32()? as usize, blob.u32()? as usize);
    let n_words = n_rows.checked_mul(n_columns);
    if !matches!(width, 1 | 2 | 4) || n_words.and_then(|n| n.checked_mul(width)) != Some(out.len()) {
        return Err(damaged("its rows and columns are of another number of elements"));
    }
    blosc::decode(blob.prefixed()?, out)?;
    if is_difference {
        for row in 1..n_rows {
            let (before, rest) = out.split_at_mut(row * n_columns * width);
            add_words(width, &mut rest[..n_columns * width], &before[(row - 1) * n_columns * width..]);
        }
    }
    Ok(())
}

/// Adds the words of `more` to those of `words`, modulo their range.
pub fn add_words(width: usize, words: &mut [u8], more: &[u8]) {
    match width {
        1 => words.iter_mut().zip(more).for_each(|(a, b)| *a = a.wrapping_add(*b)),
        2 => add(words, more, |a, b| {
            u16::from_le_bytes(a).wrapping_add(u16::from_le_bytes(b)).to_le_bytes()
        }),
        _ => add(words, more, |a, b| {
            u32::from_le_bytes(a).wrapping_add(u32::from_le_bytes(b)).to_le_bytes()
        }),
    }
}

fn add<const N: usize>(words: &mut [u8], more: &[u8], sum: impl Fn([u8; N], [u8; N]) -> [u8; N]) {
    for (a, b) in words.as_chunks_mut().0.iter_mut().zip(more.as_chunks().0) {
        *a = sum(*a, *b);
    }
}
