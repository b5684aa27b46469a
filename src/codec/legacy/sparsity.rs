//! A mask of large words; large and small ones apart.

use super::buckets::{self, BF16};
use super::cursor::{Cursor, chunks, chunks_mut};
use super::lanes::{self, Coder, Job};
use super::range::Range;
use super::width::Width;
use super::{check_count, damaged};
use crate::buffer::scratch;
use crate::error::Result;
use crate::pool::Threads;

/// Fills `out` with BF16 words.
pub fn decode(blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let words = chunks_mut::<2>(out);
    let mut blob = Cursor(blob);
    check_count(blob.u32()?, words.len())?;
    let _threshold = blob.u16()?;
    let sizes = [blob.u32()? as usize, blob.u32()? as usize];
    if sizes[0].checked_add(sizes[1]) != Some(words.len()) {
        return Err(damaged("its parts have another number of elements"));
    }
    let n_symbols = blob.u16()? as usize;
    let table = Range::table(&blob.counts(n_symbols, Width::U16, 2)?, 0)?;
    lanes::run(vec![Job::<Range>::new(blob.prefixed()?, &table, words)?], Threads::One)?;
    let mut parts = [scratch(2 * sizes[0] as u64)?, scratch(2 * sizes[1] as u64)?];
    for part in &mut parts {
        buckets::decode::<Range>(&BF16, blob.prefixed()?, threads, part)?;
    }
    let mut parts = parts.each_ref().map(|part| chunks::<2>(part).iter());
    for word in words {
        *word = *parts[word[0] as usize & 1]
            .next()
            .ok_or_else(|| damaged("its mask is of other parts"))?;
    }
    Ok(())
}
