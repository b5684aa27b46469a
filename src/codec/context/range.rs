//! A range coder for decisions and symbols, and beside it a string of bits that no model can predict.

use super::table::Table;

/// What a model codes through. An encoder writes what it is handed and returns it; a decoder ignores that and returns what it reads.
/// So one model serves both ways and cannot drift apart.
pub trait Coder {
    /// Whether words are known before they are coded.
    const ENCODES: bool;

    /// Codes one decision; `one` in 1 … 65,535 is 2^16 times the probability of true.
    fn decide(&mut self, one: u32, bit: bool) -> bool;

    /// Codes a symbol that has a frequency in `table`.
    fn symbol(&mut self, table: &Table, symbol: usize) -> usize;

    /// Codes `n` ≤ 32 bits that are all as likely as not.
    fn raw(&mut self, n: u32, bits: u32) -> u32;
}

/// The range is kept at or above this by moving out a byte at a time.
const LEAST: u32 = 1 << 24;

/// Writes decisions, symbols and raw bits.
pub struct Encoder {
    /// Lower end of the interval: 32 bits, and above them a carry into the bytes already written.
    low: u64,
    range: u32,
    coded: Vec<u8>,
    raw: Vec<u8>,
    held: u64,
    n_held: u32,
}

impl Encoder {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self {
            low: 0,
            range: u32::MAX,
            coded: Vec::new(),
            raw: Vec::new(),
            held: 0,
            n_held: 0,
        }
    }

    /// Narrows the interval to `size` units from `start` on.
    #[inline(always)]
    fn narrow(&mut self, start: u32, size: u32) {
        self.low += start as u64;
        self.range = size;
        while self.range < LEAST {
            self.range <<= 8;
            self.shift();
        }
    }

    #[inline]
    fn shift(&mut self) {
        if self.low >> 32 != 0 {
            for byte in self.coded.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
        self.coded.push((self.low >> 24) as u8);
        self.low = self.low << 8 & 0xFFFF_FFFF;
    }

    /// The coded bytes, without the zeros that a reader puts behind them anyway, and the bytes of the raw bits.
    pub fn finish(mut self) -> (Vec<u8>, Vec<u8>) {
        for _ in 0..4 {
            self.shift();
        }
        while self.coded.last() == Some(&0) {
            self.coded.pop();
        }
        self.raw
            .extend_from_slice(&self.held.to_le_bytes()[..self.n_held.div_ceil(8) as usize]);
        (self.coded, self.raw)
    }
}

impl Coder for Encoder {
    const ENCODES: bool = true;

    #[inline(always)]
    fn decide(&mut self, one: u32, bit: bool) -> bool {
        let bound = (self.range >> 16) * one;
        if bit {
            self.narrow(0, bound)
        } else {
            self.narrow(bound, self.range - bound)
        }
        bit
    }

    #[inline(always)]
    fn symbol(&mut self, table: &Table, symbol: usize) -> usize {
        let unit = self.range >> 16;
        let (start, frequency) = table.share(symbol);
        self.narrow(unit * start, unit * frequency);
        symbol
    }

    #[inline(always)]
    fn raw(&mut self, n: u32, bits: u32) -> u32 {
        self.held |= (bits as u64) << self.n_held;
        self.n_held += n;
        if self.n_held >= 32 {
            self.raw.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.n_held -= 32;
        }
        bits
    }
}

/// Reads what an [`Encoder`] wrote. Behind the end of its bytes it reads zeros.
pub struct Decoder<'a> {
    code: u32,
    range: u32,
    coded: &'a [u8],
    raw: &'a [u8],
    held: u64,
    n_held: u32,
    /// Whether more raw bits were asked for than there are.
    is_short: bool,
}

impl<'a> Decoder<'a> {
    /// Reads from the two strings of bytes.
    pub fn new(coded: &'a [u8], raw: &'a [u8]) -> Self {
        let mut decoder = Self {
            code: 0,
            range: u32::MAX,
            coded,
            raw,
            held: 0,
            n_held: 0,
            is_short: false,
        };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    #[inline(always)]
    fn narrow(&mut self, start: u32, size: u32) {
        self.code -= start;
        self.range = size;
        while self.range < LEAST {
            self.range <<= 8;
            self.shift();
        }
    }

    #[inline(always)]
    fn shift(&mut self) {
        let mut byte = 0;
        if let Some((&first, rest)) = self.coded.split_first() {
            (byte, self.coded) = (first, rest);
        }
        self.code = self.code << 8 | byte as u32;
    }

    /// Takes in the last, incomplete word of raw bits, and zeros behind it.
    #[cold]
    fn hold_last(&mut self, n: u32) {
        for &byte in self.raw {
            self.held |= (byte as u64) << self.n_held;
            self.n_held += 8;
        }
        self.raw = &[];
        self.is_short |= self.n_held < n;
        self.n_held = self.n_held.max(n);
    }

    /// Whether the strings hold just what was read.
    pub fn is_spent(&self) -> bool {
        self.coded.is_empty() && self.raw.is_empty() && self.n_held < 8 && self.held == 0 && !self.is_short
    }
}

impl Coder for Decoder<'_> {
    const ENCODES: bool = false;

    #[inline(always)]
    fn decide(&mut self, one: u32, _: bool) -> bool {
        let bound = (self.range >> 16) * one;
        let bit = self.code < bound;
        if bit {
            self.narrow(0, bound)
        } else {
            self.narrow(bound, self.range - bound)
        }
        bit
    }

    #[inline(always)]
    fn symbol(&mut self, table: &Table, _: usize) -> usize {
        let unit = self.range >> 16;
        let symbol = table.find((self.code / unit).min(0xFFFF));
        let (start, frequency) = table.share(symbol);
        self.narrow(unit * start, unit * frequency);
        symbol
    }

    #[inline(always)]
    fn raw(&mut self, n: u32, _: u32) -> u32 {
        if self.n_held < n {
            if let Some((word, rest)) = self.raw.split_first_chunk() {
                self.raw = rest;
                self.held |= (u32::from_le_bytes(*word) as u64) << self.n_held;
                self.n_held += 32;
            } else {
                self.hold_last(n);
            }
        }
        let bits = self.held & ((1 << n) - 1);
        self.held >>= n;
        self.n_held -= n;
        bits as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decisions_and_raw_bits_come_back(steps in prop::collection::vec((1u32..65_536, any::<bool>(), 0u32..=32, any::<u32>()), 0..2000)) {
            let mut encoder = Encoder::new();
            for &(one, bit, n, bits) in &steps {
                encoder.decide(one, bit);
                encoder.raw(n, (bits as u64 & ((1 << n) - 1)) as u32);
            }
            let (coded, raw) = encoder.finish();
            let mut decoder = Decoder::new(&coded, &raw);
            for &(one, bit, n, bits) in &steps {
                prop_assert_eq!(decoder.decide(one, false), bit);
                prop_assert_eq!(decoder.raw(n, 0) as u64, bits as u64 & ((1 << n) - 1));
            }
            prop_assert!(decoder.is_spent());
        }
    }

    #[test]
    fn a_carry_runs_through_bytes_of_ones() {
        let mut encoder = Encoder::new();
        let decisions: Vec<(u32, bool)> = (0..400).map(|i| if i < 300 { (1, false) } else { (65_535, i % 3 == 0) }).collect();
        for &(one, bit) in &decisions {
            encoder.decide(one, bit);
        }
        let (coded, raw) = encoder.finish();
        let mut decoder = Decoder::new(&coded, &raw);
        assert!(decisions.iter().all(|&(one, bit)| decoder.decide(one, false) == bit));
    }
}
