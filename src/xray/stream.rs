//! A stream of symbols, and how it differs from that of random weights.

use std::f64::consts::LN_2;

/// What is added to each expected count, so that what a control does not expect has a finite cost.
const SMOOTHING: f64 = 0.5;

/// Entropies in bits a symbol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// Entropy, with Miller and Madow's correction for the number of symbols.
    pub entropy: f64,
    /// Standard error of the entropy.
    pub error: f64,
    /// Entropy of the control.
    pub control_entropy: f64,
    /// What coding with the control's table costs beyond an own table: their Kullback–Leibler divergence, less what chance gives to one of so many
    /// symbols.
    pub divergence: f64,
}

impl Stream {
    /// The stream with these occurrences, beside a control with these odds.
    pub fn new(counts: &[u64], odds: &[f64]) -> Self {
        let n: u64 = counts.iter().sum();
        let control_entropy = odds.iter().filter(|p| **p > 0.0).map(|p| -p * p.log2()).sum();
        if n == 0 {
            return Self {
                control_entropy,
                ..Self::default()
            };
        }
        let n = n as f64;
        let n_seen = counts.iter().filter(|count| **count > 0).count();
        let smoothed = n + SMOOTHING * n_seen as f64;
        let (mut entropy, mut square, mut divergence) = (0.0, 0.0, 0.0);
        for (&count, &odds) in counts.iter().zip(odds).filter(|(count, _)| **count > 0) {
            let p = count as f64 / n;
            let bits = -p.log2();
            entropy += p * bits;
            square += p * bits * bits;
            divergence += p * (-bits - ((odds * n + SMOOTHING) / smoothed).log2());
        }
        let correction = (n_seen - 1) as f64 / (2.0 * n * LN_2);
        Self {
            entropy: entropy + correction,
            error: ((square - entropy * entropy).max(0.0) / n).sqrt(),
            control_entropy,
            divergence: (divergence - correction).max(0.0),
        }
    }

    /// How much more entropy it has than the control.
    pub fn difference(&self) -> f64 {
        self.entropy - self.control_entropy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_of_simple_streams() {
        let even = Stream::new(&[500, 500], &[0.5, 0.5]);
        assert!((even.entropy - 1.0).abs() < 1e-3 && even.divergence == 0.0);
        assert_eq!(Stream::new(&[0, 7], &[0.5, 0.5]).entropy, 0.0);
        let skewed = Stream::new(&[250_000, 750_000], &[0.5, 0.5]);
        assert!((skewed.entropy - 0.811_278).abs() < 1e-5);
        assert!((skewed.divergence - (1.0 - 0.811_278)).abs() < 1e-4);
        assert_eq!(Stream::new(&[0, 0], &[0.5, 0.5]).entropy, 0.0);
        // A symbol that the control does not expect.
        assert!(Stream::new(&[10, 10], &[1.0, 0.0]).divergence.is_finite());
    }
}
