//! Finding the symbol of a slot by comparisons.

use super::{FreqTable, SCALE};

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
    /// None if the symbols that have a frequency span too many.
    pub fn new(table: &FreqTable) -> Option<Box<SearchTable>> {
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
