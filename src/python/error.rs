//! Kinds of errors as Python exceptions.

use crate::error::{Error, Kind};
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyMemoryError, PyOSError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::io;

pyo3::create_exception!(
    bigsmall,
    BigSmallError,
    PyException,
    "Base of the package's own errors. `path`, `tensor` and `block` say where, as far as known."
);
pyo3::create_exception!(
    bigsmall,
    FormatError,
    BigSmallError,
    "Not a .bs file, or one that contradicts itself."
);
pyo3::create_exception!(
    bigsmall,
    VersionError,
    FormatError,
    "A .bs file that another release is needed for."
);
pyo3::create_exception!(
    bigsmall,
    CorruptError,
    BigSmallError,
    "The data changed after it was written: a checksum or digest does not match."
);
pyo3::create_exception!(
    bigsmall,
    SourceError,
    BigSmallError,
    "The checkpoint to be compressed is not valid safetensors."
);

pyo3::create_exception!(
    bigsmall,
    PatchBaseError,
    BigSmallError,
    "A patch without the base that it was made from, or on another one."
);

/// An exception type with two bases, which `create_exception` cannot make.
fn two_bases<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyType>>,
    name: &str,
    base: &str,
    doc: &str,
) -> PyResult<&'py Bound<'py, PyType>> {
    let make = || -> PyResult<Py<PyType>> {
        let second = py.import("builtins")?.getattr(base)?;
        let namespace = pyo3::types::PyDict::new(py);
        namespace.set_item("__doc__", doc)?;
        namespace.set_item("__module__", "bigsmall")?;
        let made = py
            .get_type::<PyType>()
            .call1((name, (py.get_type::<BigSmallError>(), second), namespace))?;
        Ok(made.cast_into::<PyType>()?.unbind())
    };
    Ok(cell.get_or_try_init(py, make)?.bind(py))
}

/// `OptionError`, which is a `ValueError` too.
pub fn option_error(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CELL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    two_bases(py, &CELL, "OptionError", "ValueError", "The caller asked for something impossible.")
}

/// `MissingTensorError`, which is a `KeyError` too.
pub fn missing_tensor_error(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CELL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    two_bases(py, &CELL, "MissingTensorError", "KeyError", "There is no tensor of that name.")
}

/// The Python exception of an error.
pub fn to_py(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    let made = match &error.kind {
        Kind::Io(io) => return os_error(io, &error),
        Kind::Interrupted => return PyKeyboardInterrupt::new_err(()),
        Kind::Format => Ok(py.get_type::<FormatError>()),
        Kind::Version => Ok(py.get_type::<VersionError>()),
        Kind::Corrupt => Ok(py.get_type::<CorruptError>()),
        Kind::Source => Ok(py.get_type::<SourceError>()),
        Kind::Base => Ok(py.get_type::<PatchBaseError>()),
        Kind::Option => option_error(py).cloned(),
        Kind::MissingTensor => missing_tensor_error(py).cloned(),
    };
    let with_place = || -> PyResult<PyErr> {
        let value = made?.call1((message,))?;
        value.setattr("path", error.path.as_ref().map(|path| path.as_os_str()))?;
        value.setattr("tensor", error.tensor.as_deref())?;
        value.setattr("block", error.block)?;
        Ok(PyErr::from_value(value))
    };
    with_place().unwrap_or_else(|error| error)
}

/// The builtin exception of a system error: `FileNotFoundError`, `FileExistsError`, … by its number.
fn os_error(io: &io::Error, error: &Error) -> PyErr {
    // What a source in Python raised comes out as it is.
    if let Some(raised) = io.get_ref().and_then(|inner| inner.downcast_ref::<PyErr>()) {
        return Python::attach(|py| raised.clone_ref(py));
    }
    if io.kind() == io::ErrorKind::OutOfMemory {
        return PyMemoryError::new_err(error.message.clone());
    }
    // What the standard library or this one reports by kind alone gets the number that the system would have given.
    let number = io.raw_os_error().or(match io.kind() {
        io::ErrorKind::NotFound => Some(2),
        io::ErrorKind::PermissionDenied => Some(13),
        io::ErrorKind::AlreadyExists => Some(17),
        io::ErrorKind::NotADirectory => Some(20),
        io::ErrorKind::IsADirectory => Some(21),
        io::ErrorKind::StorageFull => Some(28),
        io::ErrorKind::ReadOnlyFilesystem => Some(30),
        _ => None,
    });
    let path = error.path.as_ref().map(|path| path.as_os_str().to_owned());
    let text = match (io.raw_os_error(), io.kind(), number) {
        (None, io::ErrorKind::NotFound, _) if error.message != io::ErrorKind::NotFound.to_string() => error.message.clone(),
        // The system's own words, without the number that Rust puts behind them.
        (_, _, Some(number)) => {
            let text = io::Error::from_raw_os_error(number).to_string();
            text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text).to_owned()
        }
        (_, kind, None) => kind.to_string(),
    };
    match (number, path) {
        (Some(number), Some(path)) => PyOSError::new_err((number, text, path)),
        (Some(number), None) => PyOSError::new_err((number, text)),
        _ => PyOSError::new_err(error.to_string()),
    }
}
