//! A decoded tensor in Python.
#![allow(unsafe_code)]

use super::buffer::{Shared, capsule};
use crate::{Buffer, Dtype};
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ffi::c_int;
use std::sync::Arc;

/// A decoded tensor in memory of its own (64-byte aligned, writable), C order. Exports DLPack and the buffer protocol (1-D bytes).
#[pyclass(frozen, module = "bigsmall._core")]
pub struct Tensor {
    shared: Arc<Shared>,
    dtype: Dtype,
    shape: Vec<u64>,
}

impl Tensor {
    /// A tensor of the words in `buffer`.
    pub fn new(buffer: Buffer, dtype: Dtype, shape: Vec<u64>) -> Self {
        Self {
            shared: Shared::new(buffer),
            dtype,
            shape,
        }
    }
}

/// DLPack's number for the processor's memory.
const CPU: i32 = 1;

#[pymethods]
impl Tensor {
    /// The safetensors code of the element type.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.dtype.name()
    }

    /// The dimensions, as in safetensors.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// Length in bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.shared.n_bytes()
    }

    fn __len__(&self) -> PyResult<usize> {
        self.shape
            .first()
            .map(|&n| n as usize)
            .ok_or_else(|| PyTypeError::new_err("len() of a 0-d tensor"))
    }

    fn __repr__(&self) -> String {
        format!("Tensor(dtype={:?}, shape={:?})", self.dtype.name(), self.shape)
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        (CPU, 0)
    }

    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // There is nothing to wait for: the words are in memory before the object exists.
        let _ = stream;
        if dl_device.is_some_and(|device| device.0 != CPU) {
            return Err(PyBufferError::new_err("a decoded tensor is in the processor's memory only"));
        }
        if copy == Some(true) {
            return Err(PyBufferError::new_err("no copies are made: copy what from_dlpack returns"));
        }
        capsule(
            py,
            &self.shared,
            self.dtype,
            &self.shape,
            max_version.is_some_and(|version| version.0 >= 1),
        )
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: Python's own call, and the object owns the memory.
        unsafe { slf.get().shared.fill(slf.as_any(), view, flags) }
    }
}
