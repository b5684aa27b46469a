//! Which codec suits a tensor: cheap looks first, then the candidates that are left are tried on a sample.

use super::chunk::Encoding;
use super::context::Matrix;
use super::planes::Pools;
use super::{Codec, Spare, palette, zstd};
use crate::float::Layout;
use crate::options::Mode;
use crate::simd::Isa;
use std::collections::HashSet;
use std::ops::Range;

/// Words of a sample, taken as a few stretches of whole rows.
const SAMPLE_WORDS: usize = 1 << 18;
const N_STRETCHES: usize = 4;
/// Words that a look at their likeness takes.
const LOOK_WORDS: usize = 1 << 13;
/// Distinct one-byte floats up to which a palette, which also codes their signs, can be worth trying.
const MAX_F8_WORDS: usize = 64;

/// A tensor's words and what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// The words.
    pub bytes: &'a [u8],
    /// Their layout.
    pub layout: Layout,
    /// Words of a row, 0 where there are no rows.
    pub row_words: usize,
    /// How the words lie.
    pub matrix: Matrix,
    /// Whether the dtype is an integer or boolean one.
    pub is_integer: bool,
}

/// How a tensor is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It has no words.
    Empty,
    /// All its words are this one.
    Constant(Vec<u8>),
    /// As it is.
    Stored,
    /// By a chunked codec.
    Chunked(Codec),
}

/// Whether there are no words, or only one value of them.
pub fn trivial(words: Words<'_>) -> Option<Choice> {
    let Some(first) = words.bytes.get(..words.layout.word_bytes()) else {
        return Some(Choice::Empty);
    };
    let is_constant =
        words.bytes.len().is_multiple_of(first.len()) && words.bytes[first.len()..] == words.bytes[..words.bytes.len() - first.len()];
    is_constant.then(|| Choice::Constant(first.to_vec()))
}

/// The codec for the words of these tensors, none of which is trivial.
pub fn choose(words: Words<'_>, tensors: &[(Matrix, usize)], pools: &Pools, mode: Mode, isa: Isa) -> Choice {
    let is_float = words.layout.has_sign();
    if mode == Mode::Storage && is_float && tensors.len() > 1 {
        // The survey has packed only what contexts suit.
        return Choice::Chunked(Codec::Context);
    }
    let sample = sample(words);
    let mut sizes = sizes(words, &sample, candidates(words, &sample, mode), pools, mode, isa);
    if mode == Mode::Storage && is_float && !is_special(&sizes) {
        sizes.insert(
            0,
            (
                size(words, &sample, Codec::Context, pools, mode, isa).unwrap_or(usize::MAX),
                Codec::Context,
            ),
        );
    }
    match sizes.into_iter().min_by_key(|(bytes, _)| *bytes) {
        Some((bytes, codec)) if bytes < sample.len() => Choice::Chunked(codec),
        _ => Choice::Stored,
    }
}

/// Whether words are of a kind that neither planes nor contexts see: repetitions, few values, rows like others.
pub fn is_unusual(words: Words<'_>, mode: Mode, isa: Isa) -> bool {
    let sample = sample(words);
    let candidates = candidates(words, &sample, mode);
    candidates.len() > 1 && is_special(&sizes(words, &sample, candidates, &Pools::default(), mode, isa))
}

/// Whether a codec other than planes is clearly smaller than they are.
fn is_special(sizes: &[(usize, Codec)]) -> bool {
    let planes = sizes
        .iter()
        .find(|(_, codec)| *codec == Codec::Planes)
        .map_or(usize::MAX, |(bytes, _)| *bytes);
    sizes
        .iter()
        .any(|(bytes, codec)| *codec != Codec::Sparse && bytes.saturating_mul(20) < planes.saturating_mul(19))
}

fn sizes(words: Words<'_>, sample: &[u8], candidates: Vec<Codec>, pools: &Pools, mode: Mode, isa: Isa) -> Vec<(usize, Codec)> {
    let mut sizes: Vec<(usize, Codec)> = Vec::new();
    for codec in candidates {
        // Trying zstd takes longer than all else.
        let least = sizes.iter().map(|(bytes, _)| *bytes).min().unwrap_or(usize::MAX);
        if codec == Codec::Zstd && !zstd::may_take_less(sample, least) {
            continue;
        }
        sizes.extend(size(words, sample, codec, pools, mode, isa).map(|bytes| (bytes, codec)));
    }
    sizes
}

fn size(words: Words<'_>, sample: &[u8], codec: Codec, pools: &Pools, mode: Mode, isa: Isa) -> Option<usize> {
    let tensors = [(words.matrix, sample.len() / words.layout.word_bytes())];
    let (layout, row_words, spare) = (words.layout, words.row_words, Spare::default());
    let encoding = Encoding {
        codec,
        layout,
        pools,
        row_words,
        tensors: &tensors,
        may_sort: mode.may_sort(),
        isa,
        spare: &spare,
    };
    encoding.encode(0, sample).map(|coded| coded.bytes())
}

fn candidates(words: Words<'_>, sample: &[u8], mode: Mode) -> Vec<Codec> {
    let width = words.layout.word_bytes();
    let n = sample.len() / width;
    // Earlier ones win ties.
    let mut candidates = vec![Codec::Planes];
    let max_words = match words.layout {
        Layout::Byte => 0,
        Layout::F8 => MAX_F8_WORDS,
        _ => palette::MAX_WORDS,
    };
    if palette::distinct(sample, width, max_words).is_some() && palette::distinct(words.bytes, width, max_words).is_some() {
        candidates.push(Codec::Palette);
    }
    if mode == Mode::Inference {
        return candidates;
    }
    let n_zeros = sample.chunks_exact(width).filter(|word| word.iter().all(|&byte| byte == 0)).count();
    if width > 1 && n_zeros * 64 > n {
        candidates.push(Codec::Sparse);
    }
    if words.row_words >= 4 && n >= 8 * words.row_words && rows_resemble(words.layout, words.row_words, sample) {
        candidates.push(Codec::RowDelta);
    }
    if words.is_integer || n < 1 << 12 || repeats(sample, width) {
        candidates.push(Codec::Zstd);
    }
    candidates
}

/// Whether many words of four bytes and more occur again, as they do in bases of transforms; in trained weights hardly any does.
fn repeats(sample: &[u8], width: usize) -> bool {
    if width < 4 {
        return false;
    }
    let look = &sample[..sample.len().min(width * LOOK_WORDS)];
    let words: HashSet<&[u8]> = look.chunks_exact(width).collect();
    words.len() * 4 < look.len() / width * 3
}

/// Whether words are closer to those one row above than to their neighbours a row's half away: a cheap sign that differences pay.
fn rows_resemble(layout: Layout, row_words: usize, sample: &[u8]) -> bool {
    let width = layout.word_bytes();
    let sample = &sample[..sample.len().min(width * LOOK_WORDS.max(8 * row_words))];
    let bits = |row_words| {
        let d = super::row_delta::differences(layout, row_words, sample);
        // The top two bytes tell the size of a difference well enough.
        d.chunks_exact(width).map(|word| 16 - top(word).leading_zeros() as u64).sum::<u64>()
    };
    bits(row_words) * 8 < bits(row_words + row_words / 2) * 7
}

fn top(word: &[u8]) -> u16 {
    match *word {
        [.., a, b] => u16::from_le_bytes([a, b]),
        [a] => (a as u16) << 8,
        [] => 0,
    }
}

/// All words of a small tensor, or some stretches of whole rows of a large one.
fn sample(words: Words<'_>) -> Vec<u8> {
    stretches(words)
        .into_iter()
        .flat_map(|range| &words.bytes[range])
        .copied()
        .collect()
}

/// Which of the bytes a sample takes.
pub(crate) fn stretches(words: Words<'_>) -> Vec<Range<usize>> {
    let width = words.layout.word_bytes();
    let n = words.bytes.len() / width;
    if n <= SAMPLE_WORDS {
        return std::iter::once(0..words.bytes.len()).collect();
    }
    let row = words.row_words.clamp(1, SAMPLE_WORDS / N_STRETCHES);
    let stretch = SAMPLE_WORDS / N_STRETCHES / row * row;
    (0..N_STRETCHES)
        .map(|k| {
            let start = (n - stretch) / (N_STRETCHES - 1) * k / row * row;
            start * width..(start + stretch) * width
        })
        .collect()
}

/// What a sample of some words takes without tables that other tensors share.
pub(crate) fn least_bytes(words: Words<'_>, sample: &[u8], mode: Mode, isa: Isa) -> usize {
    let pools = Pools::default();
    let mut sizes = sizes(words, sample, candidates(words, sample, mode), &pools, mode, isa);
    if mode == Mode::Storage && words.layout.has_sign() {
        sizes.extend(size(words, sample, Codec::Context, &pools, mode, isa).map(|bytes| (bytes, Codec::Context)));
    }
    sizes.into_iter().map(|(bytes, _)| bytes).fold(sample.len(), usize::min)
}
