//! Differences of one class ⇄ symbols and raw bits.
#![allow(unsafe_code)]

use super::number::Word;
use crate::float::planes::{self, plane_bytes};
use crate::simd::{Isa, for_each_isa};

/// Words that are handled together: whole groups of planes of any width.
const RUN: usize = 256;

/// How the differences of a class are cut: `((lo + symbol) << raw_bits | raw) << zeros`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What symbol 0 stands for.
    pub lo: i64,
    /// Bits below the symbol.
    pub raw_bits: u32,
    /// Bits below these, all zero.
    pub zeros: u32,
}

/// The widths of the planes of `raw_bits`, widest first.
pub fn widths(raw_bits: u32) -> impl Iterator<Item = u32> {
    std::iter::repeat_n(8, raw_bits as usize / 8).chain(planes::widths(raw_bits % 8))
}

/// Bytes of the planes of `n` words.
pub fn raw_bytes(raw_bits: u32, n: usize) -> usize {
    widths(raw_bits).map(|width| plane_bytes(width, n)).sum()
}

impl Cut {
    /// Writes symbols and planes. Returns whether some symbol is not all of what it stands for.
    pub fn split<W: Word>(self, isa: Isa, differences: &[W], symbols: &mut [u8], raw: &mut [u8]) -> bool {
        assert!(symbols.len() == differences.len() && raw.len() == raw_bytes(self.raw_bits, differences.len()));
        let cut = self;
        for_each_isa!(isa, split_any<W: Word>(cut: Cut, differences: &[W], symbols: &mut [u8], raw: &mut [u8]) -> bool)
    }

    /// What a difference has above its raw bits.
    pub fn above<W: Word>(self, difference: W) -> i64 {
        difference.shifted(self.zeros + self.raw_bits).signed()
    }

    /// Whether a symbol can tell what a difference has above its raw bits.
    pub fn shows<W: Word>(self, difference: W) -> bool {
        difference.shifted(self.zeros + self.raw_bits).symbol(W::of(self.lo as u64)).1
    }

    /// The inverse of [`Cut::split`].
    pub fn join<W: Word>(self, isa: Isa, symbols: &[u8], raw: &[u8], differences: &mut [W]) {
        assert!(symbols.len() == differences.len() && raw.len() == raw_bytes(self.raw_bits, differences.len()));
        let cut = self;
        for_each_isa!(isa, join_any<W: Word>(cut: Cut, symbols: &[u8], raw: &[u8], differences: &mut [W]));
    }

    /// Replaces what a difference has above its raw bits.
    pub fn set_above<W: Word>(self, difference: &mut W, above: i64) {
        let raw = difference.widened() >> self.zeros & ((1 << self.raw_bits) - 1);
        *difference = W::of_parts(W::of(above as u64), 0, self.raw_bits, W::of(raw), self.zeros);
    }
}

#[inline(always)]
fn split_any<W: Word>(cut: Cut, differences: &[W], symbols: &mut [u8], raw: &mut [u8]) -> bool {
    let lo = W::of(cut.lo as u64);
    let shift = cut.zeros + cut.raw_bits;
    let mut is_whole = true;
    for (symbol, difference) in symbols.iter_mut().zip(differences) {
        let (low, is_all) = difference.shifted(shift).symbol(lo);
        *symbol = low;
        is_whole &= is_all;
    }
    let mut below = shift;
    let mut at = 0;
    for width in widths(cut.raw_bits) {
        below -= width;
        let mask = ((1u16 << width) - 1) as u8;
        let plane = &mut raw[at..][..plane_bytes(width, differences.len())];
        at += plane.len();
        for (differences, plane) in differences.chunks(RUN).zip(plane.chunks_mut(RUN / 8 * width as usize)) {
            let mut fields = [0; RUN];
            let fields = &mut fields[..differences.len()];
            fields
                .iter_mut()
                .zip(differences)
                .for_each(|(field, difference)| *field = difference.byte(below) & mask);
            planes::pack(width, fields, plane);
        }
    }
    !is_whole
}

#[inline(always)]
fn join_any<W: Word>(cut: Cut, symbols: &[u8], raw: &[u8], differences: &mut [W]) {
    let lo = W::of(cut.lo as u64);
    let n = symbols.len();
    for (run, (symbols, differences)) in symbols.chunks(RUN).zip(differences.chunks_mut(RUN)).enumerate() {
        let mut bits = [W::default(); RUN];
        let bits = &mut bits[..symbols.len()];
        let mut plane = raw;
        for width in widths(cut.raw_bits) {
            let (this, rest) = plane.split_at(plane_bytes(width, n));
            plane = rest;
            let mut fields = [0; RUN];
            let fields = &mut fields[..symbols.len()];
            let this = &this[run * (RUN / 8 * width as usize)..];
            planes::unpack(width, &this[..plane_bytes(width, symbols.len())], fields);
            bits.iter_mut()
                .zip(fields)
                .for_each(|(bits, field)| *bits = bits.above(width, *field));
        }
        for ((difference, symbol), bits) in differences.iter_mut().zip(symbols).zip(&*bits) {
            *difference = W::of_parts(lo, *symbol, cut.raw_bits, *bits, cut.zeros);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<W: Word + std::fmt::Debug>(seed: u64, n: usize, spread: u32, bits: (u32, u32)) {
        let (zeros, raw_bits) = (bits.0 % W::BITS, bits.1 % (W::BITS - bits.0 % W::BITS));
        let mut x = seed | 1;
        let words: Vec<W> = (0..n)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                W::of((x as i64 >> (spread % 64)) as u64 >> zeros << zeros)
            })
            .collect();
        let lo = words.first().map_or(0, |word| word.shifted(zeros + raw_bits).signed() - 100);
        let cut = Cut { lo, raw_bits, zeros };
        let mut first = None;
        for isa in Isa::available() {
            let (mut symbols, mut raw) = (vec![0; n], vec![0; raw_bytes(raw_bits, n)]);
            let is_missed = cut.split(isa, &words, &mut symbols, &mut raw);
            let mut back = vec![W::default(); n];
            cut.join(isa, &symbols, &raw, &mut back);
            for (difference, word) in back.iter_mut().zip(&words) {
                if difference != word {
                    assert!(is_missed);
                    cut.set_above(difference, cut.above(*word));
                }
            }
            assert_eq!(back, words, "{cut:?} {isa}");
            let first = first.get_or_insert_with(|| (symbols.clone(), raw.clone()));
            assert_eq!((&symbols, &raw), (&first.0, &first.1), "{cut:?} {isa}");
        }
    }

    proptest! {
        #[test]
        fn differences_come_back(seed: u64, n in 0usize..600, spread: u32, bits in any::<(u32, u32)>()) {
            check::<u8>(seed, n, spread, bits);
            check::<u16>(seed, n, spread, bits);
            check::<u32>(seed, n, spread, bits);
            check::<u64>(seed, n, spread, bits);
        }
    }
}
