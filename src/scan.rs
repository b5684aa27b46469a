//! What compressing would do, told from a sample.

use crate::codec::Spare;
use crate::codec::chunk::{Decoder, Encoding};
use crate::codec::context::Matrix;
use crate::codec::planes::{Pools, units};
use crate::codec::select::{self, Choice, Words};
use crate::compress::{Model, likely_header_bytes};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::limits::BLOCK_WORDS;
use crate::options::Mode;
use crate::pool::Ticker;
use crate::simd::Isa;
use crate::survey::{Handling, survey};
use rayon::prelude::*;

/// Bytes that a blob takes besides: its index, and half of what fills it up.
const BLOB_BYTES: u64 = 48;
/// Bytes that the file itself takes besides.
const FILE_BYTES: u64 = 256;
/// Words of a tensor that are coded, and the stretches of whole rows that they are taken in: rows of one kind lie together.
const SAMPLE_WORDS: usize = 1 << 17;
const N_STRETCHES: usize = 64;
/// Words of a pack that are coded: all, unless contexts learn from one tensor for the next.
const PACK_WORDS: usize = 1 << 19;
/// Bytes that a block takes for itself: states of a stream, counts and checksum.
const BLOCK_BYTES: u64 = 144;

/// What is expected of one tensor.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its bytes.
    pub raw_bytes: u64,
    /// The codec, or what the tensor is found to be: `bf16_native`, `f16_native` for F32 that holds narrower values.
    pub kind: &'static str,
    /// Bytes that it is expected to take.
    pub estimated_bytes: u64,
    /// The tensor that it equals.
    pub tied_to: Option<String>,
    /// Share of its rows, in bytes, that hold only values widened from BF16, and from F16 but not BF16.
    pub widened_bytes: [u64; 2],
}

/// Estimates every tensor of a model.
pub(crate) fn scan_model(model: &Model<'_>, mode: Mode, ticker: &Ticker) -> Result<Vec<Estimate>> {
    let isa = Isa::current()?;
    let items = model.items();
    let survey = survey(&items, mode, isa);
    let stored = survey.stored(&items);
    let packs: Vec<(Choice, u64)> = (survey.packs.par_iter())
        .map(|members| {
            let bytes: Vec<u8> = members.iter().flat_map(|&i| stored[i].words.bytes).copied().collect();
            let words = Words {
                bytes: &bytes,
                row_words: 0,
                ..items[members[0]].words
            };
            let tensors: Vec<_> = members
                .iter()
                .map(|&i| (items[i].words.matrix, items[i].words.bytes.len() / words.layout.word_bytes()))
                .collect();
            estimate(words, &tensors, &survey.pools, mode, isa)
        })
        .collect();
    let record_bytes = likely_header_bytes(model, mode)? / items.len().max(1) as u64;
    let one = |i: usize| {
        let (tensor, words) = (model.tensors[i].0, items[i].words);
        let raw_bytes = words.bytes.len() as u64;
        let (kind, bytes, tied_to) = match &survey.handling[i] {
            Handling::Trivial(Choice::Constant(_)) => ("constant", 0, None),
            Handling::Trivial(_) => ("empty", 0, None),
            Handling::Tied(master) => ("tied", 0, Some(model.tensors[*master].0.name.clone())),
            Handling::Packed(pack) => {
                let all: u64 = survey.packs[*pack].iter().map(|&i| items[i].words.bytes.len() as u64).sum();
                (kind_of(&packs[*pack].0), packs[*pack].1 * raw_bytes / all, None)
            }
            Handling::Alone => {
                let words = stored[i].words;
                let n_words = words.bytes.len() / words.layout.word_bytes();
                let (choice, bytes) = estimate(words, &[(words.matrix, n_words)], &survey.pools, mode, isa);
                (kind_of(&choice), bytes + BLOB_BYTES, None)
            }
        };
        let widened_bytes = widened(words);
        let kind = match widened_bytes {
            [bf16, _] if tied_to.is_none() && kind == "planes" && bf16 == raw_bytes => "bf16_native",
            [bf16, f16] if tied_to.is_none() && kind == "planes" && bf16 + f16 == raw_bytes => "f16_native",
            _ => kind,
        };
        ticker.advance(raw_bytes)?;
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        Ok(Estimate {
            name,
            dtype: tensor.dtype,
            shape,
            raw_bytes,
            kind,
            estimated_bytes: bytes + record_bytes,
            tied_to,
            widened_bytes,
        })
    };
    let mut estimates = (0..items.len()).into_par_iter().map(one).collect::<Result<Vec<Estimate>>>()?;
    if let Some(first) = estimates.first_mut() {
        first.estimated_bytes += FILE_BYTES + survey.pools.to_bytes().len() as u64;
    }
    Ok(estimates)
}

fn kind_of(choice: &Choice) -> &'static str {
    match choice {
        Choice::Chunked(codec) => codec.name(),
        _ => "stored",
    }
}

fn estimate(words: Words<'_>, tensors: &[(Matrix, usize)], pools: &Pools, mode: Mode, isa: Isa) -> (Choice, u64) {
    // A pack is told from its beginning, whose tensors are known.
    let sample = if tensors.len() > 1 {
        words.bytes[..words.bytes.len().min(PACK_WORDS * words.layout.word_bytes())].to_vec()
    } else {
        sample(words)
    };
    let sampled = Words { bytes: &sample, ..words };
    let (raw_bytes, sample_bytes) = (words.bytes.len() as u64, sample.len().max(1) as u64);
    let choice = select::choose(sampled, tensors, pools, mode, isa);
    let Choice::Chunked(codec) = choice else {
        return (choice, raw_bytes);
    };
    let (layout, row_words, spare, may_sort) = (words.layout, words.row_words, Spare::default(), mode.may_sort());
    let encoding = Encoding {
        codec,
        layout,
        pools,
        row_words,
        tensors,
        may_sort,
        isa,
        spare: &spare,
    };
    let Some(coded) = encoding.encode(0, &sample) else {
        return (choice, raw_bytes);
    };
    let scaled = |bytes: u64, to: u64, of: u64| (bytes as u128 * to as u128 / of as u128) as u64;
    let n_words = sample.len() / layout.word_bytes();
    let decoder = Decoder::new(isa, codec, layout, pools, tensors, &coded.head, 0..n_words, coded.body.len());
    let n_blocks = decoder.map_or(0, |decoder| decoder.n_blocks()) as u64;
    if raw_bytes == sample_bytes || n_blocks <= 1 {
        return (choice, scaled(coded.bytes() as u64, raw_bytes, sample_bytes));
    }
    // Heads and blocks do not become more as words do: a class has one block at least, in the sample as in all.
    let content = (coded.body.len() as u64).saturating_sub(n_blocks * BLOCK_BYTES);
    let n_more = (raw_bytes - sample_bytes) / (BLOCK_WORDS * layout.word_bytes()) as u64;
    let bytes = coded.head.len() as u64 + scaled(content, raw_bytes, sample_bytes) + (n_blocks + n_more) * BLOCK_BYTES;
    (choice, bytes)
}

/// All words of a small tensor, or stretches of whole rows of a large one.
fn sample(words: Words<'_>) -> Vec<u8> {
    let width = words.layout.word_bytes();
    let n_words = words.bytes.len() / width;
    if n_words <= SAMPLE_WORDS {
        return words.bytes.to_vec();
    }
    let unit = units::unit_words(words.row_words).min(SAMPLE_WORDS);
    let n_stretches = N_STRETCHES.min(SAMPLE_WORDS / unit);
    let stretch = SAMPLE_WORDS / n_stretches / unit * unit;
    let mut sample = Vec::with_capacity(n_stretches * stretch * width);
    for k in 0..n_stretches {
        let start = (n_words - stretch) as u128 * k as u128 / (n_stretches - 1).max(1) as u128;
        let start = start as usize / unit * unit;
        sample.extend_from_slice(&words.bytes[start * width..][..stretch * width]);
    }
    sample
}

/// Bytes of units whose words are all widened from BF16, and from F16 but not BF16.
fn widened(words: Words<'_>) -> [u64; 2] {
    let mut bytes = [0; 2];
    if words.layout != crate::float::Layout::F32 {
        return bytes;
    }
    let unit_bytes = units::unit_words(words.row_words) * words.layout.word_bytes();
    for (unit, precision) in words
        .bytes
        .chunks(unit_bytes)
        .zip(units::precisions(words.layout, words.bytes, unit_bytes / 4))
    {
        // Zeros alone tell nothing of where they come from.
        if precision > 0 && unit.iter().any(|&byte| byte != 0) {
            bytes[2 - precision as usize] += unit.len() as u64;
        }
    }
    bytes
}
