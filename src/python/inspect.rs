//! What files tell of themselves.

use super::PyProgress;
use crate::{Flag, Stream, TensorXray, XrayOptions};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::path::PathBuf;

/// Looks at the float tensors of a checkpoint, beside random weights.
#[pyfunction]
#[pyo3(signature = (src, *, min_elements=crate::MIN_ELEMENTS, svd=true, threads=0, progress=None))]
pub fn xray<'py>(
    py: Python<'py>,
    src: PathBuf,
    min_elements: u64,
    svd: bool,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = XrayOptions {
        min_elements,
        svd,
        threads,
    };
    let found = PyProgress::new(progress).run(py, |progress| crate::xray(&src, &options, progress))?;
    let tensors = PyList::empty(py);
    for tensor in &found.tensors {
        tensors.append(tensor_dict(py, tensor)?)?;
    }
    let meanings = PyDict::new(py);
    for flag in Flag::ALL {
        meanings.set_item(flag.name(), flag.meaning())?;
    }
    let dict = PyDict::new(py);
    dict.set_item("n_tensors", found.n_tensors)?;
    dict.set_item("n_analyzed", found.tensors.len())?;
    dict.set_item("min_elements", min_elements)?;
    dict.set_item("n_matrices", found.n_matrices)?;
    dict.set_item("n_random", found.n_random())?;
    dict.set_item("raw_bytes", found.raw_bytes)?;
    dict.set_item("looks_untrained", found.looks_untrained())?;
    dict.set_item("flags", meanings)?;
    dict.set_item("tensors", tensors)?;
    Ok(dict)
}

fn tensor_dict<'py>(py: Python<'py>, tensor: &TensorXray) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("name", &tensor.name)?;
    dict.set_item("dtype", tensor.dtype.name())?;
    dict.set_item("shape", &tensor.shape)?;
    dict.set_item("n_elements", tensor.n_elements)?;
    for (name, stream) in ["sign", "exp", "mant"].into_iter().zip(&tensor.streams) {
        dict.set_item(name, stream_dict(py, stream)?)?;
    }
    dict.set_item("ratio_pct", tensor.ratio_pct)?;
    dict.set_item("control_ratio_pct", tensor.control_ratio_pct)?;
    dict.set_item("mean", tensor.mean)?;
    dict.set_item("std", tensor.std)?;
    dict.set_item("excess_kurtosis", tensor.excess_kurtosis)?;
    dict.set_item("sign_balance", 1.0 - tensor.negative_share)?;
    dict.set_item("non_finite_share", tensor.non_finite_share)?;
    dict.set_item("bf16_share", tensor.bf16_share)?;
    dict.set_item("rank1_frac", tensor.rank1_share)?;
    dict.set_item("exp_uniform_divergence", tensor.uniform_divergence)?;
    dict.set_item("exponents", &tensor.exponents)?;
    dict.set_item("flags", tensor.flags.iter().map(|flag| flag.name()).collect::<Vec<_>>())?;
    Ok(dict)
}

fn stream_dict<'py>(py: Python<'py>, stream: &Stream) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("entropy", stream.entropy)?;
    dict.set_item("error", stream.error)?;
    dict.set_item("control_entropy", stream.control_entropy)?;
    dict.set_item("divergence", stream.divergence)?;
    Ok(dict)
}
