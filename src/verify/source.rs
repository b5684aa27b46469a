//! Files beside the checkpoint that they were made of.

use super::{Problem, VerifyOptions};
use crate::error::Result;
use crate::options::Progress;
use crate::pool;
use crate::weights::Weights;
use rayon::prelude::*;
use std::path::Path;

/// How the tensors of `path` differ from those of `source`, by the digests of both. Those of `path` are taken from its header.
pub fn differences(path: &Path, source: &Path, options: &VerifyOptions, progress: Progress<'_>) -> Result<Vec<Problem>> {
    let ours = match &options.base {
        Some(base) => Weights::open_on(path, base.clone())?,
        None => Weights::open(path)?,
    };
    let theirs = Weights::open(source)?;
    let problem = |tensor: &str, message: &str| Problem {
        path: path.to_owned(),
        tensor: Some(tensor.to_owned()),
        block: None,
        bytes: None,
        message: message.to_owned(),
    };
    let mut problems = pool::run(options.threads, theirs.raw_bytes(), progress, |ticker| {
        let compare = |at: usize| {
            let tensor = &theirs.tensors()[at];
            let Some(i) = ours.find(&tensor.name) else {
                return Ok(Some(problem(&tensor.name, "is in the source and missing here")));
            };
            let found = &ours.tensors()[i];
            if (found.dtype, &found.shape) != (tensor.dtype, &tensor.shape) {
                return Ok(Some(problem(&tensor.name, "has another dtype or shape in the source")));
            }
            let is_same = ours.md5(i)? == theirs.md5(at)?;
            ticker.advance(tensor.raw_bytes)?;
            Ok((!is_same).then(|| problem(&tensor.name, "has other bytes in the source")))
        };
        (0..theirs.tensors().len())
            .into_par_iter()
            .map(compare)
            .collect::<Result<Vec<Option<Problem>>>>()
    })?
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    let extra = ours.tensors().iter().filter(|tensor| theirs.find(&tensor.name).is_none());
    problems.extend(extra.map(|tensor| problem(&tensor.name, "is not in the source")));
    Ok(problems)
}
