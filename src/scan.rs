//! What compressing would do, told from a sample.

use crate::codec::Spare;
use crate::codec::chunk::Encoding;
use crate::codec::context::Matrix;
use crate::codec::planes::{Pools, units};
use crate::codec::select::{self, Choice, Words};
use crate::compress::Model;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::options::Mode;
use crate::pool::Ticker;
use crate::simd::Isa;
use crate::survey::{Handling, survey};
use rayon::prelude::*;

/// Bytes that a tensor's record and the filling before its blob take, roughly.
const RECORD_BYTES: u64 = 72;
/// Bytes that the file itself takes besides.
const FILE_BYTES: u64 = 256;

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
                (kind_of(&choice), bytes, None)
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
            estimated_bytes: bytes + RECORD_BYTES,
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
    let raw_bytes = words.bytes.len() as u64;
    let choice = select::choose(words, tensors, pools, mode, isa);
    let Choice::Chunked(codec) = choice else {
        return (choice, raw_bytes);
    };
    // A pack is told from its beginning, whose tensors are known; a tensor from a sample of its rows.
    let sample = if tensors.len() > 1 {
        words.bytes[..words.bytes.len().min(select::SAMPLE_WORDS * words.layout.word_bytes())].to_vec()
    } else {
        select::sample(words)
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
    let bytes = encoding.encode(0, &sample).map_or(sample.len(), |coded| coded.bytes()) as u64;
    (choice, (bytes as u128 * raw_bytes as u128 / sample.len().max(1) as u128) as u64)
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
