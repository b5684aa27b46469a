//! Four levels of one tensor, what they leave, and what rounding leaves of that.

use super::buckets::{self, BF16};
use super::cursor::{Cursor, chunks, chunks_mut};
use super::range::Range;
use super::{check_count, damaged};
use crate::buffer::scratch;
use crate::error::Result;
use crate::pool::Threads;

/// Fills `out` with BF16 words.
pub fn decode(blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let words = chunks_mut::<2>(out);
    let mut blob = Cursor(blob);
    check_count(blob.u32()?, words.len())?;
    let largest = widened(blob.u16()?);
    let indices = blob.prefixed()?;
    if indices.len() != words.len().div_ceil(4) {
        return Err(damaged("its levels are of another number of elements"));
    }
    let third = (largest as f64 / 3.0) as f32;
    let levels = [-largest, -third, third, largest].map(|level| widened(narrowed(level)));
    let mut residual = scratch(2 * words.len() as u64)?;
    buckets::decode::<Range>(&BF16, blob.prefixed()?, threads, &mut residual)?;
    buckets::decode::<Range>(&BF16, blob.prefixed()?, threads, words.as_flattened_mut())?;
    for (i, (word, residual)) in words.iter_mut().zip(chunks::<2>(&residual)).enumerate() {
        let level = levels[(indices[i / 4] >> (2 * (i % 4)) & 3) as usize];
        let sum = rounded_sum(level, u16::from_le_bytes(*residual));
        *word = (sum ^ u16::from_le_bytes(*word)).to_le_bytes();
    }
    Ok(())
}

/// The value of a BF16 word.
pub fn widened(word: u16) -> f32 {
    f32::from_bits((word as u32) << 16)
}

/// The BF16 word nearest to a value, ties to even. By integers, so that NaNs become what they became when the file was written.
pub fn narrowed(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// The BF16 word of a value and the residual that was stored for it.
pub fn rounded_sum(value: f32, residual: u16) -> u16 {
    const QUIET: u16 = 1 << 6;
    let residual_value = widened(residual);
    if residual_value.is_nan() {
        // What processors make of it, spelled out since the language leaves it open.
        narrowed(widened(residual | QUIET))
    } else {
        narrowed(value + residual_value)
    }
}
