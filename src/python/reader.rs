//! An open file in Python.

use super::PyProgress;
use super::buffer::Outputs;
use super::error::to_py;
use super::source;
use super::tensor::Tensor;
use crate::container::header::Storage;
use crate::error::{Error, Result};
use crate::{Buffer, Held, ReadAt, Target, Weights, Words, load_into};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One `.bs` file, open. Reading never needs more than the blobs asked for. Threads may share it.
#[pyclass(frozen, module = "bigsmall._core")]
pub struct Reader {
    reader: crate::Reader<Held<Box<dyn ReadAt>>>,
}

#[pymethods]
impl Reader {
    #[new]
    #[pyo3(signature = (source, *, base=None))]
    fn new(source: &Bound<'_, PyAny>, base: Option<PathBuf>) -> PyResult<Self> {
        let py = source.py();
        let source = source::open(source)?;
        let opened = py.detach(|| match base {
            Some(base) => crate::Reader::open_on(Held::new(source), Arc::new(Weights::open(&base)?)),
            None => crate::Reader::open(Held::new(source)),
        });
        Ok(Self {
            reader: opened.map_err(|error| to_py(py, error))?,
        })
    }

    /// The file.
    #[getter]
    fn path(&self) -> &OsStr {
        self.reader.source().path().unwrap_or(Path::new("")).as_os_str()
    }

    /// Version of the container.
    #[getter]
    fn version(&self) -> u16 {
        self.reader.header().version.number()
    }

    /// What it was compressed for.
    #[getter]
    fn mode(&self) -> &str {
        &self.reader.header().mode
    }

    /// The float format that holds most bytes.
    #[getter]
    fn format(&self) -> &str {
        &self.reader.header().format
    }

    /// The fingerprint of the base that a patch was made from.
    #[getter]
    fn base_fingerprint(&self) -> Option<String> {
        self.reader.header().fingerprint.map(|md5| md5.to_string())
    }

    /// The safetensors metadata.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(metadata) = &self.reader.header().metadata else {
            return Ok(None);
        };
        let dict = PyDict::new(py);
        for (key, value) in metadata {
            dict.set_item(key, value.as_str())?;
        }
        Ok(Some(dict))
    }

    /// Bytes of the file.
    #[getter]
    fn file_bytes(&self) -> u64 {
        self.reader.file_bytes()
    }

    /// Bytes of all tensors.
    #[getter]
    fn raw_bytes(&self) -> u64 {
        self.reader.header().raw_bytes()
    }

    /// Bytes of the checkpoint that it was made of.
    #[getter]
    fn source_bytes(&self) -> u64 {
        self.reader.header().source_bytes()
    }

    /// Bytes read from the file since it was opened.
    #[getter]
    fn bytes_read(&self) -> u64 {
        self.reader.bytes_read()
    }

    /// Names of the tensors, in file order.
    fn keys(&self) -> Vec<&str> {
        self.reader.header().entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// What the header says of each tensor, in file order.
    fn entries<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let header = self.reader.header();
        let list = PyList::empty(py);
        for (tensor, entry) in header.entries.iter().enumerate() {
            let dict = PyDict::new(py);
            dict.set_item("name", &entry.name)?;
            dict.set_item("dtype", entry.dtype.name())?;
            dict.set_item("shape", &entry.shape)?;
            dict.set_item("md5", entry.md5.to_string())?;
            let tied_to = match entry.storage {
                Storage::Tied(master) => Some(&header.entries[master].name),
                _ => None,
            };
            let pack = header.pack_of(tensor);
            dict.set_item("codec", pack.map_or(header.codec_name(tensor), |pack| pack.blob.codec.name()))?;
            dict.set_item("order", entry.order.name())?;
            dict.set_item("is_packed", pack.is_some())?;
            dict.set_item("raw_bytes", entry.raw_bytes)?;
            dict.set_item("compressed_bytes", header.compressed_bytes(tensor))?;
            dict.set_item("tied_to", tied_to)?;
            dict.set_item("base", &entry.base)?;
            list.append(dict)?;
        }
        Ok(list)
    }

    /// One tensor.
    fn tensor(&self, py: Python<'_>, name: &str) -> PyResult<Tensor> {
        let tensor = self.reader.find(name).map_err(|error| to_py(py, error))?;
        let range = 0..self.reader.header().entries[tensor].n_words();
        let buffer = self.load_one(py, Words { tensor, range })?;
        Ok(self.wrap(tensor, buffer))
    }

    /// Rows [start, stop) of the first dimension; decodes only the blocks that cover them.
    fn rows(&self, py: Python<'_>, name: &str, start: u64, stop: u64) -> PyResult<Tensor> {
        let wanted = || -> Result<(Words, Vec<u64>)> {
            let tensor = self.reader.find(name)?;
            let entry = &self.reader.header().entries[tensor];
            let n_rows = *entry
                .shape
                .first()
                .ok_or_else(|| Error::option("a 0-d tensor has no rows").at_tensor(name))?;
            if start > stop || stop > n_rows {
                return Err(Error::option(format!("rows {start} to {stop} are not within 0 to {n_rows}")).at_tensor(name));
            }
            let mut shape = entry.shape.clone();
            shape[0] = stop - start;
            let width = entry.dtype.layout().word_bytes() as u64;
            // A row of elements that are no whole bytes may begin within one.
            let row_bytes = entry.raw_bytes.checked_div(n_rows).unwrap_or(0);
            if row_bytes * n_rows != entry.raw_bytes || row_bytes % width != 0 {
                return Err(Error::option("its rows are no whole numbers of bytes").at_tensor(name));
            }
            let row_words = row_bytes / width;
            let range = start * row_words..stop * row_words;
            Ok((Words { tensor, range }, shape))
        };
        let (words, shape) = wanted().map_err(|error| to_py(py, error))?;
        let dtype = self.reader.header().entries[words.tensor].dtype;
        Ok(Tensor::new(self.load_one(py, words)?, dtype, shape))
    }

    /// Several tensors, in the order asked for, decoded by several threads. A damaged one is returned as its error.
    #[pyo3(signature = (names=None, *, threads=0, progress=None))]
    fn tensors<'py>(
        &self,
        py: Python<'py>,
        names: Option<Vec<String>>,
        threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let tensors = match names {
            None => (0..self.reader.header().entries.len()).collect(),
            Some(names) => self.find(py, &names)?,
        };
        let loaded = PyProgress::new(progress).run(py, |progress| crate::load(&self.reader, &tensors, threads, progress))?;
        let list = PyList::empty(py);
        for (tensor, buffer) in tensors.into_iter().zip(loaded) {
            match buffer {
                Ok(buffer) => list.append(self.wrap(tensor, buffer))?,
                Err(error) if error.is_data() => list.append(to_py(py, error).into_value(py))?,
                Err(error) => return Err(to_py(py, error)),
            }
        }
        Ok(list)
    }

    /// Decodes tensors into memory that is there: of objects with `__dlpack__`, each of as many bytes as its tensor.
    #[pyo3(signature = (names, out, *, threads=0))]
    fn read_into<'py>(
        &self,
        py: Python<'py>,
        names: Vec<String>,
        out: Vec<Bound<'py, PyAny>>,
        threads: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let tensors = self.find(py, &names)?;
        if tensors.len() != out.len() {
            return Err(to_py(py, Error::option("there are not as many outputs as tensors")));
        }
        let mut outputs = Outputs::of(&out)?;
        let targets = outputs
            .slices()
            .zip(&tensors)
            .map(|(out, &tensor)| Target {
                words: Words::all(&self.reader, tensor),
                out,
            })
            .collect();
        let failures = PyProgress::new(None).run(py, |progress| load_into(&self.reader, targets, threads, progress))?;
        let list = PyList::new(py, names.iter().map(|_| py.None()))?;
        for (at, error) in failures {
            if !error.is_data() {
                return Err(to_py(py, error));
            }
            list.set_item(at, to_py(py, error).into_value(py))?;
        }
        Ok(list)
    }

    /// Where in the file tensors are stored, as (first byte, one past the last), in order; ranges that lie close together are one.
    fn stored_ranges(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Vec<(u64, u64)>> {
        let ranges = self.reader.stored_ranges(&self.find(py, &names)?);
        Ok(ranges.into_iter().map(|range| (range.start, range.end)).collect())
    }

    /// Reads what tensors are decoded from and holds it in memory, until it is released. Returns the bytes that this takes more.
    fn hold(&self, py: Python<'_>, names: Vec<String>) -> PyResult<u64> {
        let ranges = self.reader.stored_ranges(&self.find(py, &names)?);
        let hold = || {
            ranges
                .into_iter()
                .map(|range| self.reader.source().hold(range))
                .sum::<Result<u64>>()
        };
        py.detach(hold).map_err(|error| to_py(py, error))
    }

    /// Lets go of what was held for the same tensors.
    fn release(&self, py: Python<'_>, names: Vec<String>) -> PyResult<()> {
        for range in self.reader.stored_ranges(&self.find(py, &names)?) {
            self.reader.source().release(range);
        }
        Ok(())
    }
}

impl Reader {
    fn load_one(&self, py: Python<'_>, words: Words) -> PyResult<Buffer> {
        let mut loaded = PyProgress::new(None).run(py, |progress| crate::load_words(&self.reader, vec![words], 0, progress))?;
        loaded
            .pop()
            .expect("words of one tensor were asked for")
            .map_err(|error| to_py(py, error))
    }

    fn find(&self, py: Python<'_>, names: &[String]) -> PyResult<Vec<usize>> {
        let found = names.iter().map(|name| self.reader.find(name)).collect::<Result<Vec<_>>>();
        found.map_err(|error| to_py(py, error))
    }

    fn wrap(&self, tensor: usize, buffer: Buffer) -> Tensor {
        let entry = &self.reader.header().entries[tensor];
        Tensor::new(buffer, entry.dtype, entry.shape.clone())
    }
}
