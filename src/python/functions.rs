//! Functions on whole files.

use super::PyProgress;
use super::buffer::Bytes;
use super::error::to_py;
use super::tensor::Tensor;
use crate::codec::legacy::kv;
use crate::compress::compress_bytes_with;
use crate::decompress::decompress_bytes_with;
use crate::{Change, Dtype, Error, Isa, Options, Original, Result, Summary, Weights};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

fn options(py: Python<'_>, mode: &str, format: &str, force: bool, threads: usize) -> PyResult<Options> {
    Ok(Options {
        mode: mode.parse().map_err(|error| to_py(py, error))?,
        format: format.parse().map_err(|error| to_py(py, error))?,
        force,
        threads,
    })
}

fn summary_dict<'py>(py: Python<'py>, summary: &Summary) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("source_bytes", summary.source_bytes)?;
    dict.set_item("compressed_bytes", summary.compressed_bytes)?;
    dict.set_item("n_tensors", summary.n_tensors)?;
    dict.set_item("n_files", summary.outputs.len())?;
    dict.set_item("outputs", summary.outputs.iter().map(|path| path.as_os_str()).collect::<Vec<_>>())?;
    Ok(dict)
}

fn open_base(base: Option<PathBuf>) -> Result<Option<Arc<Weights>>> {
    base.map(|path| Ok(Arc::new(Weights::open(&path)?))).transpose()
}

/// Compresses a file or directory, with a base to a patch.
#[pyfunction]
#[pyo3(signature = (src, dst, *, base=None, mode="balanced", format="current", force=false, threads=0, progress=None))]
#[allow(clippy::too_many_arguments)]
pub fn compress<'py>(
    py: Python<'py>,
    src: PathBuf,
    dst: PathBuf,
    base: Option<PathBuf>,
    mode: &str,
    format: &str,
    force: bool,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = options(py, mode, format, force, threads)?;
    let is_patch = base.is_some();
    let summary = PyProgress::new(progress).run(py, |progress| match open_base(base)? {
        Some(base) => crate::compress_on(&src, &base, &dst, &options, progress),
        None => crate::compress(&src, &dst, &options, progress),
    })?;
    let dict = summary_dict(py, &summary)?;
    if is_patch {
        let matched = PyDict::new(py);
        matched.set_item("n_tensors", summary.matched.n_tensors)?;
        matched.set_item("n_differences", summary.matched.n_differences)?;
        matched.set_item("looked_bytes", summary.matched.looked_bytes)?;
        matched.set_item("changed_bytes", summary.matched.changed_bytes)?;
        dict.set_item("matched", matched)?;
    }
    Ok(dict)
}

/// Decompresses a file or directory; every tensor's md5 is checked.
#[pyfunction]
#[pyo3(signature = (src, dst, *, base=None, force=false, threads=0, progress=None))]
pub fn decompress<'py>(
    py: Python<'py>,
    src: PathBuf,
    dst: PathBuf,
    base: Option<PathBuf>,
    force: bool,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = Options {
        force,
        threads,
        ..Options::default()
    };
    let summary = PyProgress::new(progress).run(py, |progress| match open_base(base)? {
        Some(base) => crate::decompress_on(&src, &base, &dst, &options, progress),
        None => crate::decompress(&src, &dst, &options, progress),
    })?;
    summary_dict(py, &summary)
}

/// Rewrites files of the published package in today's format.
#[pyfunction]
#[pyo3(signature = (src, *, mode="balanced", dry_run=false, backup=true, force=false, threads=0, progress=None))]
#[allow(clippy::too_many_arguments)]
pub fn migrate<'py>(
    py: Python<'py>,
    src: PathBuf,
    mode: &str,
    dry_run: bool,
    backup: bool,
    force: bool,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = options(py, mode, "current", force, threads)?;
    let original = match (dry_run, backup) {
        (true, _) => Original::Untouched,
        (false, true) => Original::Kept,
        (false, false) => Original::Replaced,
    };
    let done = PyProgress::new(progress).run(py, |progress| crate::migrate(&src, &options, original, progress))?;
    let recoded = PyList::empty(py);
    for ((before, after), n_tensors) in &done.recoded {
        let dict = PyDict::new(py);
        dict.set_item("before", before)?;
        dict.set_item("after", after)?;
        dict.set_item("n_tensors", n_tensors)?;
        recoded.append(dict)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("was_current", done.was_current)?;
    dict.set_item("n_tensors", done.n_tensors)?;
    dict.set_item("bytes_before", done.bytes_before)?;
    dict.set_item("bytes_after", done.bytes_after)?;
    dict.set_item("backup", done.backup.as_ref().map(|path| path.as_os_str()))?;
    dict.set_item("recoded", recoded)?;
    Ok(dict)
}

/// Compares two models, each on a base if it is a patch.
#[pyfunction]
#[pyo3(signature = (a, b, *, threads=0, progress=None))]
pub fn diff<'py>(py: Python<'py>, a: PathBuf, b: PathBuf, threads: usize, progress: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyDict>> {
    let found = PyProgress::new(progress).run(py, |progress| {
        crate::diff(&Weights::open(&a)?, &Weights::open(&b)?, threads, progress)
    })?;
    let described = |tensor: &crate::Tensor| -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("name", &tensor.name)?;
        dict.set_item("dtype", tensor.dtype.name())?;
        dict.set_item("shape", &tensor.shape)?;
        dict.set_item("raw_bytes", tensor.raw_bytes)?;
        Ok(dict)
    };
    let all = |tensors: &[crate::Tensor]| tensors.iter().map(described).collect::<PyResult<Vec<_>>>();
    let changed = PyList::empty(py);
    for one in &found.common {
        let distances = match &one.change {
            Change::None if one.a.shape == one.b.shape => continue,
            Change::None | Change::Kind => None,
            Change::Words(distances) => Some(distances),
        };
        let dict = described(&one.b)?;
        dict.set_item("was", described(&one.a)?)?;
        dict.set_item("n_words", one.b.n_words())?;
        dict.set_item(
            "n_differing",
            match &one.change {
                Change::None => Some(0),
                Change::Kind => None,
                Change::Words(distances) => Some(distances.n_differing()),
            },
        )?;
        dict.set_item("distances", distances.map(|distances| distances.0.to_vec()))?;
        changed.append(dict)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("is_same", found.is_empty())?;
    dict.set_item("n_common", found.common.len())?;
    dict.set_item("added", all(&found.added)?)?;
    dict.set_item("removed", all(&found.removed)?)?;
    dict.set_item("changed", changed)?;
    dict.set_item("identical", found.identical)?;
    Ok(dict)
}

/// The model in some directories that a model was made from.
#[pyfunction]
pub fn closest(py: Python<'_>, src: PathBuf, directories: Vec<PathBuf>) -> PyResult<Option<OsString>> {
    let found = py.detach(|| crate::closest(&src, &directories)).map_err(|error| to_py(py, error))?;
    Ok(found.map(PathBuf::into_os_string))
}

/// Estimates what compressing a file or directory would do.
#[pyfunction]
#[pyo3(signature = (src, *, mode="balanced", threads=0, progress=None))]
pub fn scan<'py>(py: Python<'py>, src: PathBuf, mode: &str, threads: usize, progress: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyDict>> {
    let mode = mode.parse().map_err(|error| to_py(py, error))?;
    let (estimates, source_bytes, n_files) = PyProgress::new(progress).run(py, |progress| crate::scan(&src, mode, threads, progress))?;
    let tensors = PyList::empty(py);
    for one in &estimates {
        let dict = PyDict::new(py);
        dict.set_item("name", &one.name)?;
        dict.set_item("dtype", one.dtype.name())?;
        dict.set_item("shape", &one.shape)?;
        dict.set_item("raw_bytes", one.raw_bytes)?;
        dict.set_item("kind", one.kind)?;
        dict.set_item("estimated_bytes", one.estimated_bytes)?;
        dict.set_item("tied_to", &one.tied_to)?;
        tensors.append(dict)?;
    }
    let f32s = || estimates.iter().filter(|one| one.dtype == Dtype::F32);
    let widened = PyDict::new(py);
    widened.set_item("n_tensors", f32s().count())?;
    widened.set_item("n_bf16_native", f32s().filter(|one| one.kind == "bf16_native").count())?;
    widened.set_item("n_f16_native", f32s().filter(|one| one.kind == "f16_native").count())?;
    widened.set_item("bf16_native_bytes", f32s().map(|one| one.widened_bytes[0]).sum::<u64>())?;
    widened.set_item("f16_native_bytes", f32s().map(|one| one.widened_bytes[1]).sum::<u64>())?;
    widened.set_item("raw_bytes", f32s().map(|one| one.raw_bytes).sum::<u64>())?;
    let dict = PyDict::new(py);
    dict.set_item("source_bytes", source_bytes)?;
    dict.set_item("estimated_bytes", estimates.iter().map(|one| one.estimated_bytes).sum::<u64>())?;
    dict.set_item("n_shards", n_files)?;
    dict.set_item("n_tensors", estimates.len())?;
    dict.set_item("tensors", tensors)?;
    dict.set_item("f32", widened)?;
    Ok(dict)
}

/// The compressed files of a path: itself, or the shards of a directory.
#[pyfunction]
pub fn packed_files(py: Python<'_>, path: PathBuf) -> PyResult<Vec<OsString>> {
    let files = crate::packed_files(&path).map_err(|error| to_py(py, error))?;
    Ok(files.into_iter().map(PathBuf::into_os_string).collect())
}

/// Instruction sets this machine can run, best first.
#[pyfunction]
pub fn isas() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// The instruction set in use.
#[pyfunction]
pub fn isa(py: Python<'_>) -> PyResult<&'static str> {
    Isa::current().map(Isa::name).map_err(|error| to_py(py, error))
}

fn named(isa: Option<&str>) -> Result<Isa> {
    isa.map_or_else(Isa::current, Isa::named)
}

/// Times the codec on words in memory, with one thread.
#[pyfunction]
#[pyo3(signature = (data, dtype, row_words, *, base=None, mode="balanced", isa=None, repeat=5))]
#[allow(clippy::too_many_arguments)]
pub fn codec_speed<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    dtype: &str,
    row_words: usize,
    base: Option<&Bound<'py, PyAny>>,
    mode: &str,
    isa: Option<&str>,
    repeat: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let bytes = Bytes::of(data)?;
    let base = base.map(Bytes::of).transpose()?;
    let base = base.as_ref().map(Bytes::as_slice);
    let run = || -> Result<_> {
        let dtype = Dtype::from_name(dtype).ok_or_else(|| Error::option(format!("no dtype {dtype:?}")))?;
        crate::codec_speed(bytes.as_slice(), base, dtype, row_words, mode.parse()?, named(isa)?, repeat)
    };
    let speed = py.detach(run).map_err(|error| to_py(py, error))?;
    let dict = PyDict::new(py);
    dict.set_item("raw_bytes", speed.raw_bytes)?;
    dict.set_item("coded_bytes", speed.coded_bytes)?;
    dict.set_item("encode_bytes_per_s", speed.encode_bytes_per_s)?;
    dict.set_item("decode_bytes_per_s", speed.decode_bytes_per_s)?;
    Ok(dict)
}

/// A whole safetensors file, in memory, to a whole `.bs` file, in memory.
#[pyfunction]
#[pyo3(signature = (data, *, mode="balanced", format="current", threads=0, isa=None))]
pub fn compress_bytes<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    mode: &str,
    format: &str,
    threads: usize,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = Bytes::of(data)?;
    let options = options(py, mode, format, false, threads)?;
    let packed = py
        .detach(|| compress_bytes_with(bytes.as_slice(), &options, named(isa)?))
        .map_err(|error| to_py(py, error))?;
    Ok(PyBytes::new(py, &packed))
}

/// The inverse of `compress_bytes`; every tensor's md5 is checked.
#[pyfunction]
#[pyo3(signature = (data, *, threads=0, isa=None))]
pub fn decompress_bytes<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    threads: usize,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = Bytes::of(data)?;
    let source = py
        .detach(|| decompress_bytes_with(bytes.as_slice(), threads, named(isa)?))
        .map_err(|error| to_py(py, error))?;
    Ok(PyBytes::new(py, &source))
}

/// Keys and values of an entry that the published package's KV caches hold.
#[pyfunction]
pub fn published_kv_entry(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<(Tensor, Tensor)> {
    let bytes = Bytes::of(data)?;
    let tensors = py.detach(|| kv::decode(bytes.as_slice())).map_err(|error| to_py(py, error))?;
    let [keys, values] = tensors.map(|tensor| Tensor::new(tensor.words, tensor.dtype, tensor.shape));
    Ok((keys, values))
}
