//! The base of a patch: which of its tensors are used, and whether it is the one that the patch was made from.

use crate::digest::Md5;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::weights::Weights;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// The tensor of a base that words are differences to.
#[derive(Clone, Copy)]
pub struct BaseTensor<'w> {
    weights: &'w Weights,
    tensor: usize,
}

impl std::fmt::Debug for BaseTensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BaseTensor").field(&self.name()).finish()
    }
}

impl<'w> BaseTensor<'w> {
    /// One of the tensors of a base.
    pub fn new(weights: &'w Weights, tensor: usize) -> Self {
        Self { weights, tensor }
    }

    /// The tensor of that name, if it has this dtype.
    pub fn named(weights: &'w Weights, name: &str, dtype: Dtype) -> Option<Self> {
        let tensor = weights.find(name)?;
        (weights.tensors()[tensor].dtype == dtype).then_some(Self { weights, tensor })
    }

    /// Its name.
    pub fn name(&self) -> &'w str {
        &self.weights.tensors()[self.tensor].name
    }

    /// Its number in the base.
    pub fn tensor(&self) -> usize {
        self.tensor
    }

    /// Its own number of words.
    pub fn n_words(&self) -> u64 {
        self.weights.tensors()[self.tensor].n_words()
    }

    /// The base words in `range`: its own, and zeros behind them.
    ///
    /// # Errors
    /// Those of [`Weights::words`].
    pub fn words(&self, range: Range<u64>) -> Result<Cow<'w, [u8]>> {
        let n_words = self.n_words();
        let own = range.start.min(n_words)..range.end.min(n_words);
        let mut words = self.weights.words(self.tensor, own.clone())?;
        if own.end < range.end {
            let width = self.weights.tensors()[self.tensor].dtype.layout().word_bytes();
            words.to_mut().resize((range.end - range.start) as usize * width, 0);
        }
        Ok(words)
    }
}

/// The digest of some tensors of a model: their names, dtypes, shapes and contents. Nothing else of the model counts.
///
/// # Errors
/// As for reading tensors whose digests their files do not tell.
pub fn fingerprint(weights: &Weights, tensors: impl IntoIterator<Item = usize>) -> Result<Md5> {
    let by_name: BTreeMap<&str, usize> = (tensors.into_iter())
        .map(|tensor| (&*weights.tensors()[tensor].name, tensor))
        .collect();
    let all: Vec<usize> = by_name.into_values().collect();
    let digests = all.par_iter().map(|&tensor| weights.md5(tensor)).collect::<Result<Vec<Md5>>>()?;
    let mut lines = String::new();
    for (&tensor, md5) in all.iter().zip(digests) {
        let tensor = &weights.tensors()[tensor];
        let line = serde_json::to_string(&(&tensor.name, tensor.dtype.name(), &tensor.shape, md5.to_string()));
        lines += &line.expect("strings and numbers always serialise");
        lines.push('\n');
    }
    Ok(Md5::of(lines.as_bytes()))
}
