//! Which words round to a level: found by the very searches that the writer ran, since both must agree on every rounding.

use crate::codec::legacy::fp2::widened;
use std::collections::HashMap;

/// Mantissas of BF16.
const MANTISSA_BITS: u32 = 7;
const LARGEST: u16 = (1 << MANTISSA_BITS) - 1;

/// The mantissas that round to a level, given all else.
#[derive(Clone, Copy)]
pub struct Span {
    /// The lowest.
    pub first: u16,
    /// How many they are.
    pub n: u16,
}

/// Searches, each run once.
#[derive(Default)]
pub struct Quantiser {
    spans: HashMap<(i32, u16, u16), Span>,
    spans_of_0: HashMap<(bool, u16, u16), u16>,
}

impl Quantiser {
    /// The mantissas that round to a level other than 0.
    pub fn span(&mut self, level: i32, exponent: u16, scale: u16) -> Span {
        *self.spans.entry((level, exponent, scale)).or_insert_with(|| {
            // As if the level were positive: division and rounding treat both signs alike.
            let at = |mantissa| level.signum() * quantised(level < 0, exponent, mantissa, scale);
            let first = lowest(|mantissa| at(mantissa) >= level.abs());
            let last = highest(|mantissa| at(mantissa) <= level.abs());
            Span {
                first,
                n: (last + 1).saturating_sub(first).max(1),
            }
        })
    }

    /// How many mantissas round to level 0.
    pub fn span_of_0(&mut self, is_negative: bool, exponent: u16, scale: u16) -> u16 {
        *self
            .spans_of_0
            .entry((is_negative, exponent, scale))
            .or_insert_with(|| highest(|mantissa| quantised(is_negative, exponent, mantissa, scale) == 0) + 1)
    }
}

/// The level that a word rounds to.
fn quantised(is_negative: bool, exponent: u16, mantissa: u16, scale: u16) -> i32 {
    let word = (is_negative as u16) << 15 | exponent << MANTISSA_BITS | mantissa;
    let ratio = widened(word) / widened(scale);
    if ratio.is_finite() {
        ratio.round_ties_even().clamp(-7.0, 7.0) as i32
    } else {
        0
    }
}

/// The lowest mantissa for which `is` holds, where it holds for all above.
fn lowest(is: impl Fn(u16) -> bool) -> u16 {
    let (mut low, mut high) = (0, LARGEST);
    for _ in 0..MANTISSA_BITS {
        let middle = (low + high) / 2;
        if is(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The highest mantissa for which `is` holds, where it holds for all below.
fn highest(is: impl Fn(u16) -> bool) -> u16 {
    let (mut low, mut high) = (0i32, LARGEST as i32);
    for _ in 0..MANTISSA_BITS {
        let middle = (low + high + 1) >> 1;
        if is(middle as u16) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low as u16
}
