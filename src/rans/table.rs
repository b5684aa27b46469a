//! Frequency tables: what both sides of a stream share.

use super::bits::{BitReader, BitWriter};
use super::cost::{ONE_BIT, PATCH, symbol_costs, total};
use super::{SCALE, SCALE_BITS};
use std::fmt;
use std::ops::RangeInclusive;

/// Integer frequencies of 256 symbols that sum to 2^12, at least two of them not zero.
#[derive(Clone, PartialEq, Eq)]
pub struct FreqTable {
    freqs: [u16; 256],
    /// The symbol that takes what the others leave of the sum; its frequency is not stored.
    rest: u8,
    /// Mantissa bits that the stored form keeps of the other frequencies.
    mantissa: u8,
}

impl fmt::Debug for FreqTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.freqs.iter().enumerate().filter(|(_, f)| **f > 0);
        f.debug_map().entries(used).finish()
    }
}

/// Mantissa bits that a fitted table may keep; the fit takes the cheapest.
const MANTISSAS: [u8; 4] = [1, 2, 3, 5];

impl FreqTable {
    /// The frequency of a symbol.
    pub fn freq(&self, symbol: u8) -> u16 {
        self.freqs[symbol as usize]
    }

    /// All frequencies.
    pub fn freqs(&self) -> &[u16; 256] {
        &self.freqs
    }

    /// From the first symbol that has a frequency to the last.
    pub fn used(&self) -> RangeInclusive<u8> {
        let used = |s: &u8| self.freq(*s) > 0;
        let first = (0..=255).find(used).expect("a table has symbols");
        let last = (0..=255).rfind(used).expect("a table has symbols");
        first..=last
    }

    /// A symbol of the highest frequency.
    pub fn likeliest(&self) -> u8 {
        let mut best = 0;
        for s in 1..256 {
            if self.freqs[s] > self.freqs[best] {
                best = s;
            }
        }
        best as u8
    }

    /// The table that codes `counts` cheapest, its own stored size included, with that cost in 1/1024 bit. Symbols so rare that a
    /// patch is cheaper than their slot get no frequency. None if fewer than two symbols would have one.
    pub fn fit(counts: &[u32; 256]) -> Option<(FreqTable, u64)> {
        MANTISSAS
            .iter()
            .filter_map(|&mantissa| {
                let table = Self::normalise(counts, mantissa)?;
                let cost = total(counts, &symbol_costs(&table)) + table.to_bytes().len() as u64 * 8 * ONE_BIT;
                Some((table, cost))
            })
            .min_by_key(|(_, cost)| *cost)
    }

    /// A table in which `symbol` has half of the slots and a neighbour the other half.
    pub fn of_two(symbol: u8) -> FreqTable {
        let mut freqs = [0; 256];
        freqs[symbol as usize] = SCALE as u16 / 2;
        freqs[symbol as usize ^ 1] = SCALE as u16 / 2;
        FreqTable {
            freqs,
            rest: symbol,
            mantissa: 0,
        }
    }

    fn normalise(counts: &[u32; 256], mantissa: u8) -> Option<FreqTable> {
        let n: u64 = counts.iter().map(|&c| c as u64).sum();
        // A slot more takes log2(e) / 2^12 bits from every other symbol, and some five bits of table.
        let slot = n * 1477 / SCALE as u64 + 5 * ONE_BIT;
        let kept = |c: u32| c as u64 * (PATCH - SCALE_BITS as u64 * ONE_BIT) > slot;
        let rest = (0..256).rev().max_by_key(|&s| counts[s])?;
        let n_kept: u64 = counts.iter().filter(|&&c| kept(c)).map(|&c| c as u64).sum();
        if !kept(counts[rest]) || counts.iter().filter(|&&c| kept(c)).count() < 2 {
            return None;
        }
        // Symbols below one slot get one; the others share what is left.
        let is_small = |c: u32| kept(c) && c as u64 * (SCALE as u64) < n_kept;
        let n_small = counts.iter().filter(|&&c| is_small(c)).count() as u64;
        let n_small_symbols: u64 = counts.iter().filter(|&&c| is_small(c)).map(|&c| c as u64).sum();
        let (budget, shared) = (SCALE as u64 - n_small, n_kept - n_small_symbols);
        let mut freqs = [0u16; 256];
        for (f, &c) in freqs.iter_mut().zip(counts) {
            if kept(c) {
                let exact = if is_small(c) {
                    1
                } else {
                    (c as u64 * budget + shared / 2) / shared
                };
                *f = round_to_mantissa(exact.max(1) as u32, mantissa) as u16;
            }
        }
        // The commonest symbol takes what rounding leaves; where it would get nothing, the next ones give.
        loop {
            let others: u32 = (0..256).filter(|&s| s != rest).map(|s| freqs[s] as u32).sum();
            if others < SCALE {
                freqs[rest] = (SCALE - others) as u16;
                return Some(FreqTable {
                    freqs,
                    rest: rest as u8,
                    mantissa,
                });
            }
            let largest = (0..256).rev().filter(|&s| s != rest).max_by_key(|&s| freqs[s])?;
            freqs[largest] = round_down_to_mantissa(freqs[largest] as u32 - 1, mantissa) as u16;
        }
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (lo, hi) = (*self.used().start() as usize, *self.used().end() as usize);
        let rest = self.rest as usize;
        let mut out = vec![lo as u8, (hi - lo) as u8, rest as u8, self.mantissa];
        let mut bits = BitWriter::default();
        let mut before = 0i32;
        for s in (lo..=hi).filter(|&s| s != rest) {
            let f = self.freqs[s] as u32;
            let length = bit_length(f) as i32;
            let d = length - before;
            before = length;
            for _ in 0..(d << 1 ^ d >> 31) {
                bits.bit(true);
            }
            bits.bit(false);
            for k in 0..(self.mantissa as i32).min(length - 1) {
                bits.bit(f >> (length - 2 - k) & 1 != 0);
            }
        }
        out.extend(bits.finish());
        out
    }

    /// Takes a stored table off the front of `bytes`.
    pub fn take(bytes: &mut &[u8]) -> Option<FreqTable> {
        let [lo, span, rest, mantissa] = *super::bits::take(bytes, 4)? else {
            return None;
        };
        let (lo, hi, rest) = (lo as usize, lo as usize + span as usize, rest as usize);
        if hi > 255 || !(lo..=hi).contains(&rest) || mantissa > 13 {
            return None;
        }
        let mut bits = BitReader::new(bytes);
        let mut freqs = [0u16; 256];
        let mut sum = 0u32;
        let mut before = 0i32;
        for s in (lo..=hi).filter(|&s| s != rest) {
            let mut zigzag = 0i32;
            while bits.bit()? {
                zigzag += 1;
                if zigzag > 2 * SCALE_BITS as i32 {
                    return None;
                }
            }
            let length = before + (zigzag >> 1 ^ -(zigzag & 1));
            if !(0..=SCALE_BITS as i32).contains(&length) {
                return None;
            }
            before = length;
            if length > 0 {
                let mut f = 1u32;
                let kept = (mantissa as i32).min(length - 1);
                for _ in 0..kept {
                    f = f << 1 | bits.bit()? as u32;
                }
                f <<= length - 1 - kept;
                freqs[s] = f as u16;
                sum += f;
            }
        }
        *bytes = &bytes[bits.finish()?..];
        if sum == 0 || sum >= SCALE {
            return None;
        }
        freqs[rest] = (SCALE - sum) as u16;
        Some(FreqTable {
            freqs,
            rest: rest as u8,
            mantissa,
        })
    }
}

fn bit_length(x: u32) -> u32 {
    32 - x.leading_zeros()
}

/// `x` with its top `mantissa + 1` bits kept, rounded to nearest.
fn round_to_mantissa(x: u32, mantissa: u8) -> u32 {
    let drop = bit_length(x).saturating_sub(mantissa as u32 + 1);
    if drop == 0 { x } else { (x + (1 << (drop - 1))) >> drop << drop }
}

/// `x` with its top `mantissa + 1` bits kept.
fn round_down_to_mantissa(x: u32, mantissa: u8) -> u32 {
    let drop = bit_length(x).saturating_sub(mantissa as u32 + 1);
    x >> drop << drop
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fitted_tables_come_back(counts in prop::collection::vec(prop_oneof![4 => 0u32..3, 2 => 0u32..1000, 1 => 0u32..4_000_000], 256)) {
            let counts: [u32; 256] = counts.try_into().unwrap();
            if let Some((table, cost)) = FreqTable::fit(&counts) {
                prop_assert_eq!(table.freqs.iter().map(|&f| f as u32).sum::<u32>(), SCALE);
                prop_assert!(cost + 1024 >= super::super::cost::entropy(&counts));
                let bytes = table.to_bytes();
                let mut rest = &bytes[..];
                let back = FreqTable::take(&mut rest);
                prop_assert_eq!(back.as_ref(), Some(&table));
                prop_assert!(rest.is_empty());
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(table) = FreqTable::take(&mut &bytes[..]) {
                prop_assert_eq!(table.freqs.iter().map(|&f| f as u32).sum::<u32>(), SCALE);
            }
        }
    }
}
