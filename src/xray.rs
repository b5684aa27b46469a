//! What the values of a checkpoint tell about it, beside random weights of the same moments.
//!
//! Every word is cut into sign, exponent and mantissa. A histogram of all words gives the entropies of these three, and the moments; nothing else
//! needs the words again. The *control* of a tensor is a normal distribution with its mean and deviation, rounded to its dtype: the odds of every
//! word are integrals, so no random numbers are drawn, and the same tensor has the same control for ever.

mod control;
mod flags;
mod format;
mod histogram;
mod rank;
mod stream;

pub use flags::Flag;

use crate::dtype::Dtype;
use crate::error::Result;
use crate::options::Progress;
use crate::pool::{self, Ticker};
use crate::weights::Weights;
use control::{Control, Shape};
use format::Format;
use histogram::Histogram;
use rayon::prelude::*;
use std::path::Path;
pub use stream::Stream;

/// Elements that a tensor has at least, unless asked otherwise: what fewer show is chance.
pub const MIN_ELEMENTS: u64 = 4096;

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct XrayOptions {
    /// Elements from which a float tensor is looked at.
    pub min_elements: u64,
    /// Whether to calculate the share of the leading singular value, which takes longer than all else.
    pub svd: bool,
    /// Threads to use; 0 for all cores.
    pub threads: usize,
}

impl Default for XrayOptions {
    fn default() -> Self {
        Self {
            min_elements: MIN_ELEMENTS,
            svd: true,
            threads: 0,
        }
    }
}

/// What was found of a tensor. Entropies are in bits.
#[derive(Clone, Debug)]
pub struct TensorXray {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its elements.
    pub n_elements: u64,
    /// Sign, exponent and mantissa; of F32, the mantissa's upper 7 bits.
    pub streams: [Stream; 3],
    /// Entropy of the bits that the streams have in percent of these bits: what is left when every stream is coded ideally. For words of one byte
    /// that of the byte.
    pub ratio_pct: f64,
    /// The same of the control.
    pub control_ratio_pct: f64,
    /// Mean and standard deviation of the finite values.
    pub mean: f64,
    /// The standard deviation.
    pub std: f64,
    /// Fourth standardised moment, less 3, which is that of a normal distribution.
    pub excess_kurtosis: f64,
    /// Share of values with a sign bit.
    pub negative_share: f64,
    /// Share of NaNs and infinities.
    pub non_finite_share: f64,
    /// F32 only: share of words whose low 16 bits are zero.
    pub bf16_share: Option<f64>,
    /// Share of the matrix's squared norm that its leading singular value has.
    pub rank1_share: Option<f64>,
    /// Divergence of the exponents from those of a uniform distribution.
    pub uniform_divergence: f64,
    /// Powers of two, how often they are the exponent, and how often that is expected of the control.
    pub exponents: Vec<(i32, u64, f64)>,
    /// What is remarkable.
    pub flags: Vec<Flag>,
}

/// What was found of a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Xray {
    /// Tensors that were looked at, file by file.
    pub tensors: Vec<TensorXray>,
    /// Tensors there are.
    pub n_tensors: usize,
    /// Float tensors of two dimensions and more there are, those included that are too small to be looked at.
    pub n_matrices: usize,
    /// Bytes of the tensors that were looked at.
    pub raw_bytes: u64,
}

impl Xray {
    /// Matrices with exponents like those of random weights.
    pub fn n_random(&self) -> usize {
        let is_random = |tensor: &&TensorXray| tensor.shape.len() > 1 && tensor.flags.contains(&Flag::ExpNearRandom);
        self.tensors.iter().filter(is_random).count()
    }

    /// Whether more than half of all matrices have exponents like those of random weights. Matrices too small to tell count as trained: adapters
    /// have one matrix of each pair that training hardly moves.
    pub fn looks_untrained(&self) -> bool {
        2 * self.n_random() > self.n_matrices
    }
}

/// Looks at the float tensors of a safetensors or `.bs` file, or of a directory of either.
///
/// # Errors
/// `Io`, `Source`, `Format`, `Version`, `Corrupt`, `Interrupted`.
pub fn xray(path: &Path, options: &XrayOptions, progress: Progress<'_>) -> Result<Xray> {
    let weights = Weights::open(path)?;
    let chosen: Vec<usize> = (0..weights.tensors().len())
        .filter(|&i| {
            let tensor = &weights.tensors()[i];
            Format::of(tensor.dtype).is_some() && tensor.n_words() >= options.min_elements.max(1)
        })
        .collect();
    let raw_bytes = chosen.iter().map(|&i| weights.tensors()[i].raw_bytes).sum();
    let tensors = pool::run(options.threads, raw_bytes, progress, |ticker| {
        chosen
            .par_iter()
            .with_max_len(1)
            .map(|&i| examine(&weights, i, options, ticker).map_err(|error| placed(&weights, i, error)))
            .collect::<Result<Vec<_>>>()
    })?;
    Ok(Xray {
        tensors,
        n_tensors: weights.tensors().len(),
        n_matrices: (weights.tensors().iter())
            .filter(|one| one.shape.len() > 1 && Format::of(one.dtype).is_some())
            .count(),
        raw_bytes,
    })
}

fn placed(weights: &Weights, tensor: usize, error: crate::Error) -> crate::Error {
    let error = error.at_tensor(&weights.tensors()[tensor].name);
    match weights.file_of(tensor).path() {
        Some(path) => error.at_path(path),
        None => error,
    }
}

fn examine(weights: &Weights, index: usize, options: &XrayOptions, ticker: &Ticker) -> Result<TensorXray> {
    let tensor = &weights.tensors()[index];
    let format = Format::of(tensor.dtype).expect("only floats are chosen");
    let histogram = (weights.parts(index)?.into_par_iter())
        .map(|part| {
            let mut histogram = Histogram::new(format);
            let words = weights.words(index, part)?;
            histogram.add(&words);
            ticker.advance(words.len() as u64)?;
            Ok(histogram)
        })
        .try_reduce_with(|a, b| Ok(a.merged(b)))
        .unwrap_or_else(|| Ok(Histogram::new(format)))?;
    let moments = histogram.moments();
    let control = Control::new(Shape::Normal, format, moments.mean, moments.unrounded_std);
    let [sign, exponent, mantissa] = histogram.marginals();
    let [control_sign, control_exponent, control_mantissa] = control.marginals();
    let streams = [
        Stream::new(&sign, control_sign),
        Stream::new(&exponent, control_exponent),
        Stream::new(&mantissa, control_mantissa),
    ];
    let uniform = Control::new(Shape::Uniform, format, moments.mean, moments.unrounded_std);
    let (ratio_pct, control_ratio_pct) = match format.word_bits() {
        8 => {
            let byte = Stream::new(&histogram.words(), &control.words());
            (byte.entropy / 0.08, byte.control_entropy / 0.08)
        }
        bits => {
            let sum = |of: fn(&Stream) -> f64| streams.iter().map(of).sum::<f64>() / (bits as f64 / 100.0);
            (sum(|stream| stream.entropy), sum(|stream| stream.control_entropy))
        }
    };
    let n_elements = tensor.n_words();
    let rank1_share = if options.svd {
        rank::rank1_share(weights, index, format)?
    } else {
        None
    };
    let exponents = (exponent.iter().enumerate())
        .map(|(value, &count)| (format.power(value), count, control_exponent[value] * n_elements as f64))
        .filter(|&(_, count, expected)| count > 0 || expected >= 0.5)
        .collect();
    let mut found = TensorXray {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        n_elements,
        streams,
        ratio_pct,
        control_ratio_pct,
        mean: moments.mean,
        std: moments.std,
        excess_kurtosis: moments.excess_kurtosis,
        negative_share: sign[1] as f64 / n_elements as f64,
        non_finite_share: moments.n_non_finite as f64 / n_elements as f64,
        bf16_share: (tensor.dtype == Dtype::F32).then(|| histogram.n_bf16 as f64 / n_elements as f64),
        rank1_share,
        uniform_divergence: Stream::new(&exponent, uniform.marginals()[1]).divergence,
        exponents,
        flags: Vec::new(),
    };
    found.flags = Flag::ALL.into_iter().filter(|flag| flag.applies(&found, format)).collect();
    Ok(found)
}
