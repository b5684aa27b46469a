//! Random weights to compare with: a normal or uniform distribution, rounded to a float format.

use super::format::Format;

/// Deviations from the mean beyond which nothing is expected.
const MAX_DEVIATIONS: f64 = 9.0;

/// A distribution of real numbers.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// The one that most weights begin with.
    Normal,
    /// The one that others begin with.
    Uniform,
}

impl Shape {
    /// Share above `x` deviations over the mean.
    fn above(self, x: f64) -> f64 {
        match self {
            Shape::Normal => half_erfc(x / std::f64::consts::SQRT_2),
            Shape::Uniform => ((1.0 - x / f64::sqrt(3.0)) / 2.0).clamp(0.0, 1.0),
        }
    }
}

/// The odds of every word.
pub struct Control {
    format: Format,
    /// For both signs, magnitudes from the first that is expected on.
    odds: [(usize, Vec<f64>); 2],
    marginals: [Vec<f64>; 3],
}

impl Control {
    /// A distribution with that mean and deviation. Without a deviation, all is at the mean.
    pub fn new(shape: Shape, format: Format, mean: f64, std: f64) -> Self {
        let odds = [1.0, -1.0].map(|sign| side(shape, format, sign * mean, std));
        let mut marginals = [
            vec![0.0; 2],
            vec![0.0; 1 << format.exponent_bits],
            vec![0.0; 1 << format.mantissa_bits],
        ];
        for (sign, (first, odds)) in odds.iter().enumerate() {
            for (i, &p) in odds.iter().enumerate() {
                let magnitude = first + i;
                marginals[0][sign] += p;
                marginals[1][magnitude >> format.mantissa_bits] += p;
                marginals[2][magnitude & ((1 << format.mantissa_bits) - 1)] += p;
            }
        }
        Self { format, odds, marginals }
    }

    /// Odds of signs, exponents and mantissas.
    pub fn marginals(&self) -> [&[f64]; 3] {
        self.marginals.each_ref().map(|odds| &odds[..])
    }

    /// Odds of words.
    pub fn words(&self) -> Vec<f64> {
        let mut words = vec![0.0; 2 * self.format.n_magnitudes()];
        for (sign, (first, odds)) in self.odds.iter().enumerate() {
            words[sign * self.format.n_magnitudes() + first..][..odds.len()].copy_from_slice(odds);
        }
        words
    }
}

/// The odds of magnitudes on the positive side of a distribution, from the first that is expected on.
fn side(shape: Shape, format: Format, mean: f64, std: f64) -> (usize, Vec<f64>) {
    let n = format.n_finite();
    if std <= 0.0 || !std.is_finite() {
        // The last whose numbers begin at the mean or before it.
        return match mean {
            mean if mean < 0.0 => (0, Vec::new()),
            mean => (first_above(format, mean).saturating_sub(1), vec![1.0]),
        };
    }
    // Of what lies below all that is expected of a side, a magnitude of 0 keeps the rest.
    let first = first_above(format, (mean - MAX_DEVIATIONS * std).max(0.0)).saturating_sub(1);
    let last = first_above(format, mean + MAX_DEVIATIONS * std).min(n);
    let above = |x: f64| shape.above((x - mean) / std);
    let mut before = above(format.boundary(first));
    let odds = (first..last)
        .map(|magnitude| {
            // What would overflow is taken for the largest finite number.
            let after = if magnitude + 1 == n {
                0.0
            } else {
                above(format.boundary(magnitude + 1))
            };
            let p = before - after;
            before = after;
            p.max(0.0)
        })
        .collect();
    (first, odds)
}

/// The first finite magnitude whose numbers begin above `x`, or the number of these.
fn first_above(format: Format, x: f64) -> usize {
    let (mut low, mut high) = (0, format.n_finite());
    while low < high {
        let middle = (low + high) / 2;
        if format.boundary(middle) > x {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// Half of the complementary error function: what a normal distribution with variance ½ has above `x`. By a series of positive terms near zero, and
/// a continued fraction further out (Abramowitz and Stegun, 7.1.6 and 7.1.14).
fn half_erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 1.0 - half_erfc(-x);
    }
    let square = x * x;
    if x < 2.5 {
        // erf x = 2/√π · e^(−x²) · Σ 2^k x^(2k+1) / (2k+1)!!
        let (mut term, mut sum, mut k) = (x, x, 0.0);
        while term > 1e-18 * sum {
            k += 1.0;
            term *= 2.0 * square / (2.0 * k + 1.0);
            sum += term;
        }
        return 0.5 - (-square).exp() * sum / std::f64::consts::PI.sqrt();
    }
    // erfc x = e^(−x²)/√π · 1/(x + ½/(x + 1/(x + 1½/(x + …))))
    let fraction = (1..60).rev().fold(x, |rest, k| x + k as f64 / 2.0 / rest);
    0.5 * (-square).exp() / (std::f64::consts::PI.sqrt() * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;

    #[test]
    fn the_error_function_is_that_of_the_tables() {
        for (x, erfc) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.0, 0.004_677_734_981_047_266),
            (2.499, 4.091_1e-4),
            (3.0, 2.209_049_699_858_544e-5),
            (5.0, 1.537_459_794_428_034_8e-12),
        ] {
            let tolerance = if x == 2.499 { 1e-3 * erfc } else { 1e-12 * erfc + 1e-16 };
            assert!((2.0 * half_erfc(x) - erfc).abs() < tolerance, "{x}: {} {erfc}", 2.0 * half_erfc(x));
            assert!((2.0 * half_erfc(-x) - (2.0 - erfc)).abs() < tolerance.max(1e-12));
        }
    }

    #[test]
    fn odds_sum_to_one() {
        for dtype in [
            Dtype::BF16,
            Dtype::F16,
            Dtype::F32,
            Dtype::F8_E4M3,
            Dtype::F8_E5M2,
            Dtype::F8_E4M3FNUZ,
            Dtype::F8_E5M2FNUZ,
        ] {
            let format = Format::of(dtype).unwrap();
            for (mean, std) in [
                (0.0, 0.02),
                (0.01, 0.02),
                (1.0, 0.01),
                (-1.0, 0.001),
                (0.0, 1e-6),
                (0.5, 0.0),
                (-0.25, 0.0),
                (0.0, 300.0),
            ] {
                for shape in [Shape::Normal, Shape::Uniform] {
                    for odds in Control::new(shape, format, mean, std).marginals() {
                        let sum: f64 = odds.iter().sum();
                        assert!((sum - 1.0).abs() < 1e-9, "{shape:?} {dtype:?} {mean} {std}: {sum}");
                    }
                }
            }
        }
    }
}
