//! Codecs that know nothing but bytes.

use super::cursor::{Cursor, chunks_mut};
use super::lanes::{self, Job};
use super::range::Range;
use super::width::Width;
use super::{check_count, damaged};
use crate::buffer::scratch;
use crate::error::Result;
use crate::pool::Threads;

/// The words as they are.
pub fn raw(blob: &[u8], out: &mut [u8]) -> Result<()> {
    if blob.len() != out.len() {
        return Err(damaged("the blob is of another number of bytes"));
    }
    out.copy_from_slice(blob);
    Ok(())
}

/// A zstd frame.
pub fn zstd(frame: &[u8], out: &mut [u8]) -> Result<()> {
    let n_bytes = ::zstd::bulk::decompress_to_buffer(frame, out).map_err(|_| damaged("is not a zstd frame of its words"))?;
    if n_bytes == out.len() {
        Ok(())
    } else {
        Err(damaged("is not a zstd frame of its words"))
    }
}

/// Bytes with one table.
pub fn f8(blob: &[u8], out: &mut [u8]) -> Result<()> {
    let mut blob = Cursor(blob);
    check_count(blob.u32()?, out.len())?;
    let n = blob.u16()? as usize;
    let symbols = symbols(&mut blob, n, 256, out.len())?;
    for (byte, symbol) in out.iter_mut().zip(as_words(&symbols)) {
        *byte = symbol[0];
    }
    Ok(())
}

/// Halves of bytes with one table; bytes that are all below 16 have been taken for halves.
pub fn f4(blob: &[u8], out: &mut [u8]) -> Result<()> {
    // The first fields are the count, the number of symbols in the table, and whether two halves made a byte.
    let is_packed = blob.get(5).is_some_and(|&is_packed| is_packed != 0);
    if !is_packed {
        return f4_apart(blob, out);
    }
    let mut halves = scratch(2 * out.len() as u64)?;
    f4_apart(blob, &mut halves)?;
    for (byte, pair) in out.iter_mut().zip(halves.as_chunks::<2>().0) {
        *byte = pair[0] | pair[1] << 4;
    }
    Ok(())
}

/// The same, a byte for each half.
pub fn f4_apart(blob: &[u8], out: &mut [u8]) -> Result<()> {
    let mut blob = Cursor(blob);
    check_count(blob.u32()?, out.len())?;
    let n = blob.u8()? as usize;
    let _is_packed = blob.u8()?;
    let symbols = symbols(&mut blob, n, 16, out.len())?;
    for (byte, symbol) in out.iter_mut().zip(as_words(&symbols)) {
        *byte = symbol[0];
    }
    Ok(())
}

/// `n_symbols` of a codeword whose table, with `n` byte indices, stands before it.
fn symbols(blob: &mut Cursor<'_>, n: usize, alphabet: usize, n_symbols: usize) -> Result<Vec<u8>> {
    let counts = blob.counts(n, Width::U8, alphabet)?;
    let codeword = blob.prefixed()?;
    let table = super::category::Table::new(&counts)?;
    let mut symbols = scratch(2 * n_symbols as u64)?;
    let job = Job::<Range>::new(codeword, &table, chunks_mut(&mut symbols))?;
    lanes::run(vec![job], Threads::One)?;
    Ok(symbols)
}

fn as_words(symbols: &[u8]) -> &[[u8; 2]] {
    symbols.as_chunks().0
}
