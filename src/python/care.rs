//! Sidecars: made, and used.

use super::PyProgress;
use crate::{Options, Repair};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::ffi::OsString;
use std::path::PathBuf;

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
