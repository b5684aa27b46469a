//! What a reader reads: a path, or an object of Python that is read at offsets.

use super::buffer::Bytes;
use super::error::to_py;
use crate::error::{Error, Result};
use crate::{FileSource, ReadAt};
use pyo3::intern;
use pyo3::prelude::*;
use std::io;
use std::path::{Path, PathBuf};

/// Opens a path, or takes an object that has `path`, `n_bytes` and `read_at(offset, n_bytes)`; if it has `read_beside(name)` too, that gives
/// the bytes of another file of its directory, or None.
pub fn open(source: &Bound<'_, PyAny>) -> PyResult<Box<dyn ReadAt>> {
    let py = source.py();
    if source.hasattr(intern!(py, "read_at"))? {
        return Ok(Box::new(Object {
            path: source.getattr(intern!(py, "path"))?.extract()?,
            n_bytes: source.getattr(intern!(py, "n_bytes"))?.extract()?,
            object: source.clone().unbind(),
        }));
    }
    let path: PathBuf = source.extract()?;
    let opened = py.detach(|| FileSource::open(&path));
    Ok(Box::new(opened.map_err(|error| to_py(py, error))?))
}

struct Object {
    object: Py<PyAny>,
    path: PathBuf,
    n_bytes: u64,
}

impl ReadAt for Object {
    fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let read = |py: Python<'_>| -> PyResult<usize> {
            let answer = self.object.bind(py).call_method1(intern!(py, "read_at"), (offset, buffer.len()))?;
            let bytes = Bytes::of(&answer)?;
            let bytes = bytes.as_slice();
            if bytes.len() == buffer.len() {
                buffer.copy_from_slice(bytes);
            }
            Ok(bytes.len())
        };
        let n_read = Python::attach(read).map_err(|raised| Error::io(io::Error::other(raised), &self.path))?;
        if n_read == buffer.len() {
            return Ok(());
        }
        let message = format!("{n_read} bytes were read at {offset} where {} were asked for", buffer.len());
        Err(Error::format(message).at_path(&self.path))
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let read = |py: Python<'_>| -> PyResult<Option<Vec<u8>>> {
            let object = self.object.bind(py);
            if !object.hasattr(intern!(py, "read_beside"))? {
                return Ok(None);
            }
            let answer = object.call_method1(intern!(py, "read_beside"), (name,))?;
            if answer.is_none() {
                return Ok(None);
            }
            Ok(Some(Bytes::of(&answer)?.as_slice().to_vec()))
        };
        Python::attach(read).map_err(|raised| Error::io(io::Error::other(raised), &self.path))
    }
}
