//! Which of several models one was made from.

use crate::codec::delta;
use crate::directory;
use crate::error::{Error, Result};
use crate::weights::Weights;
use rayon::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// Tensors that are compared.
const N_TENSORS: usize = 48;
/// Words of each.
const N_WORDS: u64 = 1 << 11;

/// The model in `directories` whose tensors are closest to those of `source`, told from some words of some tensors; None if none is close.
/// Files that are no models are passed over, and so are patches.
///
/// # Errors
/// `Io` for a directory that cannot be listed; as for reading `source`.
pub fn closest(source: &Path, directories: &[PathBuf]) -> Result<Option<PathBuf>> {
    let of = Weights::open(source)?;
    let mut found = Vec::new();
    for directory in directories {
        found.extend(candidates(directory)?);
    }
    found.sort();
    let own = source.canonicalize().ok();
    found.retain(|path| path.canonicalize().ok() != own);
    let distances = found.par_iter().map(|path| {
        let weights = Weights::open(path).ok()?;
        let is_patch = weights
            .files()
            .iter()
            .any(|file| file.reader().is_some_and(|reader| reader.header().needs_base()));
        if is_patch { None } else { distance(&of, &weights).transpose() }
    });
    let distances: Vec<Option<Result<u64>>> = distances.collect();
    let mut best: Option<(u64, PathBuf)> = None;
    for (path, distance) in found.into_iter().zip(distances) {
        let Some(distance) = distance.transpose()? else { continue };
        if best.as_ref().is_none_or(|(least, _)| distance < *least) {
            best = Some((distance, path));
        }
    }
    Ok(best.map(|(_, path)| path))
}

/// The models of a directory: itself if it is one of several files, its files, and the directories in it that are models.
fn candidates(directory: &Path) -> Result<Vec<PathBuf>> {
    let at = |error| Error::io(error, directory);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path.is_dir() {
            found.extend(directory::is_model(&path).then_some(path));
        } else if directory::is_weights(&path) {
            found.push(path);
        }
    }
    if directory::is_sharded(directory) {
        found.retain(|path| path.is_dir());
        found.push(directory.to_owned());
    }
    Ok(found)
}

/// How far two models are from each other, from 0 to 1000; None if they are not close.
fn distance(of: &Weights, other: &Weights) -> Result<Option<u64>> {
    let mut largest: Vec<usize> = (0..of.tensors().len()).collect();
    largest.sort_by_key(|&at| (std::cmp::Reverse(of.tensors()[at].raw_bytes), at));
    let stride = largest.len().div_ceil(N_TENSORS).max(1);
    let (mut sum, mut n, mut n_close) = (0, 0, 0);
    for at in largest.into_iter().step_by(stride) {
        let tensor = &of.tensors()[at];
        n += 1;
        let same = other.find(&tensor.name).filter(|&one| {
            let one = &other.tensors()[one];
            (one.dtype, one.raw_bytes) == (tensor.dtype, tensor.raw_bytes)
        });
        let Some(same) = same else {
            sum += 1000;
            continue;
        };
        let start = tensor.n_words().saturating_sub(N_WORDS) / 2;
        let range = start..tensor.n_words().min(start + N_WORDS);
        let bits = delta::mean_bits(tensor.dtype.layout(), &of.words(at, range.clone())?, &other.words(same, range)?);
        let least_foreign = delta::most_close_bits(tensor.dtype.layout());
        n_close += (bits < least_foreign) as u64;
        sum += (bits * 1000 / least_foreign).min(1000);
    }
    Ok((n_close > 0).then(|| sum / n))
}
