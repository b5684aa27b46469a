//! Frequencies of the indices of each component, from counts that calibration made.

use crate::error::{Error, Result};
use crate::rans::{SCALE, SCALE_BITS};

/// Largest magnitude that has a symbol of its own.
pub const MAX_RADIUS: usize = 127;
/// Symbols of a component at most: −127 … 127 and the escape.
pub const MAX_SYMBOLS: usize = 2 * MAX_RADIUS + 2;
/// Weight of what is believed before anything was counted, in counts.
const PRIOR_WEIGHT: f64 = 2.0;
/// Magnitudes rarer than this share of the counts are escapes.
const RARE: u64 = 1 << (SCALE_BITS + 1);

/// The frequencies of one component's symbols: those of −A … A, then that of the escape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexTable {
    freqs: Vec<u16>,
}

impl IndexTable {
    /// Takes frequencies over.
    ///
    /// # Errors
    /// `Option` unless there are 2A + 2 of them, 1 ≤ A ≤ 127, none is zero and they sum to 2^12.
    pub fn new(freqs: Vec<u16>) -> Result<Self> {
        let sum: u32 = freqs.iter().map(|&f| f as u32).sum();
        if freqs.len() < 4 || freqs.len() > MAX_SYMBOLS || !freqs.len().is_multiple_of(2) || sum != SCALE || freqs.contains(&0) {
            return Err(Error::option("the frequencies of a component are no table"));
        }
        Ok(Self { freqs })
    }

    /// The table for counts of the indices −R … R, R = counts.len() / 2; the outermost ones also count what lies beyond.
    ///
    /// The counts are mixed with a two-sided geometric distribution of the same mean magnitude, so that what calibration has not seen costs a few bits and not an escape.
    pub fn fit(counts: &[u64]) -> Self {
        let zero = counts.len() / 2;
        let n: u64 = counts.iter().sum();
        let count = |index: Option<usize>| index.and_then(|i| counts.get(i)).copied().unwrap_or(0);
        let magnitude = |k: usize| count(zero.checked_add(k)) + if k == 0 { 0 } else { count(zero.checked_sub(k)) };
        let radius = (1..=zero.min(MAX_RADIUS))
            .rev()
            .find(|&k| magnitude(k) * RARE > n)
            .unwrap_or(0)
            .saturating_add(1)
            .clamp(1, MAX_RADIUS);
        let mean = (1..=zero).map(|k| k as f64 * magnitude(k) as f64).sum::<f64>() / (n.max(1) as f64);
        let ratio = (mean / (1.0 + mean)).clamp(1e-4, 0.95);
        let mut weights = vec![0.0; 2 * radius + 2];
        let mut prior = PRIOR_WEIGHT * (1.0 - ratio);
        weights[radius] = magnitude(0) as f64 + prior;
        let (mut seen, mut believed) = (magnitude(0), prior);
        for k in 1..=radius {
            prior *= ratio;
            believed += prior;
            seen += magnitude(k);
            weights[radius + k] = count(zero.checked_add(k)) as f64 + prior / 2.0;
            weights[radius - k] = count(zero.checked_sub(k)) as f64 + prior / 2.0;
        }
        weights[2 * radius + 1] = (n - seen) as f64 + (PRIOR_WEIGHT - believed).max(0.0);
        Self {
            freqs: normalise(&weights),
        }
    }

    /// All frequencies.
    pub fn freqs(&self) -> &[u16] {
        &self.freqs
    }

    /// Largest magnitude that has a symbol of its own.
    pub fn radius(&self) -> usize {
        self.freqs.len() / 2 - 1
    }

    /// Bits that coding these counts takes, as in [`IndexTable::fit`], escapes included.
    pub fn cost_bits(&self, counts: &[u64]) -> f64 {
        let zero = counts.len() as i64 / 2;
        let radius = self.radius() as i64;
        counts
            .iter()
            .enumerate()
            .map(|(i, &n)| {
                let index = i as i64 - zero;
                let escape = index.abs() > radius;
                let symbol = if escape { 2 * radius + 1 } else { index + radius };
                let bits = SCALE_BITS as f64 - f64::from(self.freqs[symbol as usize]).log2();
                let gamma = if escape {
                    (2 * (index.abs() - radius).ilog2() + 2) as f64
                } else {
                    0.0
                };
                n as f64 * (bits + gamma)
            })
            .sum()
    }
}

/// Frequencies of at least 1 that sum to 2^12, in proportion to the weights.
fn normalise(weights: &[f64]) -> Vec<u16> {
    let total: f64 = weights.iter().sum();
    let free = (SCALE as usize - weights.len()) as f64;
    let mut freqs: Vec<u16> = weights.iter().map(|w| 1 + (w / total * free) as u16).collect();
    let sum: u32 = freqs.iter().map(|&f| f as u32).sum();
    let largest = (0..freqs.len()).rev().max_by_key(|&s| freqs[s]).expect("there are symbols");
    freqs[largest] += (SCALE - sum) as u16;
    freqs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_counts_give_a_table(counts in prop::collection::vec(0u64..1 << 40, 1..80)) {
            let counts = if counts.len() % 2 == 0 { &counts[1..] } else { &counts[..] };
            let table = IndexTable::fit(counts);
            prop_assert_eq!(&IndexTable::new(table.freqs().to_vec()).unwrap(), &table);
        }

        #[test]
        fn the_cost_is_close_to_the_entropy(counts in prop::collection::vec(1000u64..100_000, 15)) {
            let n: u64 = counts.iter().sum();
            let entropy: f64 = counts.iter().map(|&c| c as f64 * (n as f64 / c as f64).log2()).sum();
            let cost = IndexTable::fit(&counts).cost_bits(&counts);
            prop_assert!(cost >= entropy - 1e-6 * entropy && cost < 1.02 * entropy, "{} {}", cost, entropy);
        }
    }

    #[test]
    fn a_table_that_is_none_is_refused() {
        for freqs in [
            vec![],
            vec![1024, 2048, 1024],
            vec![0, 2048, 1024, 1024],
            vec![1024; 5],
            vec![16; 256 + 2],
        ] {
            assert!(IndexTable::new(freqs).is_err());
        }
    }
}
