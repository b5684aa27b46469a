//! The codec of `storage` mode: every word coded with odds made for it, from the scale of its row and column and the words near it.
//!
//! Nothing is sent ahead. Reader and writer learn the same from the words already coded: [`scale`] what magnitude the next word may have,
//! [`mean`] what sign, [`mixer`] how often either is wrong. All of it is integer arithmetic, so that it comes out the same everywhere.

mod mean;
mod mixer;
mod model;
mod range;
mod scale;
mod slot;
mod table;
mod word;
mod words;

use crate::float::Layout;
use crate::rans::bits::{put_varint, take, take_varint};
use model::Model;
use range::{Decoder, Encoder};
use std::ops::Range;
use words::{Source, Target};

/// Columns, positions and places have so many slots at most; those beyond share them.
const SLOTS: usize = 1 << 16;
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
    /// From the words along each dimension of the tensor; words, not elements, along the last.
    pub fn of(shape: &[usize]) -> Self {
        let positions = shape.iter().skip(2).product();
        let (columns, positions) = match shape {
            [_, columns, ..] if *columns * positions > 1 => {
                if positions > MOST_POSITIONS {
                    (positions, 1)
                } else {
                    (*columns, positions)
                }
            }
            _ => (shape.iter().product(), 1),
        };
        Self { columns: columns.max(1), positions: positions.max(1) }
    }

    fn row_words(&self) -> usize {
        self.columns * self.positions
    }

    fn column_slots(&self) -> usize {
        self.columns.min(SLOTS)
    }

    fn position_slots(&self) -> usize {
        self.positions
    }

    fn place_slots(&self) -> usize {
        self.row_words().min(SLOTS)
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
                parts.push(Part { matrix, start: from - before, words: to - from });
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
    let n_mixed = if n_words <= MOST_MIXED { n_words } else { N_MIXED };
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
    let coded = usize::try_from(n_coded).ok().and_then(|n| take(&mut raw, n)).ok_or("the chunk is cut short")?;
    let mut model = Model::<E, M>::new(usize::try_from(n_mixed).unwrap_or(usize::MAX), out.len() / W);
    let mut decoder = Decoder::new(coded, raw);
    let mut first = 0;
    for part in parts {
        model.part(&mut decoder, part, first, &mut Target::<W>(out));
        first += part.words;
    }
    if decoder.is_spent() { Ok(()) } else { Err("the chunk is not what its words take") }
}
