//! Symbols under one table, as the range coder writes them.

use super::put_sized;
use constriction::stream::Encode;
use constriction::stream::model::DefaultContiguousCategoricalEntropyModel;
use constriction::stream::queue::DefaultRangeEncoder;

/// Bytes of a number in a table.
#[derive(Clone, Copy)]
pub enum Width {
    /// One.
    U8,
    /// Two.
    U16,
}

impl Width {
    /// Appends a number, which fits.
    pub fn put(self, out: &mut Vec<u8>, number: usize) {
        match self {
            Width::U8 => out.push(number as u8),
            Width::U16 => out.extend((number as u16).to_le_bytes()),
        }
    }
}

/// How often each symbol occurs.
pub struct Table<'a>(pub &'a [u32]);

impl Table<'_> {
    /// Appends the number of symbols that occur, which they are, and how often each of them does.
    pub fn put(&self, out: &mut Vec<u8>, number: Width, symbol: Width) {
        let occurring = || self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        number.put(out, occurring().count());
        occurring().for_each(|(index, _)| symbol.put(out, index));
        occurring().for_each(|(_, count)| out.extend(count.to_le_bytes()));
    }

    /// Appends the coded symbols behind their number of bytes, or nothing but a None if that does not fit its field.
    pub fn put_codeword(&self, out: &mut Vec<u8>, symbols: impl Iterator<Item = usize>) -> Option<()> {
        let model = DefaultContiguousCategoricalEntropyModel::from_floating_point_probabilities_perfect(&self.probabilities())
            .expect("there are two symbols at least, and every one has a probability");
        let mut coder = DefaultRangeEncoder::new();
        coder
            .encode_iid_symbols(symbols, &model)
            .expect("memory takes all words, and the model has all symbols");
        let words = coder.into_compressed().expect("memory takes all words");
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        put_sized(out, &bytes)
    }

    /// Those of the Python package: symbols that do not occur have one too, and the sum is NumPy's to the last bit.
    fn probabilities(&self) -> Vec<f64> {
        let weights: Vec<f64> = self.0.iter().map(|&count| f64::from(count) + 0.01).collect();
        let sum = sum(&weights);
        weights.into_iter().map(|weight| weight / sum).collect()
    }
}

/// The sum in NumPy's order: halves, then eight sums side by side.
fn sum(values: &[f64]) -> f64 {
    const LEAF: usize = 128;
    match values.len() {
        n if n > LEAF => {
            let (left, right) = values.split_at(n / 2 - n / 2 % 8);
            sum(left) + sum(right)
        }
        0..8 => values.iter().fold(0.0, |sum, value| sum + value),
        _ => {
            let (eights, rest) = values.as_chunks::<8>();
            let mut sums = [0.0; 8];
            for eight in eights {
                sums.iter_mut().zip(eight).for_each(|(sum, value)| *sum += value);
            }
            let pairs = [sums[0] + sums[1], sums[2] + sums[3], sums[4] + sums[5], sums[6] + sums[7]];
            let all = (pairs[0] + pairs[1]) + (pairs[2] + pairs[3]);
            rest.iter().fold(all, |sum, value| sum + value)
        }
    }
}
