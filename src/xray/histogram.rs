//! How often each word occurs, and what follows from that alone.

use super::format::Format;

/// Tables that neighbouring words are counted in, so that one count need not wait for the one before.
const N_TABLES: usize = 2;

/// Occurrences of every word, or of every upper half of F32 words.
#[derive(Clone)]
pub struct Histogram {
    format: Format,
    counts: [Vec<u32>; N_TABLES],
    /// Words whose low half is zero, of those that have one.
    pub n_bf16: u64,
}

/// Moments of the finite values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    pub mean: f64,
    pub std: f64,
    /// The deviation that the numbers had before they were rounded, or cut, by Sheppard's correction.
    pub unrounded_std: f64,
    pub excess_kurtosis: f64,
    pub n_non_finite: u64,
}

impl Histogram {
    /// No words yet.
    pub fn new(format: Format) -> Self {
        let empty = || vec![0; 2 * format.n_magnitudes()];
        Self {
            format,
            counts: std::array::from_fn(|_| empty()),
            n_bf16: 0,
        }
    }

    /// Counts words, of which a histogram takes fewer than 2^32.
    pub fn add(&mut self, words: &[u8]) {
        let [even, odd] = &mut self.counts;
        match self.format.word_bytes {
            1 => {
                let (even, odd) = (&mut even[..256], &mut odd[..256]);
                let (pairs, rest) = words.as_chunks::<2>();
                for pair in pairs {
                    even[pair[0] as usize] += 1;
                    odd[pair[1] as usize] += 1;
                }
                rest.iter().for_each(|&word| even[word as usize] += 1);
            }
            2 => {
                let (even, odd) = (&mut even[..1 << 16], &mut odd[..1 << 16]);
                let (pairs, rest) = words.as_chunks::<4>();
                for pair in pairs {
                    even[u16::from_le_bytes([pair[0], pair[1]]) as usize] += 1;
                    odd[u16::from_le_bytes([pair[2], pair[3]]) as usize] += 1;
                }
                rest.as_chunks::<2>()
                    .0
                    .iter()
                    .for_each(|word| even[u16::from_le_bytes(*word) as usize] += 1);
            }
            _ => {
                let even = &mut even[..1 << 16];
                for word in words.as_chunks::<4>().0 {
                    let word = u32::from_le_bytes(*word);
                    even[(word >> 16) as usize] += 1;
                    self.n_bf16 += (word & 0xFFFF == 0) as u64;
                }
            }
        }
    }

    /// Both together.
    pub fn merged(mut self, other: Self) -> Self {
        for (counts, others) in self.counts.iter_mut().zip(&other.counts) {
            counts
                .iter_mut()
                .zip(others)
                .for_each(|(count, other)| *count = count.saturating_add(*other));
        }
        self.n_bf16 += other.n_bf16;
        self
    }

    /// Occurrences of every word.
    pub fn words(&self) -> Vec<u64> {
        let [even, odd] = &self.counts;
        even.iter().zip(odd).map(|(&even, &odd)| even as u64 + odd as u64).collect()
    }

    /// Occurrences of signs, exponents and mantissas.
    pub fn marginals(&self) -> [Vec<u64>; 3] {
        let (format, words) = (self.format, self.words());
        let mut marginals = [vec![0; 2], vec![0; 1 << format.exponent_bits], vec![0; 1 << format.mantissa_bits]];
        for (word, &count) in words.iter().enumerate().filter(|(_, count)| **count > 0) {
            let magnitude = word % format.n_magnitudes();
            marginals[0][word / format.n_magnitudes()] += count;
            marginals[1][magnitude >> format.mantissa_bits] += count;
            marginals[2][magnitude & ((1 << format.mantissa_bits) - 1)] += count;
        }
        marginals
    }

    /// Moments of the finite values.
    pub fn moments(&self) -> Moments {
        let format = self.format;
        let (mut values, mut n_non_finite, mut widths) = (Vec::new(), 0, Vec::new());
        for (word, &count) in self.words().iter().enumerate().filter(|(_, count)| **count > 0) {
            let (is_negative, magnitude) = (word >= format.n_magnitudes(), word % format.n_magnitudes());
            if format.is_finite(is_negative, magnitude) {
                let value = format.middle(magnitude);
                values.push((if is_negative { -value } else { value }, count as f64));
                widths.push(format.boundary(magnitude + 1) - format.boundary(magnitude));
            } else {
                n_non_finite += count;
            }
        }
        let n: f64 = values.iter().map(|(_, count)| count).sum();
        if n == 0.0 {
            return Moments {
                n_non_finite,
                ..Moments::default()
            };
        }
        // In units of the largest, so that no power of any overflows.
        let unit = values
            .iter()
            .fold(0.0, |most: f64, (value, _)| most.max(value.abs()))
            .max(f64::MIN_POSITIVE);
        let about = |center: f64, power: i32| {
            values
                .iter()
                .map(|(value, count)| count * (value / unit - center).powi(power))
                .sum::<f64>()
                / n
        };
        let mean = about(0.0, 1);
        let variance = about(mean, 2);
        let rounding = values
            .iter()
            .zip(&widths)
            .map(|((_, count), width)| count * (width / unit).powi(2))
            .sum::<f64>()
            / n
            / 12.0;
        let unrounded = if format.is_cut() {
            variance + rounding
        } else {
            (variance - rounding).max(0.0)
        };
        let fourth = if variance > 0.0 {
            about(mean, 4) / (variance * variance)
        } else {
            3.0
        };
        Moments {
            mean: mean * unit,
            std: variance.sqrt() * unit,
            unrounded_std: if variance > 0.0 { unrounded.sqrt() * unit } else { 0.0 },
            excess_kurtosis: fourth - 3.0,
            n_non_finite,
        }
    }
}
