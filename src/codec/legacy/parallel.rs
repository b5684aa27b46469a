//! Elements dealt out to many streams, each with codewords of its own and all with the same tables.

use super::buckets::{BF16, MANTISSA_BITS, SYMBOL_BITS, Sizes};
use super::cursor::{Cursor, chunks_mut};
use super::lanes::{self, Job};
use super::short_rans::{ShortRans, Table};
use super::width::Width;
use super::{check_count, damaged};
use crate::buffer::scratch;
use crate::error::Result;
use crate::pool::Threads;
use std::collections::HashMap;

const MAGIC: &[u8] = b"PAR1";

/// The elements of one stream, and where their mantissas lie.
struct Stream<'a> {
    elements: Vec<u8>,
    mantissas: Vec<u8>,
    sizes: Sizes,
    symbols: &'a [u8],
    buckets: Vec<(u16, usize, &'a [u8])>,
}

/// Fills `out` with BF16 words.
pub fn decode(blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let words = chunks_mut::<2>(out);
    let mut blob = Cursor(blob);
    if blob.take(MAGIC.len())? != MAGIC {
        return Err(damaged("the blob does not begin with PAR1"));
    }
    check_count(blob.u32()?, words.len())?;
    let n_streams = blob.u16()? as usize;
    if (blob.u16()? as u32, blob.u16()? as u32) != (SYMBOL_BITS, MANTISSA_BITS) {
        return Err(damaged("its frequencies have another sum"));
    }
    let n_symbols = blob.u16()? as usize;
    let symbol_table = Table::new(&blob.counts(n_symbols, Width::U16, BF16.n_symbols())?, SYMBOL_BITS)?;
    let n_exponents = blob.u32()? as usize;
    if n_exponents > BF16.n_exponents() {
        return Err(damaged("an exponent has two buckets, or is none"));
    }
    let mut tables = HashMap::new();
    for exponent in blob.numbers(n_exponents, Width::U16)? {
        let n = blob.u8()? as usize;
        tables.insert(
            exponent,
            Table::new(&blob.counts(n, Width::U8, BF16.n_mantissas())?, MANTISSA_BITS)?,
        );
    }
    let n_used = n_streams.min(words.len());
    let records = blob.parts(n_streams)?;
    if n_used == 0 {
        return Err(damaged("it has no streams"));
    }
    let records: Vec<(usize, &[u8])> = records.into_iter().take(n_used).enumerate().collect();
    // As many streams at a time as a thread can decode in turns.
    let batches: Vec<&[(usize, &[u8])]> = records.chunks(lanes::N_LANES).collect();
    let decoded = threads.map(batches, |batch| decode_batch(batch, words.len(), n_used, &symbol_table, &tables));
    let mut i = 0;
    for batch in decoded {
        for stream in batch? {
            let elements = stream.elements.as_chunks::<2>().0;
            for (to, from) in words[i..].iter_mut().step_by(n_used).zip(elements) {
                *to = *from;
            }
            i += 1;
        }
    }
    Ok(())
}

/// Decodes streams of a tensor of `n` elements.
fn decode_batch<'a>(
    records: &[(usize, &'a [u8])],
    n: usize,
    n_streams: usize,
    symbol_table: &Table,
    tables: &HashMap<u16, Table>,
) -> Result<Vec<Stream<'a>>> {
    let open = |&(i, record): &(usize, &'a [u8])| open(record, (n - 1 - i) / n_streams + 1);
    let mut streams = records.iter().map(open).collect::<Result<Vec<Stream<'_>>>>()?;
    let mut jobs = Vec::new();
    for stream in &mut streams {
        jobs.push(Job::<ShortRans>::new(
            stream.symbols,
            symbol_table,
            chunks_mut(&mut stream.elements),
        )?);
        let mut rest = chunks_mut::<2>(&mut stream.mantissas);
        for (exponent, size, codeword) in &stream.buckets {
            let table = tables.get(exponent).ok_or_else(|| damaged("an exponent has no table"))?;
            let out = rest.split_off_mut(..*size).expect("all sizes together fit");
            jobs.push(Job::new(codeword, table, out)?);
        }
    }
    lanes::run(jobs, Threads::One)?;
    for stream in &mut streams {
        let sizes = std::mem::replace(&mut stream.sizes, Sizes::new(0));
        sizes.join(&BF16, chunks_mut(&mut stream.elements), chunks_mut(&mut stream.mantissas))?;
    }
    Ok(streams)
}

/// Parses the record of a stream of `n` elements.
fn open(record: &[u8], n: usize) -> Result<Stream<'_>> {
    let mut record = Cursor(record);
    let symbols = record.prefixed()?;
    let n_exponents = record.u32()? as usize;
    if n_exponents > BF16.n_exponents() {
        return Err(damaged("an exponent has two buckets, or is none"));
    }
    let mut sizes = Sizes::new(BF16.n_exponents());
    let mut buckets = Vec::new();
    for exponent in record.numbers(n_exponents, Width::U16)? {
        let size = record.u32()? as usize;
        sizes.add(exponent, size)?;
        buckets.push((exponent, size, record.prefixed()?));
    }
    Ok(Stream {
        elements: scratch(2 * n as u64)?,
        mantissas: sizes.room(n)?,
        sizes,
        symbols,
        buckets,
    })
}
