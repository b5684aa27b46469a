//! Whether a file still holds what was put into it.

use crate::container::reader::Reader;
use crate::decompress::restore_tensor;
use crate::error::{Error, Kind, Result};
use crate::options::Progress;
use crate::pool;
use crate::source::FileSource;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// The tensor, if it is within one.
    pub tensor: Option<String>,
    /// The block, counted through the tensor's blob.
    pub block: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    /// The problem that an error tells, if the data is at fault; otherwise the error.
    pub(crate) fn of(error: Error, path: &Path) -> Result<Problem> {
        if !error.is_data() {
            return Err(error.at_path(path));
        }
        let Error {
            message,
            path: at,
            tensor,
            block,
            ..
        } = error;
        Ok(Problem {
            path: at.unwrap_or_else(|| path.to_owned()),
            tensor,
            block,
            message,
        })
    }
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Tensors that the files name.
    pub n_tensors: usize,
    /// Tensors that were decoded and digested.
    pub n_checked: usize,
    /// Bytes of all tensors.
    pub raw_bytes: u64,
    /// What is wrong, in file order.
    pub problems: Vec<Problem>,
}

impl Verification {
    /// Adds what another file showed.
    pub(crate) fn add(&mut self, other: Verification) {
        self.n_tensors += other.n_tensors;
        self.n_checked += other.n_checked;
        self.raw_bytes += other.raw_bytes;
        self.problems.extend(other.problems);
    }
}

/// Verifies one file; with `fast` its structure only.
pub(crate) fn verify_file(path: &Path, fast: bool, threads: usize, progress: Progress<'_>) -> Result<Verification> {
    let reader = match FileSource::open(path).and_then(Reader::open) {
        Ok(reader) => reader,
        Err(error) => {
            return Ok(Verification {
                problems: vec![Problem::of(error, path)?],
                ..Verification::default()
            });
        }
    };
    let header = reader.header();
    let mut found = Verification {
        n_tensors: header.entries.len(),
        raw_bytes: header.raw_bytes(),
        ..Verification::default()
    };
    let mut note = |result: Result<()>| match result {
        Ok(()) => Ok(()),
        Err(error) => Problem::of(error, path).map(|problem| found.problems.push(problem)),
    };
    note(reader.check_gaps())?;
    let total = if fast { 0 } else { header.raw_bytes() };
    let results = pool::run(threads, total, progress, |ticker| {
        Ok((0..header.entries.len())
            .into_par_iter()
            .map(|tensor| {
                if fast {
                    reader.check_structure(tensor)
                } else {
                    restore_tensor(&reader, tensor, ticker, |_, _| Ok(()))
                }
            })
            .collect::<Vec<Result<()>>>())
    })?;
    for result in results {
        if let Err(Error {
            kind: Kind::Interrupted, ..
        }) = result
        {
            return Err(Error::interrupted());
        }
        note(result)?;
    }
    found.n_checked = if fast { 0 } else { header.entries.len() };
    Ok(found)
}
