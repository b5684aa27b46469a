//! Key/value caches: what acts on bytes and indices.

use super::buffer::Bytes;
use super::error::to_py;
use super::tensor::Tensor;
use crate::kv::allocate::{Distortion, Method};
use crate::kv::coder::IndexCoder;
use crate::kv::file::{self, Body, CacheReader, Header, Section};
use crate::kv::table::IndexTable;
use crate::kv::{pack, words};
use crate::{Buffer, Dtype, Error, FileSource, Isa, Result};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::path::PathBuf;

fn dtype_of(name: &str) -> Result<Dtype> {
    Dtype::from_name(name).ok_or_else(|| Error::option(format!("no dtype {name:?}")))
}

/// The numbers that a buffer holds, little-endian as in every buffer of the machines this runs on.
fn numbers<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
    let (numbers, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(Error::option(format!("{} bytes are no numbers of {N}", bytes.len())));
    }
    Ok(numbers.iter().map(|&number| from(number)).collect())
}

/// A tensor `[components, rows]` of two-byte numbers.
fn matrix<T: Copy>(numbers: &[T], dtype: Dtype, n_rows: usize, to: impl Fn(T) -> [u8; 2]) -> Result<Tensor> {
    let mut buffer = Buffer::new(2 * numbers.len() as u64)?;
    let places = buffer.as_chunks_mut::<2>().0;
    places.iter_mut().zip(numbers).for_each(|(place, &number)| *place = to(number));
    let n_components = numbers.len().checked_div(n_rows).unwrap_or(0) as u64;
    Ok(Tensor::new(buffer, dtype, vec![n_components, n_rows as u64]))
}

/// Widths of components for a budget of bits.
#[pyfunction]
#[pyo3(signature = (errors, budget, *, max_bits=16, method="greedy", measured=false, costs=None))]
pub fn kv_allocate<'py>(
    py: Python<'py>,
    errors: &Bound<'py, PyAny>,
    budget: usize,
    max_bits: usize,
    method: &str,
    measured: bool,
    costs: Option<Vec<usize>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = Bytes::of(errors)?;
    let allocate = || -> Result<Vec<u8>> {
        let method = match method {
            "greedy" => Method::Greedy,
            "hull" => Method::Hull,
            "dp" => Method::Exact,
            _ => return Err(Error::option(format!("no method {method:?}: there are greedy, hull and dp"))),
        };
        let errors = numbers(bytes.as_slice(), f64::from_le_bytes)?;
        let mut distortion = if measured {
            Distortion::measured(&errors, max_bits)?
        } else {
            Distortion::of_variances(&errors, max_bits)?
        };
        if let Some(costs) = &costs {
            distortion = distortion.with_costs(costs)?;
        }
        distortion.allocate(budget, method)
    };
    let widths = py.detach(allocate).map_err(|error| to_py(py, error))?;
    Ok(PyBytes::new(py, &widths))
}

/// Indices of fixed widths as bits.
#[pyfunction]
pub fn kv_pack<'py>(py: Python<'py>, indices: &Bound<'py, PyAny>, widths: Vec<u8>, n_rows: usize) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = Bytes::of(indices)?;
    let packed = py.detach(|| pack::pack(&numbers(bytes.as_slice(), u16::from_le_bytes)?, &widths, n_rows));
    Ok(PyBytes::new(py, &packed.map_err(|error| to_py(py, error))?))
}

/// The indices of `kv_pack`.
#[pyfunction]
pub fn kv_unpack(py: Python<'_>, packed: &Bound<'_, PyAny>, widths: Vec<u8>, n_rows: usize) -> PyResult<Tensor> {
    let bytes = Bytes::of(packed)?;
    let unpack = || -> Result<Tensor> {
        if pack::packed_bytes(&widths, n_rows)? != bytes.as_slice().len() {
            return Err(Error::corrupt("packed indices have not the length that widths and rows say"));
        }
        let mut indices = vec![0u16; widths.len() * n_rows];
        pack::unpack(bytes.as_slice(), &widths, n_rows, &mut indices)?;
        matrix(&indices, Dtype::U16, n_rows, u16::to_le_bytes)
    };
    py.detach(unpack).map_err(|error| to_py(py, error))
}

/// Frequencies for counts of indices, and the bits that coding the counts would take.
#[pyfunction]
pub fn kv_fit_tables(py: Python<'_>, counts: &Bound<'_, PyAny>, n_components: usize) -> PyResult<(Vec<Vec<u16>>, Vec<f64>)> {
    let bytes = Bytes::of(counts)?;
    let fit = || -> Result<_> {
        let counts = numbers(bytes.as_slice(), u64::from_le_bytes)?;
        let n_counts = counts.len().checked_div(n_components).unwrap_or(0);
        if n_counts * n_components != counts.len() || (n_components > 0 && n_counts.is_multiple_of(2)) {
            return Err(Error::option("counts are [components, odd number]"));
        }
        let of = |counts: &[u64]| {
            let table = IndexTable::fit(counts);
            (table.freqs().to_vec(), table.cost_bits(counts))
        };
        Ok(counts.chunks_exact(n_counts.max(1)).map(of).unzip())
    };
    py.detach(fit).map_err(|error| to_py(py, error))
}

/// Codes the indices of the components of one group.
#[pyclass(frozen, module = "bigsmall._core")]
pub struct KvIndexCoder {
    coder: IndexCoder,
}

#[pymethods]
impl KvIndexCoder {
    #[new]
    fn new(py: Python<'_>, freqs: Vec<Vec<u16>>) -> PyResult<Self> {
        let tables = freqs.into_iter().map(IndexTable::new).collect::<Result<Vec<_>>>();
        Ok(Self {
            coder: IndexCoder::new(&tables.map_err(|error| to_py(py, error))?),
        })
    }

    /// `[components, rows]` indices of 16 bits as bytes.
    fn encode<'py>(&self, py: Python<'py>, indices: &Bound<'py, PyAny>, n_rows: usize) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = Bytes::of(indices)?;
        let coded = py.detach(|| self.coder.encode(&numbers(bytes.as_slice(), i16::from_le_bytes)?, n_rows));
        Ok(PyBytes::new(py, &coded.map_err(|error| to_py(py, error))?))
    }

    /// The indices of `encode`.
    fn decode(&self, py: Python<'_>, coded: &Bound<'_, PyAny>, n_rows: usize) -> PyResult<Tensor> {
        let bytes = Bytes::of(coded)?;
        let decode = || -> Result<Tensor> {
            let n_indices = self.coder.n_components().checked_mul(n_rows).and_then(|n| n.checked_mul(2));
            let n_bytes = n_indices.ok_or_else(|| Error::option("so many rows are no tensor's"))?;
            // The memory is asked for where asking for too much is an error.
            let mut indices = Vec::new();
            indices
                .try_reserve_exact(n_bytes / 2)
                .map_err(|_| Error::out_of_memory(n_bytes as u64))?;
            indices.resize(n_bytes / 2, 0i16);
            self.coder.decode(bytes.as_slice(), n_rows, &mut indices)?;
            matrix(&indices, Dtype::I16, n_rows, i16::to_le_bytes)
        };
        py.detach(decode).map_err(|error| to_py(py, error))
    }
}

/// Exact words of a dtype as bytes.
#[pyfunction]
pub fn kv_encode_words<'py>(py: Python<'py>, data: &Bound<'py, PyAny>, dtype: &str, row_words: usize) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = Bytes::of(data)?;
    let coded = py.detach(|| words::encode(bytes.as_slice(), dtype_of(dtype)?, row_words, Isa::current()?));
    Ok(PyBytes::new(py, &coded.map_err(|error| to_py(py, error))?))
}

/// The words of `kv_encode_words`, as a tensor of that shape.
#[pyfunction]
pub fn kv_decode_words(py: Python<'_>, coded: &Bound<'_, PyAny>, dtype: &str, shape: Vec<u64>) -> PyResult<Tensor> {
    let bytes = Bytes::of(coded)?;
    let decode = || -> Result<Tensor> {
        let dtype = dtype_of(dtype)?;
        let n_bytes = dtype
            .bytes_of(&shape)
            .ok_or_else(|| Error::option("the shape is that of no tensor"))?;
        let n_words = n_bytes / dtype.layout().word_bytes() as u64;
        Ok(Tensor::new(
            words::decode(bytes.as_slice(), dtype, n_words, Isa::current()?)?,
            dtype,
            shape,
        ))
    };
    py.detach(decode).map_err(|error| to_py(py, error))
}

/// (kind of body, is value, layer or group, row, first token, number of tokens)
type SectionRecord = (u8, bool, u16, u32, u32, u32);

const BODIES: [Body; 4] = [Body::Words, Body::Packed, Body::Coded, Body::Int8];

fn section(record: SectionRecord) -> Result<Section> {
    let (body, is_value, at, row, first, n_tokens) = record;
    let body = BODIES.into_iter().find(|known| *known as u8 == body);
    Ok(Section {
        body: body.ok_or_else(|| Error::option("no such kind of body"))?,
        is_value,
        at,
        row,
        first,
        n_tokens,
    })
}

fn header(json: &str) -> Result<Header> {
    serde_json::from_str(json).map_err(|error| Error::option(format!("the header is not what it should be: {error}")))
}

fn sections(records: Vec<SectionRecord>, bodies: &[Bytes]) -> Result<Vec<(Section, &[u8])>> {
    let records = records.into_iter().map(section).collect::<Result<Vec<_>>>()?;
    Ok(records.into_iter().zip(bodies.iter().map(Bytes::as_slice)).collect())
}

/// Writes a saved cache; returns its bytes.
#[pyfunction]
#[pyo3(signature = (path, header_json, records, bodies, *, force=false))]
pub fn kv_write(
    py: Python<'_>,
    path: PathBuf,
    header_json: &str,
    records: Vec<SectionRecord>,
    bodies: Vec<Bound<'_, PyAny>>,
    force: bool,
) -> PyResult<u64> {
    let bodies = bodies.iter().map(Bytes::of).collect::<PyResult<Vec<_>>>()?;
    let write = || file::write(&path, force, &header(header_json)?, &sections(records, &bodies)?);
    py.detach(write).map_err(|error| to_py(py, error))
}

/// The same in memory.
#[pyfunction]
pub fn kv_to_bytes<'py>(
    py: Python<'py>,
    header_json: &str,
    records: Vec<SectionRecord>,
    bodies: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let bodies = bodies.iter().map(Bytes::of).collect::<PyResult<Vec<_>>>()?;
    let made = py.detach(|| file::to_bytes(&header(header_json)?, &sections(records, &bodies)?));
    Ok(PyBytes::new(py, &made.map_err(|error| to_py(py, error))?))
}

/// Bytes of a saved cache with bodies of these sizes.
#[pyfunction]
pub fn kv_file_bytes(py: Python<'_>, header_json: &str, body_bytes: Vec<u64>) -> PyResult<u64> {
    let n_bytes = header(header_json).and_then(|header| file::file_bytes(&header, &body_bytes));
    n_bytes.map_err(|error| to_py(py, error))
}

enum Opened {
    File(CacheReader<FileSource>),
    Memory(CacheReader<Vec<u8>>),
}

/// A saved cache, open.
#[pyclass(frozen, module = "bigsmall._core")]
pub struct KvReader {
    reader: Opened,
}

#[pymethods]
impl KvReader {
    #[new]
    fn new(py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        let reader = if source.cast::<PyBytes>().is_ok() {
            let bytes = Bytes::of(source)?.as_slice().to_vec();
            py.detach(|| CacheReader::open(bytes).map(Opened::Memory))
        } else {
            let path: PathBuf = source.extract()?;
            py.detach(|| FileSource::open(&path).and_then(CacheReader::open).map(Opened::File))
        };
        Ok(Self {
            reader: reader.map_err(|error| to_py(py, error))?,
        })
    }

    /// What the file says of itself.
    #[getter]
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let header = match &self.reader {
            Opened::File(reader) => reader.header(),
            Opened::Memory(reader) => reader.header(),
        };
        let dict = PyDict::new(py);
        dict.set_item("basis", &header.basis)?;
        dict.set_item("plan", &header.plan)?;
        dict.set_item("lossy", header.lossy)?;
        dict.set_item("dtype", &header.dtype)?;
        for (key, number) in [
            ("batch", header.batch),
            ("sink", header.sink),
            ("window", header.window),
            ("chunk", header.chunk),
        ] {
            dict.set_item(key, number)?;
        }
        let layers = PyList::empty(py);
        for layer in &header.layers {
            let one = PyDict::new(py);
            one.set_item("heads", layer.heads)?;
            one.set_item("head_dim", layer.head_dim)?;
            one.set_item("tokens", layer.tokens)?;
            layers.append(one)?;
        }
        dict.set_item("layers", layers)?;
        Ok(dict)
    }

    /// The records of the sections, and the bytes of their bodies.
    fn sections(&self) -> Vec<(SectionRecord, u32)> {
        let record = |(s, n_bytes): (Section, u32)| ((s.body as u8, s.is_value, s.at, s.row, s.first, s.n_tokens), n_bytes);
        match &self.reader {
            Opened::File(reader) => reader.sections().map(record).collect(),
            Opened::Memory(reader) => reader.sections().map(record).collect(),
        }
    }

    /// The body of a section.
    fn body<'py>(&self, py: Python<'py>, section: usize) -> PyResult<Bound<'py, PyBytes>> {
        let body = py.detach(|| match &self.reader {
            Opened::File(reader) => reader.body(section),
            Opened::Memory(reader) => reader.body(section),
        });
        Ok(PyBytes::new(py, &body.map_err(|error| to_py(py, error))?))
    }
}
