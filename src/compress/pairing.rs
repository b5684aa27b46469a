//! Which tensor of a base each tensor of a model came from, and whether its difference is smaller than itself.

use super::model::words;
use crate::base::BaseTensor;
use crate::codec::chunk::Encoding;
use crate::codec::planes::Pools;
use crate::codec::select::{self, Words};
use crate::codec::{Codec, Spare, delta};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::options::Mode;
use crate::pool::lock;
use crate::safetensors::SourceTensor;
use crate::simd::Isa;
use crate::survey::SMALL_WORDS;
use crate::weights::Weights;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Words that tell whether two tensors are close.
const LOOK_WORDS: u64 = 1 << 11;
/// Tensors of a base that one without a namesake is compared with.
const MAX_CANDIDATES: usize = 256;

/// A tensor of a model, and its bytes.
type Tensor<'a> = (&'a SourceTensor, &'a [u8]);

/// What the tensors of a model have in common with a base.
#[derive(Debug, Default)]
pub struct Pairing<'w> {
    /// For each tensor the one that its words are stored as differences to, if that is smaller.
    pub bases: Vec<Option<BaseTensor<'w>>>,
    /// Tensors that have something like them in the base.
    pub n_matched: usize,
    /// Bytes of these, as far as they were looked at, and how many of them are others than in the base.
    pub looked_bytes: u64,
    pub changed_bytes: u64,
}

/// Pairs the tensors of a model with those of a base: by name, or else by what they hold.
pub fn pair<'w>(tensors: &[Tensor<'_>], base: &'w Weights, mode: Mode, isa: Isa) -> Result<Pairing<'w>> {
    let named: Vec<Option<BaseTensor>> = (tensors.iter())
        .map(|(tensor, _)| BaseTensor::named(base, &tensor.name, tensor.dtype))
        .collect();
    let mut unnamed: HashMap<(Dtype, u64), Vec<BaseTensor>> = HashMap::new();
    let taken: std::collections::HashSet<usize> = named.iter().flatten().map(BaseTensor::tensor).collect();
    for (at, tensor) in base.tensors().iter().enumerate().filter(|(at, _)| !taken.contains(at)) {
        let of_size = unnamed.entry((tensor.dtype, tensor.n_words())).or_default();
        if of_size.len() < MAX_CANDIDATES {
            of_size.push(BaseTensor::new(base, at));
        }
    }
    let middles = Middles::default();
    let found = tensors.par_iter().zip(named).map(|(&(tensor, bytes), named)| {
        let width = tensor.dtype.layout().word_bytes();
        if bytes.len() < width {
            return Ok(None);
        }
        if named.is_some() {
            return Ok(named);
        }
        let candidates = unnamed.get(&(tensor.dtype, (bytes.len() / width) as u64));
        let mut best = None;
        for &candidate in candidates.into_iter().flatten() {
            let bits = distance(tensor, bytes, candidate, &middles)?;
            if best.is_none_or(|(least, _)| bits < least) {
                best = Some((bits, candidate));
            }
        }
        Ok(best
            .filter(|(bits, _)| *bits < delta::most_close_bits(tensor.dtype.layout()))
            .map(|(_, base)| base))
    });
    let matched = found.collect::<Result<Vec<Option<BaseTensor>>>>()?;
    let kept = tensors
        .par_iter()
        .zip(&matched)
        .map(|(&tensor, base)| base.map_or(Ok((false, 0, 0)), |base| pays(tensor, base, mode, isa)));
    let kept = kept.collect::<Result<Vec<(bool, u64, u64)>>>()?;
    Ok(Pairing {
        n_matched: matched.iter().flatten().count(),
        looked_bytes: kept.iter().map(|one| one.1).sum(),
        changed_bytes: kept.iter().map(|one| one.2).sum(),
        bases: matched
            .into_iter()
            .zip(kept)
            .map(|(base, (pays, ..))| base.filter(|_| pays))
            .collect(),
    })
}

/// Words from the middle of tensors of the base, by number.
#[derive(Default)]
struct Middles<'w>(Mutex<HashMap<usize, Arc<Cow<'w, [u8]>>>>);

/// Mean bits of the differences between some words of a tensor and of a base tensor with as many.
fn distance<'w>(tensor: &SourceTensor, bytes: &[u8], base: BaseTensor<'w>, middles: &Middles<'w>) -> Result<u64> {
    let layout = tensor.dtype.layout();
    let n_words = (bytes.len() / layout.word_bytes()) as u64;
    let start = (n_words / 2).min(n_words.saturating_sub(LOOK_WORDS));
    let range = start..n_words.min(start + LOOK_WORDS);
    let known = lock(&middles.0).get(&base.tensor()).cloned();
    let words = match known {
        Some(words) => words,
        None => {
            let words = Arc::new(base.words(range.clone())?);
            lock(&middles.0).insert(base.tensor(), words.clone());
            words
        }
    };
    let own = &bytes[range.start as usize * layout.word_bytes()..range.end as usize * layout.word_bytes()];
    Ok(delta::mean_bits(layout, own, &words))
}

/// Whether the difference to a base tensor takes less than the tensor itself, told from samples; and of these the bytes that were looked at and
/// those that changed.
fn pays((tensor, bytes): Tensor<'_>, base: BaseTensor<'_>, mode: Mode, isa: Isa) -> Result<(bool, u64, u64)> {
    let own = words(tensor.dtype, &tensor.shape, bytes);
    let width = own.layout.word_bytes();
    let stretches = select::stretches(own);
    let sample: Vec<u8> = stretches.iter().flat_map(|range| &bytes[range.clone()]).copied().collect();
    let mut of_base = Vec::with_capacity(sample.len());
    for range in &stretches {
        of_base.extend_from_slice(&base.words((range.start / width) as u64..(range.end / width) as u64)?);
    }
    let n_changed = sample.iter().zip(&of_base).filter(|(a, b)| a != b).count();
    let pays = if sample.len() / width < SMALL_WORDS {
        // What the tables of a small tensor take alone says nothing of what it takes in a pack.
        delta::mean_bits(own.layout, &sample, &of_base) < delta::most_close_bits(own.layout)
    } else {
        differs_in_less(own, &sample, &of_base, mode, isa)
    };
    Ok((pays, sample.len() as u64, n_changed as u64))
}

fn differs_in_less(words: Words<'_>, sample: &[u8], base: &[u8], mode: Mode, isa: Isa) -> bool {
    let encoding = Encoding {
        codec: Codec::Delta,
        layout: words.layout,
        pools: &Pools::default(),
        row_words: words.row_words,
        tensors: &[],
        may_sort: mode.may_sort(),
        isa,
        spare: &Spare::default(),
    };
    let bytes = encoding.encode_on(sample, base).bytes();
    // Most fine-tunes need no closer look.
    let (bytes, raw_bytes) = (bytes as u64, sample.len() as u64);
    bytes * 2 < raw_bytes || bytes < select::least_bytes(words, sample, mode, isa) as u64
}
