//! Signs and exponents coded with the exponent above them in the matrix.

use super::buckets::{BF16, Sizes};
use super::category::Table;
use super::cursor::{Cursor, chunks, chunks_mut, scattered};
use super::lanes::{self, Job};
use super::range::{Range, State};
use super::width::Width;
use super::{buckets, damaged};
use crate::error::Result;
use crate::pool::Threads;
use std::collections::HashMap;

/// The blob is that of `bf16_se_ac`.
const PLAIN: u8 = 0;
/// It has contexts.
const CONTEXTS: u8 = 1;

/// Fills `out` with BF16 words.
pub fn decode(blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let mut blob = Cursor(blob);
    let flag = blob.u8()?;
    if blob.u64()? != out.len() as u64 / 2 {
        return Err(damaged("the blob is of another number of elements"));
    }
    match flag {
        PLAIN => buckets::decode::<Range>(&BF16, blob.prefixed()?, threads, out),
        CONTEXTS => decode_contexts(blob, threads, chunks_mut(out)),
        _ => Err(damaged("the blob is of no known kind")),
    }
}

fn decode_contexts(mut blob: Cursor<'_>, threads: Threads, words: &mut [[u8; 2]]) -> Result<()> {
    let (n_rows, n_columns) = (blob.u32()? as usize, blob.u32()? as usize);
    if n_rows.checked_mul(n_columns) != Some(words.len()) {
        return Err(damaged("its rows and columns are of another number of elements"));
    }
    let (codeword, table) = section(&mut blob, BF16.n_symbols())?;
    let first = words.get_mut(..n_columns).expect("there is a row");
    lanes::run(vec![Job::<Range>::new(codeword, &table, first)?], Threads::One)?;
    let mut contexts: HashMap<u16, (Table, State, Vec<u32>)> = HashMap::new();
    for _ in 0..blob.u16()? {
        let exponent = blob.u16()?;
        let (codeword, table) = section(&mut blob, BF16.n_symbols())?;
        let (state, words) = Range::start(codeword)?;
        if exponent as usize >= BF16.n_exponents() || contexts.insert(exponent, (table, state, words)).is_some() {
            return Err(damaged("an exponent has two contexts, or is none"));
        }
    }
    for i in n_columns..words.len() {
        let above = BF16.exponent_of(u16::from_le_bytes(words[i - n_columns])) as u16;
        let context = contexts.get_mut(&above);
        let (table, state, codeword) = context.ok_or_else(|| damaged("an exponent has no context"))?;
        words[i] = state.next(codeword, |quantile| table.find(quantile)).to_le_bytes();
    }
    contexts.values().try_for_each(|(_, state, _)| state.check())?;
    let mut n_of = vec![0; BF16.n_exponents()];
    for &word in words.iter() {
        n_of[BF16.exponent_of(u16::from_le_bytes(word))] += 1;
    }
    let mut sizes = Sizes::new(BF16.n_exponents());
    let mut sections = Vec::new();
    for _ in 0..blob.u16()? {
        let exponent = blob.u16()?;
        let size = *n_of
            .get(exponent as usize)
            .ok_or_else(|| damaged("an exponent has two buckets, or is none"))?;
        sizes.add(exponent, size)?;
        let (codeword, table) = section(&mut blob, BF16.n_mantissas())?;
        sections.push((codeword, table, size));
    }
    let mut mantissas = sizes.room(words.len())?;
    let mut rest = chunks_mut::<2>(&mut mantissas);
    let mut jobs = Vec::new();
    for (codeword, table, size) in &sections {
        let out = rest.split_off_mut(..*size).expect("all sizes together fit");
        jobs.push(Job::<Range>::new(codeword, table, out)?);
    }
    lanes::run(jobs, threads)?;
    sizes.join(&BF16, words, chunks(&mantissas))
}

/// A codeword and its table.
fn section<'a>(blob: &mut Cursor<'a>, alphabet: usize) -> Result<(&'a [u8], Table)> {
    let n_bytes = blob.u32()? as usize;
    let (n, again) = (blob.u32()? as usize, blob.u32()? as usize);
    if n != again || n > alphabet {
        return Err(damaged("a table has more symbols than there are"));
    }
    let codeword = blob.take(n_bytes)?;
    let indices = blob.numbers(n, Width::U16)?;
    let counts = chunks::<8>(blob.take(8 * n)?).iter().map(|&count| u64::from_le_bytes(count));
    let counts = counts.map(u32::try_from).collect::<std::result::Result<Vec<u32>, _>>();
    let counts = counts.map_err(|_| damaged("a table counts more symbols than there are"))?;
    Ok((codeword, Table::new(&scattered(&indices, &counts, alphabet)?)?))
}
