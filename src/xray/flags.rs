//! What is remarkable about a tensor.

use super::TensorXray;
use super::format::Format;

/// Bits a symbol below which a stream costs a coder nothing that would be noticed.
const BAND: f64 = 0.02;
/// The same for traces of another precision in the mantissa.
const RESIDUE: f64 = 0.005;
/// Divergence of exponents, in bits, from those of random weights up to which nothing tells the two apart: most trained weights are at ten times that.
const RANDOM: f64 = 0.0003;
/// Share of F32 words with a zero low half from which they come from BF16.
const BF16_SHARE: f64 = 0.1;
/// Entropy of signs, in bits, below which one of them prevails.
const SIGN_ENTROPY: f64 = 0.999;
/// Standard errors that a difference exceeds before it is more than chance: in a checkpoint of thousands of tensors, none does by chance.
const ERRORS: f64 = 5.0;

/// A remarkable thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// F32 that was widened from BF16, at least in part.
    Bf16NativeLineage,
    /// Values that were once rounded to another precision.
    LineageResidue,
    /// Mantissas that training has made predictable.
    MantissaCarved,
    /// One sign prevails.
    SignImbalance,
    /// Exponents like those of random weights.
    ExpNearRandom,
    /// All in all more predictable than random weights.
    BelowRandomFloor,
}

impl Flag {
    /// All of them.
    pub const ALL: [Flag; 6] = [
        Flag::Bf16NativeLineage,
        Flag::LineageResidue,
        Flag::MantissaCarved,
        Flag::SignImbalance,
        Flag::ExpNearRandom,
        Flag::BelowRandomFloor,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Flag::Bf16NativeLineage => "bf16_native_lineage",
            Flag::LineageResidue => "lineage_residue",
            Flag::MantissaCarved => "mantissa_carved",
            Flag::SignImbalance => "sign_imbalance",
            Flag::ExpNearRandom => "exp_near_random",
            Flag::BelowRandomFloor => "below_random_floor",
        }
    }

    /// What it means.
    pub fn meaning(self) -> &'static str {
        match self {
            Flag::Bf16NativeLineage => {
                "F32 of which at least a tenth has zeros for its low 16 bits: it was BF16 once, which compressing makes use of"
            }
            Flag::LineageResidue => {
                "traces of another precision in the mantissa, as F16 or BF16 leave them: there from the beginning, not trained"
            }
            Flag::MantissaCarved => {
                "mantissas clearly more predictable than those of random weights: training has done that, which is rare"
            }
            Flag::SignImbalance => "one sign prevails: weights begin with as many of both, so training has done that",
            Flag::ExpNearRandom => {
                "exponents that cannot be told from those of random normal or uniform weights: trained ones differ from these"
            }
            Flag::BelowRandomFloor => "sign, exponent and mantissa together are more predictable than those of random weights",
        }
    }

    /// Whether it applies.
    pub(super) fn applies(self, tensor: &TensorXray, format: Format) -> bool {
        let [sign, exponent, mantissa] = &tensor.streams;
        let n = tensor.n_elements as f64;
        match self {
            Flag::Bf16NativeLineage => tensor.bf16_share.is_some_and(|share| share >= BF16_SHARE),
            Flag::LineageResidue => {
                (RESIDUE..BAND).contains(&mantissa.divergence) && mantissa.divergence > noise(1 << format.mantissa_bits, n)
            }
            Flag::MantissaCarved => mantissa.divergence >= BAND && mantissa.difference() < -(BAND + ERRORS * mantissa.error),
            Flag::SignImbalance => sign.entropy < SIGN_ENTROPY && (tensor.negative_share - 0.5).abs() > ERRORS * 0.5 / n.sqrt(),
            Flag::ExpNearRandom => {
                // Without a spread there is nothing to be random.
                tensor.std > 0.0 && exponent.divergence.min(tensor.uniform_divergence) < RANDOM + noise(tensor.exponents.len(), n)
            }
            Flag::BelowRandomFloor => {
                let errors = tensor.streams.iter().map(|stream| stream.error).sum::<f64>();
                (tensor.control_ratio_pct - tensor.ratio_pct) * format.word_bits() as f64 / 100.0 > BAND + ERRORS * errors
            }
        }
    }
}

/// Divergence in bits a symbol that chance may give to `n` symbols of so many kinds: 2n ln 2 times it has a chi-square distribution with as many
/// degrees of freedom less one, whose mean is taken off already.
fn noise(n_kinds: usize, n: f64) -> f64 {
    let freedom = n_kinds.saturating_sub(1) as f64;
    ERRORS * (2.0 * freedom).sqrt() / (2.0 * n * std::f64::consts::LN_2)
}
