//! The codec of `storage` mode: every word coded with odds made for it, from the scale of its row and column and the words near it.
//!
//! Nothing is sent ahead. Reader and writer learn the same from the words already coded: `scale` what magnitude the next word may have,
//! `mean` what sign, `mixer` how often either is wrong. All of it is integer arithmetic, so that it comes out the same everywhere.

mod mean;
mod mixer;
mod model;
mod probability;
mod range;
mod scale;
mod table;
mod word;
mod words;

use crate::float::Layout;
use crate::rans::bits::{put_varint, take, take_varint};
use model::Model;
use range::{Decoder, Encoder};
use std::ops::Range;
use words::{Source, Target};

/// Columns of a row, and its words, are told apart up to this number; beyond, numbers start again.
const MOST_PLACES: usize = 1 << 16;
/// Kernels of more words are taken for rows.
const MOST_POSITIONS: usize = 1024;
/// Chunks of more words than this are for the most part coded with tables: a little larger, and twice as fast.
const MOST_MIXED: usize = 1 << 22;
/// Words of such a chunk that are coded before the tables.
const N_MIXED: usize = 1 << 17;

/// How the words of a tensor lie: rows of `columns` kernels of `positions` words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    columns: usize,
    positions: usize,
}

impl Matrix {
    /// From the words along each dimension of the tensor: words, not elements, along the last.
    pub fn of(shape: &[usize]) -> Self {
        let product = |dimensions: &[usize]| dimensions.iter().fold(1usize, |product, &n| product.saturating_mul(n)).max(1);
        let (columns, positions) = match shape {
            [_, columns, kernel @ ..] if product(&shape[1..]) > 1 => (*columns, product(kernel)),
            _ => (product(shape), 1),
        };
        if positions > MOST_POSITIONS {
            Self {
                columns: positions,
                positions: 1,
            }
        } else {
            Self {
                columns: columns.max(1),
                positions,
            }
        }
    }

    /// Kernels of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Words of a kernel.
    pub fn positions(&self) -> usize {
        self.positions
    }

    fn row_words(&self) -> usize {
        self.columns.saturating_mul(self.positions)
    }

    fn n_columns(&self) -> usize {
        self.columns.min(MOST_PLACES)
    }

    fn n_positions(&self) -> usize {
        self.positions
    }

    fn n_places(&self) -> usize {
        self.row_words().min(MOST_PLACES)
    }

    fn has_kernels(&self) -> bool {
        self.positions > 1
    }
}

/// The words that a chunk has of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    matrix: Matrix,
    /// Words of the tensor before them.
    start: usize,
    /// How many they are.
    words: usize,
}

impl Part {
    /// The parts of a chunk: `range` of the words of the tensors, one after the other.
    pub fn cut(tensors: impl IntoIterator<Item = (Matrix, usize)>, range: Range<usize>) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut before = 0;
        for (matrix, words) in tensors {
            let (from, to) = (range.start.max(before), range.end.min(before + words));
            if from < to {
                parts.push(Part {
                    matrix,
                    start: from - before,
                    words: to - from,
                });
            }
            before += words;
        }
        parts
    }
}

/// Calls a function generic in exponent bits, mantissa bits and word bytes with those of a layout; None if it is not a float's.
macro_rules! with_fields {
    ($layout:expr, $function:ident($($argument:expr),*)) => {
        match $layout {
            Layout::F8 => Some($function::<4, 3, 1>($($argument),*)),
            Layout::Bf16 => Some($function::<8, 7, 2>($($argument),*)),
            Layout::F16 => Some($function::<5, 10, 2>($($argument),*)),
            Layout::F32 => Some($function::<8, 23, 4>($($argument),*)),
            Layout::F64 => Some($function::<11, 52, 8>($($argument),*)),
            Layout::Byte | Layout::I16 | Layout::I32 | Layout::I64 => None,
        }
    };
}

/// Codes a chunk of words that the parts add up to; None if they are not floats.
pub fn encode(words: &[u8], layout: Layout, parts: &[Part]) -> Option<Vec<u8>> {
    let n_words = words.len() / layout.word_bytes();
    encode_with(words, layout, parts, if n_words <= MOST_MIXED { n_words } else { N_MIXED })
}

/// Codes with tables after `n_mixed` words.
fn encode_with(words: &[u8], layout: Layout, parts: &[Part], n_mixed: usize) -> Option<Vec<u8>> {
    with_fields!(layout, encode_fields(words, parts, n_mixed))
}

fn encode_fields<const E: u32, const M: u32, const W: usize>(words: &[u8], parts: &[Part], n_mixed: usize) -> Vec<u8> {
    assert_eq!(parts.iter().map(|part| part.words).sum::<usize>() * W, words.len());
    let mut model = Model::<E, M>::new(n_mixed, words.len() / W);
    let mut encoder = Encoder::new();
    let mut first = 0;
    for part in parts {
        model.part(&mut encoder, part, first, &mut Source::<W>(words));
        first += part.words;
    }
    let (coded, raw) = encoder.finish();
    let mut out = Vec::with_capacity(coded.len() + raw.len() + 12);
    put_varint(&mut out, n_mixed as u64);
    put_varint(&mut out, coded.len() as u64);
    out.extend_from_slice(&coded);
    out.extend_from_slice(&raw);
    out
}

/// Fills `out` with the words that [`encode`] was given, or says what is wrong.
///
/// Takes memory by the sizes of the parts only, and time by those and the length of `coded`, whatever it holds.
pub fn decode(coded: &[u8], layout: Layout, parts: &[Part], out: &mut [u8]) -> Result<(), &'static str> {
    with_fields!(layout, decode_fields(coded, parts, out)).unwrap_or(Err("only floats are coded by context"))
}

fn decode_fields<const E: u32, const M: u32, const W: usize>(coded: &[u8], parts: &[Part], out: &mut [u8]) -> Result<(), &'static str> {
    if parts.iter().map(|part| part.words).sum::<usize>() * W != out.len() {
        return Err("the parts do not add up to the chunk");
    }
    let mut raw = coded;
    let n_mixed = take_varint(&mut raw).ok_or("the chunk is cut short")?;
    let n_coded = take_varint(&mut raw).ok_or("the chunk is cut short")?;
    let coded = usize::try_from(n_coded)
        .ok()
        .and_then(|n| take(&mut raw, n))
        .ok_or("the chunk is cut short")?;
    let mut model = Model::<E, M>::new(usize::try_from(n_mixed).unwrap_or(usize::MAX), out.len() / W);
    let mut decoder = Decoder::new(coded, raw);
    let mut first = 0;
    for part in parts {
        model.part(&mut decoder, part, first, &mut Target::<W>(out));
        first += part.words;
    }
    if decoder.is_spent() {
        Ok(())
    } else {
        Err("the chunk is not what its words take")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FLOATS: [Layout; 5] = [Layout::F8, Layout::Bf16, Layout::F16, Layout::F32, Layout::F64];

    /// Numbers that look random, from xorshift.
    struct Random(u64);

    impl Random {
        fn bits(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
        }

        /// About normally distributed: a sum of twelve uniform numbers.
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| (self.bits() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
        }
    }

    /// Words of a layout that hold values, cut off rather than rounded.
    fn words(layout: Layout, values: impl IntoIterator<Item = f64>) -> Vec<u8> {
        let mut out = Vec::new();
        for value in values {
            let bits = value.to_bits();
            let single = (value as f32).to_bits();
            // The narrow formats by their exponents alone: bias 127 becomes 15 or 7, and what is below becomes zero.
            let narrow = |bias: u32, mantissa: u32| {
                let magnitude = ((single & 0x7FFF_FFFF) >> (23 - mantissa)).saturating_sub((127 - bias) << mantissa);
                (single >> 31, magnitude)
            };
            match layout {
                Layout::F64 => out.extend_from_slice(&bits.to_le_bytes()),
                Layout::F32 => out.extend_from_slice(&single.to_le_bytes()),
                Layout::Bf16 => out.extend_from_slice(&((single >> 16) as u16).to_le_bytes()),
                Layout::F16 => {
                    let (sign, magnitude) = narrow(15, 10);
                    out.extend_from_slice(&((sign << 15 | magnitude.min(0x7BFF)) as u16).to_le_bytes());
                }
                _ => {
                    let (sign, magnitude) = narrow(7, 3);
                    out.push((sign << 7 | magnitude.min(0x7E)) as u8);
                }
            }
        }
        out
    }

    /// Words of many kinds.
    fn any_words(layout: Layout, n: usize, kind: u32, seed: u64) -> Vec<u8> {
        let mut random = Random(seed | 1);
        match kind % 5 {
            0 => (0..n * layout.word_bytes()).map(|_| random.bits() as u8).collect(),
            1 => vec![[0, 0xFF, 0x80, 0x3C][(seed % 4) as usize]; n * layout.word_bytes()],
            2 => words(layout, (0..n).map(|i| random.normal() * [0.02, 1e-4, 3.0][i / 50 % 3])),
            3 => words(
                layout,
                (0..n).map(|_| if random.bits().is_multiple_of(3) { random.normal() } else { 0.0 }),
            ),
            _ => words(layout, (0..n).map(|i| ((i as f64) * 0.2).sin() + random.normal() * 0.1)),
        }
    }

    fn coded(words: &[u8], layout: Layout, shape: &[usize]) -> Vec<u8> {
        let n = words.len() / layout.word_bytes();
        let parts = Part::cut([(Matrix::of(shape), n)], 0..n);
        let coded = encode(words, layout, &parts).unwrap();
        let mut out = vec![0xEE; words.len()];
        decode(&coded, layout, &parts, &mut out).unwrap();
        assert!(out == words);
        coded
    }

    prop_compose! {
        fn tensor()(shape in prop_oneof![
            prop::collection::vec(0usize..40, 0..3),
            prop::collection::vec(1usize..9, 3..5),
            (1usize..4, 1usize..3, 900usize..1200).prop_map(|(a, b, c)| vec![a, b, c]),
            (1usize..3000).prop_map(|n| vec![n]),
            (60_000usize..70_000).prop_map(|n| vec![2, n]),
        ]) -> Vec<usize> { shape }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn chunks_come_back(
            layout in prop::sample::select(&FLOATS[..]), shapes in prop::collection::vec(tensor(), 1..4), kind in 0u32..5, seed: u64,
            cut in any::<(u32, u32)>(), mixed in prop_oneof![0usize..200, 0usize..30_000, Just(usize::MAX)],
        ) {
            let tensors: Vec<_> = shapes.iter().map(|shape| (Matrix::of(shape), shape.iter().product::<usize>())).collect();
            let n: usize = tensors.iter().map(|tensor| tensor.1).sum();
            let (a, b) = (cut.0 as usize % (n + 1), cut.1 as usize % (n + 1));
            let range = a.min(b)..a.max(b);
            let parts = Part::cut(tensors, range.clone());
            let words = any_words(layout, range.len(), kind, seed);
            let coded = encode_with(&words, layout, &parts, mixed.min(range.len())).unwrap();
            let mut out = vec![0xEE; words.len()];
            prop_assert_eq!(decode(&coded, layout, &parts, &mut out), Ok(()));
            prop_assert!(out == words);
            prop_assert!(coded.len() <= words.len() * 3 / 2 + 100);
        }

        #[test]
        fn damaged_chunks_are_survived(
            layout in prop::sample::select(&FLOATS[..]), shape in tensor(), kind in 0u32..5, seed: u64,
            mixed in prop_oneof![0usize..200, Just(usize::MAX)], at: prop::sample::Index, flip in 1u8.., random in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let n = shape.iter().product();
            let parts = Part::cut([(Matrix::of(&shape), n)], 0..n);
            let words = any_words(layout, n, kind, seed);
            let mut coded = encode_with(&words, layout, &parts, mixed.min(n)).unwrap();
            let mut out = vec![0; words.len()];
            let at = at.index(coded.len());
            prop_assert!(decode(&coded[..at], layout, &parts, &mut out).is_err());
            coded.push(1);
            prop_assert!(decode(&coded, layout, &parts, &mut out).is_err());
            coded.pop();
            coded[at] ^= flip;
            let _ = decode(&coded, layout, &parts, &mut out);
            let _ = decode(&random, layout, &parts, &mut out);
        }
    }

    #[test]
    fn parts_are_what_a_chunk_has_of_each_tensor() {
        let (a, b) = (Matrix::of(&[10, 3]), Matrix::of(&[4, 2, 3, 3]));
        assert_eq!((a.columns, a.positions, b.columns, b.positions), (3, 1, 2, 9));
        let part = |matrix, start, words| Part { matrix, start, words };
        assert_eq!(Part::cut([(a, 30), (b, 72)], 0..102), [part(a, 0, 30), part(b, 0, 72)]);
        assert_eq!(Part::cut([(a, 30), (b, 72)], 10..50), [part(a, 10, 20), part(b, 0, 20)]);
        assert_eq!(Part::cut([(a, 30), (b, 72)], 40..41), [part(b, 10, 1)]);
        for (shape, columns, positions) in [
            (&[][..], 1, 1),
            (&[7], 7, 1),
            (&[7, 1], 7, 1),
            (&[7, 1, 9], 1, 9),
            (&[8, 5, 2000], 2000, 1),
            (&[3, 0, 4], 1, 1),
            (&[0], 1, 1),
        ] {
            assert_eq!(Matrix::of(shape), Matrix { columns, positions }, "{shape:?}");
        }
        let mut out = [0; 4];
        assert!(decode(&[0, 0], Layout::Bf16, &[part(a, 0, 3)], &mut out).is_err());
        assert!(decode(&[0, 0], Layout::I16, &[part(a, 0, 2)], &mut out).is_err());
        assert!(encode(&out, Layout::I16, &[part(a, 0, 2)]).is_none());
    }

    #[test]
    fn scales_of_rows_and_columns_cost_little() {
        let mut random = Random(7);
        let values: Vec<f64> = (0..300 * 200).map(|_| random.normal()).collect();
        let row: Vec<f64> = (0..300).map(|_| 2f64.powf(random.normal())).collect();
        let column: Vec<f64> = (0..200).map(|_| 2f64.powf(random.normal())).collect();
        let plain = coded(&words(Layout::Bf16, values.iter().copied()), Layout::Bf16, &[300, 200]).len();
        let scaled = values.iter().enumerate().map(|(i, value)| value * row[i / 200] * column[i % 200]);
        let scaled = coded(&words(Layout::Bf16, scaled), Layout::Bf16, &[300, 200]).len();
        assert!(plain < 300 * 200 * 2 * 67 / 100, "{plain}");
        assert!(scaled < plain + plain / 100, "{plain} {scaled}");
    }

    #[test]
    fn means_are_found_in_kernels_rows_and_columns() {
        let mut random = Random(9);
        let mut size = |mean: &dyn Fn(usize) -> f64, shape: &[usize]| {
            let n = shape.iter().product();
            let values: Vec<f64> = (0..n).map(|i| random.normal() * 0.3 + mean(i)).collect();
            coded(&words(Layout::F16, values), Layout::F16, shape).len() as f64 / n as f64
        };
        let sign = |i: usize| if (i * 0x9E37_79B9) >> 16 & 1 == 0 { 1.0 } else { -1.0 };
        let kernels = size(&|i| sign(i / 9), &[60, 60, 3, 3]);
        let columns = size(&|i| sign(i % 500), &[60, 500]);
        let neither = size(&|i| sign(i), &[60, 500]);
        assert!(
            kernels < neither - 0.08 && columns < neither - 0.08,
            "{kernels} {columns} {neither}"
        );
    }

    #[test]
    fn narrow_values_in_wide_words_cost_what_they_hold() {
        let mut random = Random(11);
        let values: Vec<f32> = (0..400 * 100)
            .map(|_| f32::from_bits((random.normal() as f32).to_bits() & 0xFFFF_0000))
            .collect();
        let narrow = coded(
            &words(Layout::Bf16, values.iter().map(|&value| value as f64)),
            Layout::Bf16,
            &[400, 100],
        )
        .len();
        let wide = coded(
            &words(Layout::F32, values.iter().map(|&value| value as f64)),
            Layout::F32,
            &[400, 100],
        )
        .len();
        assert!(wide.abs_diff(narrow) < 200, "{wide} {narrow}");
        let zeros = coded(&vec![0; 400 * 100 * 4], Layout::F32, &[400, 100]).len();
        assert!(zeros < 200, "{zeros}");
    }

    #[test]
    fn tables_cost_about_what_mixing_does() {
        let mut random = Random(13);
        let words = words(Layout::Bf16, (0..600_000).map(|_| random.normal()));
        let parts = Part::cut([(Matrix::of(&[600, 1000]), 600_000)], 0..600_000);
        let size = |n_mixed| encode_with(&words, Layout::Bf16, &parts, n_mixed).unwrap().len();
        let (mixed, tables) = (size(600_000), size(50_000));
        assert!(mixed.abs_diff(tables) < mixed / 300, "{mixed} {tables}");
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let sums = FLOATS.map(|layout| {
            let words = any_words(layout, 40_000, 2, 5);
            let parts = Part::cut(
                [
                    (Matrix::of(&[50]), 50),
                    (Matrix::of(&[30, 41, 3, 3]), 11_070),
                    (Matrix::of(&[300, 100]), 30_000),
                ],
                20..40_020,
            );
            crc32fast::hash(&encode_with(&words, layout, &parts, 20_000).unwrap())
        });
        assert_eq!(sums, [4_218_872_485, 1_407_010_480, 250_254_598, 1_484_504_106, 481_006_504]);
    }
}
