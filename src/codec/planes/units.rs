//! Units of rows, and what is counted of each.

use crate::float::Layout;

/// Words that a unit has at least, so that its class costs little, where rows are shorter.
const MIN_UNIT_WORDS: usize = 128;
/// Words that a unit has at most, so that its counts fit 15 bits.
const MAX_UNIT_WORDS: usize = 1 << 14;
/// Words of a unit where rows are longer than that, or there are none.
const LONG_ROW_UNIT_WORDS: usize = 1 << 12;

/// Words of a unit of a tensor whose rows have `row_words`.
pub fn unit_words(row_words: usize) -> usize {
    match row_words {
        0 => MIN_UNIT_WORDS,
        1..MIN_UNIT_WORDS => row_words * MIN_UNIT_WORDS.div_ceil(row_words),
        MIN_UNIT_WORDS..=MAX_UNIT_WORDS => row_words,
        _ => LONG_ROW_UNIT_WORDS,
    }
}

/// How often each symbol occurs in a unit.
pub type Counts = [i16; 256];

/// Counts the symbols of each unit.
pub fn count(symbols: &[u8], unit_words: usize) -> Vec<Counts> {
    assert!(unit_words <= i16::MAX as usize);
    symbols
        .chunks(unit_words)
        .map(|unit| {
            let mut counts = [0; 256];
            unit.iter().for_each(|&s| counts[s as usize] += 1);
            counts
        })
        .collect()
}

/// Adds the counts of a unit to those of a class.
pub fn add(sum: &mut [u32; 256], counts: &Counts) {
    sum.iter_mut().zip(counts).for_each(|(sum, &n)| *sum += n as u32);
}

/// Bits at the bottom of a word that F16 or BF16 values, widened, leave zero; ascending.
fn widened_zero_bits(layout: Layout) -> &'static [u32] {
    match layout {
        Layout::F32 => &[13, 16],
        Layout::F64 => &[29, 42, 45],
        _ => &[],
    }
}

/// Number of kinds of units that [`precisions`] tells apart.
pub fn n_precisions(layout: Layout) -> usize {
    widened_zero_bits(layout).len() + 1
}

/// For each unit, from how narrow a format all its words can have been widened: 0 for none, then narrower and narrower.
pub fn precisions(layout: Layout, words: &[u8], unit_words: usize) -> Vec<u8> {
    let zero_bits = widened_zero_bits(layout);
    if zero_bits.is_empty() {
        return vec![0; (words.len() / layout.word_bytes()).div_ceil(unit_words)];
    }
    words
        .chunks(unit_words * layout.word_bytes())
        .map(|unit| {
            let used = match layout {
                Layout::F32 => unit.as_chunks::<4>().0.iter().fold(0, |used, w| used | u32::from_le_bytes(*w)) as u64,
                _ => unit.as_chunks::<8>().0.iter().fold(0, |used, w| used | u64::from_le_bytes(*w)),
            };
            zero_bits.iter().take_while(|&&bits| used & ((1 << bits) - 1) == 0).count() as u8
        })
        .collect()
}
