//! Counts of symbols as 24-bit probabilities: the `perfect` quantisation of `constriction`'s categorical model.

use super::damaged;
use crate::error::Result;
use libm::log1p;

/// Bits of a probability.
pub const PRECISION: u32 = 24;
/// Bits of a quantile that the first look-up goes by.
const FIRST_BITS: u32 = 12;
/// What every count is raised by, so that no symbol is impossible.
const FLOOR: f64 = 0.01;

/// Quantiles by symbol, and the symbol by quantile.
pub struct Table {
    /// Where each symbol begins, and 2^24.
    starts: Vec<u32>,
    /// The symbol of the first quantile with these top bits.
    first: Box<[u16; 1 << FIRST_BITS]>,
}

impl Table {
    /// The table of these counts.
    pub fn new(counts: &[u32]) -> Result<Table> {
        let weights = weights(&probabilities(counts))?;
        let mut starts = Vec::with_capacity(weights.len() + 1);
        let mut start = 0;
        for weight in weights {
            starts.push(start);
            start += weight;
        }
        starts.push(start);
        let mut first = Box::new([0; 1 << FIRST_BITS]);
        let mut symbol = 0;
        for (i, first) in first.iter_mut().enumerate() {
            while starts[symbol + 1] <= (i as u32) << (PRECISION - FIRST_BITS) {
                symbol += 1;
            }
            *first = symbol as u16;
        }
        Ok(Table { starts, first })
    }

    /// Where a symbol starts, and its weight. None if there is no such symbol.
    pub fn place(&self, symbol: u16) -> Option<(u32, u32)> {
        let start = *self.starts.get(symbol as usize)?;
        Some((start, self.starts.get(symbol as usize + 1)? - start))
    }

    /// The symbol of a quantile below 2^24, where it starts and its weight.
    #[inline(always)]
    pub fn find(&self, quantile: u32) -> (u16, u32, u32) {
        let mut symbol = self.first[(quantile >> (PRECISION - FIRST_BITS)) as usize % (1 << FIRST_BITS)] as usize;
        while self.starts[symbol + 1] <= quantile {
            symbol += 1;
        }
        let start = self.starts[symbol];
        (symbol as u16, start, self.starts[symbol + 1] - start)
    }
}

/// Counts over their sum, in numpy's order of summation, which their last bits depend on.
pub fn probabilities(counts: &[u32]) -> Vec<f64> {
    let raised: Vec<f64> = counts.iter().map(|&count| count as f64 + FLOOR).collect();
    let sum = pairwise_sum(&raised);
    raised.iter().map(|p| p / sum).collect()
}

/// numpy's sum of float64.
fn pairwise_sum(terms: &[f64]) -> f64 {
    match terms.len() {
        0..8 => terms.iter().fold(0.0, |sum, term| sum + term),
        8..=128 => {
            let (whole, rest) = terms.as_chunks::<8>();
            let mut sums = whole[0];
            for eight in &whole[1..] {
                for (sum, term) in sums.iter_mut().zip(eight) {
                    *sum += term;
                }
            }
            let [a, b, c, d, e, f, g, h] = sums;
            rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, term| sum + term)
        }
        n => {
            let (left, right) = terms.split_at(n / 2 / 8 * 8);
            pairwise_sum(left) + pairwise_sum(right)
        }
    }
}

/// A symbol whose weight is being settled.
struct Slot {
    symbol: usize,
    probability: f64,
    weight: u32,
    /// By how much the cross entropy falls with one more.
    win: f64,
    /// By how much it rises with one less.
    loss: f64,
}

impl Slot {
    fn new(symbol: usize, probability: f64, weight: u32) -> Slot {
        let mut slot = Slot {
            symbol,
            probability,
            weight,
            win: 0.0,
            loss: 0.0,
        };
        slot.settle();
        slot
    }

    fn settle(&mut self) {
        self.win = self.gain();
        self.loss = self.cost();
    }

    fn gain(&self) -> f64 {
        self.probability * log1p(1.0 / self.weight as f64)
    }

    fn cost(&self) -> f64 {
        if self.weight == 1 {
            f64::INFINITY
        } else {
            -self.probability * log1p(-1.0 / self.weight as f64)
        }
    }
}

/// Integer weights of at least 1 that sum to 2^24 and are as near to the probabilities as such weights can be.
fn weights(probabilities: &[f64]) -> Result<Vec<u32>> {
    let wrong = || damaged("a table has no probabilities");
    let mut free = (1u32 << PRECISION).checked_sub(probabilities.len() as u32).ok_or_else(wrong)?;
    let sum: f64 = probabilities.iter().fold(0.0, |sum, p| sum + p);
    if probabilities.len() < 2 || !sum.is_normal() {
        return Err(wrong());
    }
    let scale = free as f64 / sum;
    let mut slots = Vec::with_capacity(probabilities.len());
    for (symbol, &probability) in probabilities.iter().enumerate() {
        let share = (probability * scale) as u32;
        free = free.checked_sub(share).ok_or_else(wrong)?;
        slots.push(Slot::new(symbol, probability, share + 1));
    }
    while free != 0 {
        slots.sort_by(|a, b| b.win.total_cmp(&a.win));
        let n = slots.len().min(free as usize);
        for slot in &mut slots[..n] {
            slot.weight += 1;
            slot.settle();
        }
        free -= n as u32;
    }
    trade(&mut slots);
    let mut weights = vec![0; slots.len()];
    for slot in slots {
        weights[slot.symbol] = slot.weight;
    }
    Ok(weights)
}

/// Moves single units from where they are missed least to where they are wanted most, for as long as it helps.
fn trade(slots: &mut [Slot]) {
    loop {
        let (mut buyer, mut seller) = (0, 0);
        for i in 1..slots.len() {
            if slots[i].win >= slots[buyer].win {
                buyer = i;
            }
            if slots[i].loss < slots[seller].loss {
                seller = i;
            }
        }
        if buyer == seller || slots[buyer].win <= slots[seller].loss {
            return;
        }
        let slot = &mut slots[seller];
        slot.weight -= 1;
        slot.win = f64::NEG_INFINITY;
        slot.loss = slot.cost();
        let slot = &mut slots[buyer];
        slot.weight += 1;
        slot.loss = f64::INFINITY;
        slot.win = slot.gain();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use constriction::stream::model::{DefaultContiguousCategoricalEntropyModel, IterableEntropyModel};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn tables_are_those_of_constriction(
            alphabet in prop::sample::select(vec![2usize, 3, 7, 8, 16, 64, 128, 256, 512, 1024]),
            listed in prop::collection::vec((any::<u16>(), any::<u32>(), 0u32..32), 0..200),
        ) {
            let mut counts = vec![0; alphabet];
            for (symbol, count, shift) in listed {
                counts[symbol as usize % alphabet] = count >> shift;
            }
            let probabilities = probabilities(&counts);
            let theirs = DefaultContiguousCategoricalEntropyModel::from_floating_point_probabilities_perfect(&probabilities).unwrap();
            let table = Table::new(&counts).unwrap();
            for (symbol, start, weight) in theirs.symbol_table() {
                prop_assert_eq!(table.find(start), (symbol as u16, start, weight.get()));
                prop_assert_eq!(table.find(start + weight.get() - 1), (symbol as u16, start, weight.get()));
            }
        }
    }

    #[test]
    fn sums_are_numpys() {
        for (n, sum) in [
            (5, 1.0928571428571427),
            (13, 1.8182289932289928),
            (64, 3.2744270342418997),
            (128, 3.948591338265976),
            (200, 4.387956567549058),
            (1000, 5.987467865541362),
        ] {
            let terms: Vec<f64> = (0..n).map(|i| 1.0 / (i as f64 + 3.0)).collect();
            assert_eq!(pairwise_sum(&terms), sum, "{n} terms");
        }
    }
}
