//! The order in which the words of a tensor are stored.
//!
//! Units of neighbouring words share a table. In convolutions the scale differs by input channel and by place in the kernel as much as by output
//! channel, so small tensors may be stored along another of their dimensions.

use crate::codec::context::Matrix;
use crate::codec::planes::{assign, units};
use crate::codec::select::Words;
use crate::float::kernel as float;
use crate::simd::Isa;
use std::ops::Range;

/// Tables that an order is tried with.
const TRIAL_TABLES: usize = 8;
/// A change of order must save one part in so many: of a convolution, whose channels and positions differ, and of a matrix, where it pays rarely
/// and undoing it costs a decoder as much as all else.
const LEAST_GAIN: u64 = 1000;
const LEAST_MATRIX_GAIN: u64 = 100;

/// An order of output channels (or rows, `o`), input channels (or columns, `i`) and kernel positions (`k`), slowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As in the source: `oik`.
    #[default]
    Natural,
    /// `iok`.
    Columns,
    /// `koi`.
    PositionsRows,
    /// `kio`.
    PositionsColumns,
}

/// Those that a record names.
const TABLE: [(Order, &str, [usize; 3]); 4] = [
    (Order::Natural, "oik", [0, 1, 2]),
    (Order::Columns, "iok", [1, 0, 2]),
    (Order::PositionsRows, "koi", [2, 0, 1]),
    (Order::PositionsColumns, "kio", [2, 1, 0]),
];

impl Order {
    /// The name in a record; None for the natural order, which none names.
    pub fn name(self) -> Option<&'static str> {
        (self != Order::Natural).then_some(TABLE[self as usize].1)
    }

    /// The order of that name.
    pub fn from_name(name: &str) -> Option<Order> {
        TABLE
            .iter()
            .find(|row| row.1 == name)
            .map(|row| row.0)
            .filter(|order| *order != Order::Natural)
    }

    /// Calls `visit` with the number of each word in the source, in stored order.
    fn walk(self, sizes: [usize; 3], mut visit: impl FnMut(usize)) {
        let strides = [sizes[1] * sizes[2], sizes[2], 1];
        let [a, b, c] = TABLE[self as usize].2;
        for x in 0..sizes[a] {
            for y in 0..sizes[b] {
                for z in 0..sizes[c] {
                    visit(x * strides[a] + y * strides[b] + z * strides[c]);
                }
            }
        }
    }

    /// The words, in stored order.
    pub fn store(self, sizes: [usize; 3], width: usize, words: &[u8]) -> Vec<u8> {
        let mut stored = Vec::with_capacity(words.len());
        self.walk(sizes, |at| stored.extend_from_slice(&words[at * width..][..width]));
        stored
    }

    /// Copies those of the stored words that `range` of the source holds.
    pub fn restore(self, sizes: [usize; 3], width: usize, stored: &[u8], range: &Range<usize>, out: &mut [u8]) {
        let mut stored = stored.chunks_exact(width);
        self.walk(sizes, |at| {
            let word = stored.next().unwrap_or_default();
            if range.contains(&at) {
                out[(at - range.start) * width..][..width].copy_from_slice(word);
            }
        });
    }

    /// Words of a row in this order.
    pub fn row_words(self, sizes: [usize; 3]) -> usize {
        match self {
            Order::Natural => sizes[1] * sizes[2],
            Order::Columns => sizes[0] * sizes[2],
            Order::PositionsRows => sizes[1],
            Order::PositionsColumns => sizes[0],
        }
    }

    /// The order whose units are the cheapest to code with a few tables.
    pub fn cheapest(words: Words<'_>, sizes: [usize; 3], isa: Isa) -> Order {
        let width = words.layout.word_bytes();
        let cost = |order: Order| {
            let stored = order.store(sizes, width, words.bytes);
            let mut symbols = vec![0; stored.len() / width];
            let base = words.layout.max_base().min(WINDOW_BASE);
            float::symbols(isa, words.layout, base, &stored, &mut symbols);
            let counts = units::count(&symbols, units::unit_words(order.row_words(sizes)));
            assign::least_cost(isa, &counts, TRIAL_TABLES)
        };
        let natural = cost(Order::Natural);
        let others = TABLE[1..]
            .iter()
            .map(|row| row.0)
            .filter(|order| *order == Order::Columns || sizes[2] > 1);
        let best = others.map(|order| (cost(order), order)).min_by_key(|(cost, _)| *cost);
        let least = natural / if sizes[2] > 1 { LEAST_GAIN } else { LEAST_MATRIX_GAIN };
        best.filter(|(cost, _)| cost + least < natural)
            .map_or(Order::Natural, |(_, order)| order)
    }
}

/// A window that shows all but huge values, for comparing orders: exponents up to 2^16, with two bits of mantissa.
const WINDOW_BASE: u16 = (127 + 16) * 4 - 255;

/// Rows, columns and positions of `n_words`; None if they are not that many.
pub fn sizes(matrix: Matrix, n_words: u64) -> Option<[usize; 3]> {
    let [columns, positions] = [matrix.columns(), matrix.positions()];
    let n_words = usize::try_from(n_words).ok()?;
    let row = columns.checked_mul(positions).filter(|&row| row > 0)?;
    n_words.is_multiple_of(row).then_some([n_words / row, columns, positions])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_undone() {
        let sizes = [5, 3, 4];
        let words: Vec<u8> = (0..120).collect();
        for (order, name, _) in TABLE {
            let stored = order.store(sizes, 2, &words);
            let mut back = vec![0; 120];
            order.restore(sizes, 2, &stored, &(0..60), &mut back);
            assert_eq!(back, words, "{name}");
            order.restore(sizes, 2, &stored, &(7..31), &mut back[..48]);
            assert_eq!(back[..48], words[14..62], "{name}");
        }
        assert_eq!(Order::Columns.store([2, 3, 1], 1, &[0, 1, 2, 3, 4, 5]), [0, 3, 1, 4, 2, 5]);
    }
}
