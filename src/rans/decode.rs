//! Decoding a stream, as far as all kernels share it.

use super::{FreqTable, LANES, SCALE, SEED_BYTES, STATE_MIN, STATES_BYTES};

/// What decoding needs of a frequency table.
pub struct DecodeTable {
    /// Frequency (12 bits), offset within the symbol's slots (12) and symbol (8) of each slot, lowest bits first.
    pub(super) slots: [u32; SCALE as usize],
    /// If the symbols that have a frequency lie within 64.
    pub(super) search: Option<Box<SearchTable>>,
}

/// A symbol is found by the number of symbols that start at or below a slot, in base four: each array has what the three comparisons for one
/// digit need, given the digits before. All are whole registers, indexed by the low bits of the sum of what the digits add: so no digit has to
/// be shifted to its place.
#[repr(align(64))]
pub struct SearchTable {
    /// Where symbols 16, 32 and 48 start, counted from the first one.
    pub(super) sixteenths: [[u16; 32]; 3],
    /// Where symbols 16 i + 4, + 8 and + 12 start.
    pub(super) fourths: [[u16; 32]; 3],
    /// Where symbols 4 i + 1, + 2 and + 3 start.
    pub(super) ones: [[u16; 32]; 3],
    /// What the digits 1, 2 and 3 add, in all lanes; by place, highest first.
    pub(super) digits: [[[u16; 32]; 3]; 3],
    /// Where the symbol starts.
    pub(super) starts: [[u16; 32]; 2],
    /// Its frequency.
    pub(super) freqs: [[u16; 32]; 2],
    /// The symbol.
    pub(super) symbols: [u8; SEARCHED],
}

/// Symbols that a search tells apart at most. Beyond, a gather is as fast.
const SEARCHED: usize = 64;

/// What a digit adds for each unit, by place, highest first: the first two make an index below 16, the third one selects among four such.
const DIGITS: [u16; 3] = [4, 1, 16];

impl SearchTable {
    fn new(table: &FreqTable) -> Option<Box<SearchTable>> {
        let used = table.used();
        if used.len() > SEARCHED {
            return None;
        }
        // Symbols behind the last one start behind the last slot.
        let mut start_of = [SCALE as u16; SEARCHED];
        let mut start = 0;
        for (i, s) in used.clone().enumerate() {
            start_of[i] = start;
            start += table.freq(s);
        }
        let mut made = Box::new(SearchTable {
            sixteenths: [16, 32, 48].map(|i| [start_of[i]; 32]),
            fourths: [[0; 32]; 3],
            ones: [[0; 32]; 3],
            digits: DIGITS.map(|add| [1, 2, 3].map(|digit| [digit * add; 32])),
            starts: [[0; 32]; 2],
            freqs: [[0; 32]; 2],
            symbols: [0; SEARCHED],
        });
        for i in 0..SEARCHED {
            let (before, low) = (i / 4, i % 4);
            if low == 0 {
                (0..3).for_each(|k| made.ones[k][before] = start_of[i + k + 1]);
                if i % 16 == 0 {
                    (0..3).for_each(|k| made.fourths[k][before] = start_of[i + 4 * k + 4]);
                }
            }
            let at = before + low * DIGITS[2] as usize;
            let symbol = used.start().wrapping_add(i as u8);
            made.starts[at / 32][at % 32] = start_of[i];
            made.freqs[at / 32][at % 32] = if i < used.len() { table.freq(symbol) } else { 0 };
            made.symbols[at] = symbol;
        }
        Some(made)
    }
}

impl std::fmt::Debug for DecodeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DecodeTable")
    }
}

impl DecodeTable {
    /// Spreads a frequency table over its slots.
    pub fn new(table: &FreqTable) -> Box<DecodeTable> {
        let mut made = Box::new(DecodeTable {
            slots: [0; SCALE as usize],
            search: SearchTable::new(table),
        });
        let mut at = 0;
        for (s, &f) in table.freqs().iter().enumerate() {
            let entry = f as u32 | (s as u32) << 24;
            for (offset, slot) in made.slots[at..at + f as usize].iter_mut().enumerate() {
                *slot = entry | (offset as u32) << 12;
            }
            at += f as usize;
        }
        debug_assert_eq!(at, SCALE as usize);
        made
    }
}

/// A stream being decoded.
pub struct Stream<'a> {
    pub(super) states: [u32; LANES],
    /// The 16-bit words that no state has taken yet.
    pub(super) words: &'a [u8],
}

impl<'a> Stream<'a> {
    /// A stream from its stored states and words. None if a state is out of bounds.
    pub fn new(states: &[u8; STATES_BYTES], words: &'a [u8]) -> Option<Self> {
        let mut stream = Self { states: [0; LANES], words };
        for (state, bytes) in stream.states.iter_mut().zip(states.as_chunks::<4>().0) {
            *state = u32::from_le_bytes(*bytes);
            if *state < STATE_MIN {
                return None;
            }
        }
        Some(stream)
    }

    /// After the last symbol: the seed, or None if the stream does not end as an encoder's does.
    pub fn finish(self) -> Option<[u8; SEED_BYTES]> {
        if !self.words.is_empty() || self.states.iter().any(|x| x >> 16 != 1) {
            return None;
        }
        let mut seed = [0; SEED_BYTES];
        for (bytes, state) in seed.as_chunks_mut::<2>().0.iter_mut().zip(self.states) {
            *bytes = (state as u16).to_le_bytes();
        }
        Some(seed)
    }
}
