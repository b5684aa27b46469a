//! Signs, exponents and buckets of mantissas, each with its state apart from its words.

use super::buckets::{BF16, MANTISSA_BITS, SYMBOL_BITS, Sizes};
use super::check_count;
use super::cursor::{Cursor, chunks_mut};
use super::lanes::{self, Job};
use super::short_rans::{ShortRans, State, Table, words};
use super::width::Width;
use crate::error::Result;
use crate::pool::Threads;

/// Fills `out` with BF16 words.
pub fn decode(blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let elements = chunks_mut::<2>(out);
    let mut blob = Cursor(blob);
    check_count(blob.u32()?, elements.len())?;
    let n_symbols = blob.u16()? as usize;
    let symbol_table = Table::new(&blob.counts(n_symbols, Width::U16, BF16.n_symbols())?, SYMBOL_BITS)?;
    let symbol_state = State::new(blob.u32()?);
    let symbol_words = codeword(&mut blob)?;
    let mut sizes = Sizes::new(BF16.n_exponents());
    let mut buckets = Vec::new();
    for _ in 0..blob.u32()? {
        let exponent = blob.u16()?;
        let n = blob.u8()? as usize;
        let table = Table::new(&blob.counts(n, Width::U8, BF16.n_mantissas())?, MANTISSA_BITS)?;
        let state = State::new(blob.u32()?);
        let size = blob.u32()? as usize;
        sizes.add(exponent, size)?;
        buckets.push((table, state, codeword(&mut blob)?, size));
    }
    let mut mantissas = sizes.room(elements.len())?;
    let mut rest = chunks_mut::<2>(&mut mantissas);
    let mut jobs = vec![Job::<ShortRans>::from_parts(symbol_state, symbol_words, &symbol_table, elements)];
    for (table, state, words, size) in &mut buckets {
        let out = rest.split_off_mut(..*size).expect("all sizes together fit");
        jobs.push(Job::from_parts(*state, std::mem::take(words), table, out));
    }
    lanes::run(jobs, threads)?;
    sizes.join(&BF16, elements, chunks_mut(&mut mantissas))
}

fn codeword(blob: &mut Cursor<'_>) -> Result<Vec<u16>> {
    let n_words = blob.u32()? as usize;
    Ok(words(blob.take(n_words.saturating_mul(2))?))
}
