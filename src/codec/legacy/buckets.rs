//! Signs and exponents in one codeword, the mantissas of each exponent in one of their own.

use super::cursor::{Cursor, chunks_mut};
use super::lanes::{self, Coder, Job};
use super::width::Width;
use super::{check_count, damaged};
use crate::buffer::scratch;
use crate::error::Result;
use crate::pool::Threads;

/// How words are cut, and how wide the fields are that speak of the parts.
pub struct Cut {
    pub exponent_bits: u32,
    pub mantissa_bits: u32,
    /// Of the number of symbols in the table of signs and exponents.
    pub n_symbols: Width,
    /// Of the indices there.
    pub symbol: Width,
    /// Of exponents that buckets are for.
    pub exponent: Width,
    /// Of the number of symbols in the tables of mantissas.
    pub n_mantissas: Width,
    /// Of the indices there.
    pub mantissa: Width,
}

/// BF16 words.
pub const BF16: Cut = Cut {
    exponent_bits: 8,
    mantissa_bits: 7,
    n_symbols: Width::U16,
    symbol: Width::U16,
    exponent: Width::U16,
    n_mantissas: Width::U8,
    mantissa: Width::U8,
};

/// F16 words.
pub const F16: Cut = Cut {
    exponent_bits: 5,
    mantissa_bits: 10,
    n_symbols: Width::U8,
    symbol: Width::U8,
    exponent: Width::U8,
    n_mantissas: Width::U16,
    mantissa: Width::U16,
};

/// Bits of the frequencies of signs and exponents, for coders that store frequencies.
pub const SYMBOL_BITS: u32 = 12;
/// The same for mantissas.
pub const MANTISSA_BITS: u32 = 10;

impl Cut {
    /// Signs and exponents there are.
    pub fn n_symbols(&self) -> usize {
        2 << self.exponent_bits
    }

    /// Mantissas there are.
    pub fn n_mantissas(&self) -> usize {
        1 << self.mantissa_bits
    }

    /// Exponents there are.
    pub fn n_exponents(&self) -> usize {
        1 << self.exponent_bits
    }

    /// The exponent of a symbol.
    pub fn exponent_of(&self, symbol: u16) -> usize {
        symbol as usize & (self.n_exponents() - 1)
    }

    /// The word of these parts.
    pub fn word(&self, symbol: u16, mantissa: u16) -> u16 {
        let sign = symbol >> self.exponent_bits;
        let exponent = self.exponent_of(symbol) as u16;
        sign << (self.exponent_bits + self.mantissa_bits) | exponent << self.mantissa_bits | mantissa
    }
}

/// Fills `out` from a blob whose codewords are all of one coder.
pub fn decode<C: Coder>(cut: &Cut, blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    decode_with::<C>(cut, blob, threads, out, |_| ())
}

/// [`decode`], with signs and exponents changed by `restore` before they choose mantissas.
pub fn decode_with<C: Coder>(cut: &Cut, blob: &[u8], threads: Threads, out: &mut [u8], restore: impl FnOnce(&mut [[u8; 2]])) -> Result<()> {
    let words = chunks_mut::<2>(out);
    if words.is_empty() {
        return Ok(());
    }
    let mut blob = Cursor(blob);
    check_count(blob.u32()?, words.len())?;
    let n = blob.number(cut.n_symbols)? as usize;
    let symbols = Codeword {
        counts: blob.counts(n, cut.symbol, cut.n_symbols())?,
        bits: SYMBOL_BITS,
        n: words.len(),
        bytes: blob.prefixed()?,
    };
    let mut blob = Cursor(blob.prefixed()?);
    let n_buckets = blob.u32()? as usize;
    let mut sizes = Sizes::new(cut.n_exponents());
    let mut codewords = vec![symbols];
    let exponents = match cut.exponent {
        Width::U8 => blob.numbers(n_buckets, Width::U8)?,
        Width::U16 => {
            let n_bytes = n_buckets.checked_mul(2).filter(|&n| n <= blob.0.len());
            n_bytes.ok_or_else(|| damaged("the blob ends early"))?;
            blob.numbers(n_buckets, Width::U16)?
        }
    };
    for exponent in exponents {
        let size = blob.u32()? as usize;
        sizes.add(exponent, size)?;
        let n = blob.number(cut.n_mantissas)? as usize;
        codewords.push(Codeword {
            counts: blob.counts(n, cut.mantissa, cut.n_mantissas())?,
            bits: MANTISSA_BITS,
            n: size,
            bytes: blob.prefixed()?,
        });
    }
    let mut mantissas = sizes.room(words.len())?;
    decode_codewords::<C>(&codewords, words, chunks_mut(&mut mantissas), threads)?;
    restore(words);
    sizes.join(cut, words, chunks_mut(&mut mantissas))
}

/// A codeword with its table, and how many symbols it has.
pub struct Codeword<'a> {
    pub counts: Vec<u32>,
    pub bits: u32,
    pub n: usize,
    pub bytes: &'a [u8],
}

/// Fills `first` from the first codeword and `rest` from the others, which have as many symbols together.
fn decode_codewords<C: Coder>(codewords: &[Codeword<'_>], first: &mut [[u8; 2]], rest: &mut [[u8; 2]], threads: Threads) -> Result<()> {
    let tables = threads.map(codewords.iter().collect(), |codeword: &Codeword<'_>| {
        C::table(&codeword.counts, codeword.bits)
    });
    let tables = tables.into_iter().collect::<Result<Vec<C::Table>>>()?;
    let mut jobs = Vec::with_capacity(codewords.len());
    let (mut first, mut rest) = (Some(first), rest);
    for (codeword, table) in codewords.iter().zip(&tables) {
        let out = match first.take() {
            Some(first) => first,
            None => rest.split_off_mut(..codeword.n).expect("all sizes together fit"),
        };
        jobs.push(Job::new(codeword.bytes, table, out)?);
    }
    lanes::run::<C>(jobs, threads)
}

/// How many mantissas the bucket of each exponent has, and where they begin.
pub struct Sizes {
    ranges: Vec<Option<std::ops::Range<usize>>>,
    total: usize,
}

impl Sizes {
    /// No buckets yet.
    pub fn new(n_exponents: usize) -> Self {
        Self {
            ranges: vec![None; n_exponents],
            total: 0,
        }
    }

    /// Adds the next bucket.
    pub fn add(&mut self, exponent: u16, size: usize) -> Result<()> {
        let wrong = || damaged("an exponent has two buckets, or is none");
        let range = self.ranges.get_mut(exponent as usize).filter(|range| range.is_none());
        let end = self.total.checked_add(size).ok_or_else(wrong)?;
        *range.ok_or_else(wrong)? = Some(self.total..end);
        self.total = end;
        Ok(())
    }

    /// Room for the mantissas of all buckets, which must be `n`.
    pub fn room(&self, n: usize) -> Result<Vec<u8>> {
        if self.total != n {
            return Err(damaged("its buckets have another number of elements"));
        }
        scratch(2 * n as u64)
    }

    /// Joins signs and exponents, which the words are at first, with their mantissas.
    pub fn join(self, cut: &Cut, words: &mut [[u8; 2]], mantissas: &[[u8; 2]]) -> Result<()> {
        let wrong = || damaged("its buckets are not those of its exponents");
        let none = self.total..self.total;
        let ranges: Vec<_> = self.ranges.into_iter().map(|range| range.unwrap_or(none.clone())).collect();
        let mut next: Vec<usize> = ranges.iter().map(|range| range.start).collect();
        for word in words {
            let symbol = u16::from_le_bytes(*word);
            let next = &mut next[cut.exponent_of(symbol)];
            let mantissa = mantissas.get(*next).ok_or_else(wrong)?;
            *next += 1;
            *word = cut.word(symbol, u16::from_le_bytes(*mantissa)).to_le_bytes();
        }
        if next.iter().zip(&ranges).all(|(next, range)| *next == range.end) {
            Ok(())
        } else {
            Err(wrong())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponent_has_one_bucket_however_small() {
        let mut sizes = Sizes::new(BF16.n_exponents());
        sizes.add(3, 0).unwrap();
        assert!(sizes.add(3, 0).is_err() && sizes.add(256, 0).is_err() && sizes.add(4, usize::MAX).is_ok());
        assert!(sizes.add(5, 1).is_err() && sizes.room(0).is_err());
    }

    #[test]
    fn elements_without_a_mantissa_are_refused() {
        let mut sizes = Sizes::new(BF16.n_exponents());
        sizes.add(3, 2).unwrap();
        let mantissas = [[1, 0], [2, 0]];
        for exponents in [[3, 4], [4, 4]] {
            let mut words = exponents.map(|exponent: u16| exponent.to_le_bytes());
            let again = Sizes {
                ranges: sizes.ranges.clone(),
                total: sizes.total,
            };
            assert!(again.join(&BF16, &mut words, &mantissas).is_err());
        }
        let mut words = [3u16.to_le_bytes(), (256 + 3u16).to_le_bytes()];
        sizes.join(&BF16, &mut words, &mantissas).unwrap();
        assert_eq!(words.map(u16::from_le_bytes), [3 << 7 | 1, 1 << 15 | 3 << 7 | 2]);
    }
}
