//! F32 words: in planes, or as two halves.

use super::ans::Ans;
use super::buckets::{self, BF16};
use super::cursor::{Cursor, chunks, chunks_mut};
use super::lanes::{self, Coder, Job};
use super::range::Range;
use super::width::Width;
use super::{bytes, check_count, damaged};
use crate::buffer::scratch;
use crate::error::Result;
use crate::pool::Threads;

const N_SYMBOLS: usize = 512;

/// A part of the words, to be decoded by any thread.
enum Part<'a> {
    Symbols(Job<'a, Range>),
    Plane(&'a [u8], &'a mut [u8]),
}

/// Signs and exponents in a codeword, then the bytes of the mantissas as zstd frames, lowest first.
pub fn decode(blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let words = chunks_mut::<4>(out);
    let n = words.len();
    let mut blob = Cursor(blob);
    check_count(blob.u32()?, n)?;
    let n_symbols = blob.u16()? as usize;
    let table = Range::table(&blob.counts(n_symbols, Width::U16, N_SYMBOLS)?, 0)?;
    let codeword = blob.prefixed()?;
    let mut symbols = scratch(2 * n as u64)?;
    let mut parts = vec![Part::Symbols(Job::new(codeword, &table, chunks_mut(&mut symbols))?)];
    let mut planes = [scratch(n as u64)?, scratch(n as u64)?, scratch(n as u64)?];
    for plane in &mut planes {
        parts.push(Part::Plane(blob.prefixed()?, plane));
    }
    let decode = |part: Part<'_>| match part {
        Part::Symbols(job) => lanes::run(vec![job], Threads::One),
        Part::Plane(frame, out) => bytes::zstd(frame, out),
    };
    threads.map(parts, decode).into_iter().collect::<Result<()>>()?;
    let [low, middle, high] = &planes;
    let mantissas = low.iter().zip(&middle[..]).zip(&high[..]);
    for ((word, symbol), ((&low, &middle), &high)) in words.iter_mut().zip(chunks::<2>(&symbols)).zip(mantissas) {
        let top = (u16::from_le_bytes(*symbol) << 7) | high as u16;
        let [top_low, top_high] = top.to_le_bytes();
        *word = [low, middle, top_low, top_high];
    }
    Ok(())
}

/// The upper halves as BF16 words, the lower ones as a zstd frame.
pub fn decode_native(blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let mut blob = Cursor(blob);
    check_count(blob.u32()?, out.len() / 4)?;
    let (mut high, mut low) = halves(out)?;
    buckets::decode::<Range>(&BF16, blob.prefixed()?, threads, &mut high)?;
    bytes::zstd(blob.prefixed()?, &mut low)?;
    join(&high, &low, out);
    Ok(())
}

/// Two halves, each coded in one of three ways.
pub fn decode_native_v2(blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let mut blob = Cursor(blob);
    check_count(blob.u32()?, out.len() / 4)?;
    let (mut high, mut low) = halves(out)?;
    for half in [&mut high, &mut low] {
        let coding = blob.u8()?;
        let coded = blob.prefixed()?;
        match coding {
            0 => bytes::zstd(coded, half)?,
            1 => buckets::decode::<Ans>(&BF16, coded, threads, half)?,
            2 => buckets::decode::<Range>(&BF16, coded, threads, half)?,
            _ => return Err(damaged("its halves are coded in no known way")),
        }
    }
    join(&high, &low, out);
    Ok(())
}

/// Room for both halves of the words.
fn halves(out: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let n_bytes = out.len() as u64 / 2;
    Ok((scratch(n_bytes)?, scratch(n_bytes)?))
}

fn join(high: &[u8], low: &[u8], out: &mut [u8]) {
    for ((word, high), low) in chunks_mut::<4>(out).iter_mut().zip(chunks::<2>(high)).zip(chunks::<2>(low)) {
        *word = [low[0], low[1], high[0], high[1]];
    }
}
