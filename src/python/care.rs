//! Whether files are intact, and sidecars that mend them.

use super::PyProgress;
use super::error::to_py;
use crate::{Depth, Error, Options, Repair, VerifyOptions, Weights};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// Writes the sidecar of a file.
#[pyfunction]
#[pyo3(signature = (path, *, percent=crate::DEFAULT_PERCENT, force=false, threads=0, progress=None))]
pub fn protect(py: Python<'_>, path: PathBuf, percent: f64, force: bool, threads: usize, progress: Option<Py<PyAny>>) -> PyResult<u64> {
    let options = Options {
        force,
        threads,
        ..Options::default()
    };
    PyProgress::new(progress).run(py, |progress| crate::protect(&path, percent, &options, progress))
}

/// The name of a file's sidecar.
#[pyfunction]
pub fn sidecar_path(path: PathBuf) -> OsString {
    crate::sidecar_path(&path).into_os_string()
}

/// Mends a file with its sidecar, or every file of a directory that has one.
#[pyfunction]
#[pyo3(signature = (src, dst, *, force=false, threads=0, progress=None))]
pub fn repair<'py>(
    py: Python<'py>,
    src: PathBuf,
    dst: PathBuf,
    force: bool,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    let options = Options {
        force,
        threads,
        ..Options::default()
    };
    let repairs = PyProgress::new(progress).run(py, |progress| crate::repair(&src, &dst, &options, progress))?;
    let list = PyList::empty(py);
    for Repair {
        path,
        found_bytes,
        file_bytes,
        damaged,
        sidecar_damaged,
        outputs,
    } in &repairs
    {
        let dict = PyDict::new(py);
        dict.set_item("path", path.as_os_str())?;
        dict.set_item("found_bytes", found_bytes)?;
        dict.set_item("file_bytes", file_bytes)?;
        dict.set_item("damaged", damaged.iter().map(|range| [range.start, range.end]).collect::<Vec<_>>())?;
        dict.set_item("sidecar_damaged", sidecar_damaged)?;
        dict.set_item("outputs", outputs.iter().map(|path| path.as_os_str()).collect::<Vec<_>>())?;
        list.append(dict)?;
    }
    Ok(list)
}

/// How sure a sample is of what it says.
const CONFIDENCE: f64 = 0.95;

/// Checks a file or directory.
#[pyfunction]
#[pyo3(signature = (src, *, fast=false, sample=None, seed=0, source=None, base=None, threads=0, progress=None))]
#[allow(clippy::too_many_arguments)]
pub fn verify<'py>(
    py: Python<'py>,
    src: PathBuf,
    fast: bool,
    sample: Option<f64>,
    seed: u64,
    source: Option<PathBuf>,
    base: Option<PathBuf>,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let depth = match (fast, sample) {
        (true, None) => Depth::Fast,
        (false, None) => Depth::Full,
        (false, Some(share)) if share > 0.0 && share <= 1.0 => Depth::Sample { share, seed },
        (true, Some(_)) => return Err(to_py(py, Error::option("fast decodes nothing: a sample is something else"))),
        (false, Some(share)) => {
            return Err(to_py(
                py,
                Error::option(format!("a sample of {share} is no share from above 0 to 1")),
            ));
        }
    };
    let found = PyProgress::new(progress).run(py, |progress| {
        let base = base.map(|base| Weights::open(&base).map(Arc::new)).transpose()?;
        let options = VerifyOptions {
            depth,
            source,
            base,
            threads,
        };
        crate::verify(&src, &options, progress)
    })?;
    let problems = PyList::empty(py);
    for problem in &found.problems {
        let dict = PyDict::new(py);
        dict.set_item("path", problem.path.as_os_str())?;
        dict.set_item("tensor", &problem.tensor)?;
        dict.set_item("block", problem.block)?;
        dict.set_item("bytes", problem.bytes.as_ref().map(|bytes| [bytes.start, bytes.end]))?;
        dict.set_item("message", &problem.message)?;
        problems.append(dict)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("ok", found.problems.is_empty())?;
    dict.set_item("n_tensors", found.n_tensors)?;
    dict.set_item("n_checked", found.n_checked)?;
    dict.set_item("raw_bytes", found.raw_bytes)?;
    if let Some(share) = found.found_share(CONFIDENCE) {
        let sampled = PyDict::new(py);
        sampled.set_item("seed", seed)?;
        sampled.set_item("n_blocks", found.n_blocks)?;
        sampled.set_item("n_sampled", found.n_sampled)?;
        sampled.set_item("confidence", CONFIDENCE)?;
        sampled.set_item("found_share", share)?;
        dict.set_item("sample", sampled)?;
    }
    dict.set_item("problems", problems)?;
    Ok(dict)
}
