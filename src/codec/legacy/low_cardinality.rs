//! Indices into a few distinct words.

use super::cursor::Cursor;
use super::{bytes, check_count, damaged};
use crate::buffer::scratch;
use crate::error::Result;

/// Fills `out` with words of 1, 2 or 4 bytes.
pub fn decode(blob: &[u8], out: &mut [u8]) -> Result<()> {
    let mut blob = Cursor(blob);
    let width = blob.u8()? as usize;
    let n_distinct = blob.u8()? as usize;
    if !matches!(width, 1 | 2 | 4) || !out.len().is_multiple_of(width) {
        return Err(damaged("its words are of another width"));
    }
    let distinct = blob.take(width * n_distinct)?;
    let mut indices = scratch((out.len() / width) as u64)?;
    bytes::zstd(blob.prefixed()?, &mut indices)?;
    check_count(blob.u32()?, indices.len())?;
    for (word, &index) in out.chunks_exact_mut(width).zip(indices.iter()) {
        let start = index as usize * width;
        word.copy_from_slice(
            distinct
                .get(start..start + width)
                .ok_or_else(|| damaged("an index is of no word"))?,
        );
    }
    Ok(())
}
