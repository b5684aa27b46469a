//! The Python module `bigsmall._core`: conversions only.

mod buffer;
mod care;
mod error;
mod functions;
mod inspect;
mod kv;
mod reader;
mod source;
mod tensor;

use crate::pool::lock;
use pyo3::prelude::*;

/// The compiled core of bigsmall.
#[pymodule(gil_used = false)]
#[pyo3(name = "_core")]
mod core {
    #[pymodule_export]
    use super::care::{protect, repair, sidecar_path, verify};
    #[pymodule_export]
    use super::error::{BigSmallError, CorruptError, FormatError, PatchBaseError, SourceError, VersionError};
    #[pymodule_export]
    use super::functions::{
        closest, codec_speed, compress, compress_bytes, decompress, decompress_bytes, diff, isa, isas, migrate, packed_files,
        published_kv_entry, scan,
    };
    #[pymodule_export]
    use super::inspect::xray;
    #[pymodule_export]
    use super::kv::{
        KvIndexCoder, KvReader, kv_allocate, kv_decode_words, kv_encode_words, kv_file_bytes, kv_fit_tables, kv_pack, kv_to_bytes,
        kv_unpack, kv_write,
    };
    #[pymodule_export]
    use super::reader::Reader;
    #[pymodule_export]
    use super::tensor::Tensor;

    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        use pyo3::types::{PyAnyMethods, PyModuleMethods};
        let py = module.py();
        let base = py.get_type::<BigSmallError>();
        for place in ["path", "tensor", "block"] {
            base.setattr(place, py.None())?;
        }
        module.add("OptionError", super::error::option_error(py)?)?;
        module.add("MissingTensorError", super::error::missing_tensor_error(py)?)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("FORMAT_VERSION", crate::container::VERSION)
    }
}

/// Calls a Python progress function, or none, and lets signals through.
struct PyProgress {
    function: Option<Py<PyAny>>,
    raised: std::sync::Mutex<Option<PyErr>>,
}

impl PyProgress {
    fn new(function: Option<Py<PyAny>>) -> Self {
        Self {
            function,
            raised: std::sync::Mutex::new(None),
        }
    }

    /// Runs `work` without the interpreter lock. What the function or a signal raised is raised afterwards.
    fn run<T: Send>(&self, py: Python<'_>, work: impl FnOnce(crate::Progress<'_>) -> crate::Result<T> + Send) -> PyResult<T> {
        let progress = |done: u64, total: u64| {
            Python::attach(|py| {
                let called = self
                    .function
                    .as_ref()
                    .map_or(Ok(()), |function| function.call1(py, (done, total)).map(drop));
                match called.and_then(|()| py.check_signals()) {
                    Ok(()) => true,
                    Err(error) => {
                        lock(&self.raised).get_or_insert(error);
                        false
                    }
                }
            })
        };
        let result = py.detach(|| work(&progress));
        match lock(&self.raised).take() {
            Some(error) => Err(error),
            None => result.map_err(|e| error::to_py(py, e)),
        }
    }
}
