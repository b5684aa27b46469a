//! How much of a matrix one row and one column say.

use super::format::Format;
use crate::error::Result;
use crate::safetensors::row_words;
use crate::weights::Weights;

/// Elements that are looked at; of larger matrices, some stretches of rows.
const MAX_ELEMENTS: usize = 1 << 22;
const N_STRETCHES: usize = 8;
/// Steps of the iteration at most, and the relative change below which it ends.
const MAX_STEPS: usize = 64;
const SETTLED: f64 = 1e-5;

/// Share of a matrix's squared Frobenius norm that its leading singular value has, by power iteration; None for what is no matrix of numbers.
pub fn rank1_share(weights: &Weights, index: usize, format: Format) -> Result<Option<f64>> {
    let tensor = &weights.tensors()[index];
    let n_words = tensor.n_words() as usize;
    let columns = row_words(&tensor.shape, n_words);
    if !(2..=MAX_ELEMENTS / N_STRETCHES).contains(&columns) || n_words < 2 * columns {
        return Ok(None);
    }
    let rows = n_words / columns;
    let taken = rows.min(MAX_ELEMENTS / columns);
    let values = Values::of(format);
    let mut matrix = Vec::with_capacity(taken * columns);
    if taken == rows {
        values.extend(&mut matrix, &weights.words(index, 0..n_words as u64)?);
    } else {
        let stretch = taken / N_STRETCHES;
        for k in 0..N_STRETCHES {
            let start = (rows - stretch) * k / (N_STRETCHES - 1) * columns;
            values.extend(
                &mut matrix,
                &weights.words(index, start as u64..(start + stretch * columns) as u64)?,
            );
        }
    }
    Ok(leading_share(&matrix, columns))
}

/// What words are worth, as far as a table tells.
struct Values {
    format: Format,
    table: Vec<f32>,
}

impl Values {
    fn of(format: Format) -> Self {
        let n = format.n_magnitudes();
        let value = |word: usize| {
            let (is_negative, magnitude) = (word >= n, word % n);
            let value = if format.is_finite(is_negative, magnitude) {
                format.value(magnitude)
            } else {
                0.0
            };
            (if is_negative { -value } else { value }) as f32
        };
        let table = if format.word_bytes > 2 {
            Vec::new()
        } else {
            (0..2 * n).map(value).collect()
        };
        Self { format, table }
    }

    /// Appends the values of words; what is not finite counts as zero.
    fn extend(&self, matrix: &mut Vec<f32>, words: &[u8]) {
        match self.format.word_bytes {
            1 => matrix.extend(words.iter().map(|&word| self.table[word as usize])),
            2 => matrix.extend(
                words
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|word| self.table[u16::from_le_bytes(*word) as usize]),
            ),
            _ => matrix.extend(words.as_chunks::<4>().0.iter().map(|word| {
                let value = f32::from_le_bytes(*word);
                if value.is_finite() { value } else { 0.0 }
            })),
        }
    }
}

fn leading_share(matrix: &[f32], columns: usize) -> Option<f64> {
    let largest = matrix.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    if largest == 0.0 {
        return None;
    }
    // In units of the largest, so that no square over- or underflows.
    let norm: f64 = matrix.iter().map(|&value| (value as f64 / largest as f64).powi(2)).sum();
    // Any vector that no real matrix is at right angles to.
    let mut vector: Vec<f32> = (0..columns as u32)
        .map(|i| 0.5 + (i.wrapping_mul(0x9E37_79B9) >> 8) as f32 / (1 << 24) as f32)
        .collect();
    let mut share = 0.0;
    for _ in 0..MAX_STEPS {
        let length = vector.iter().map(|&x| (x as f64).powi(2)).sum::<f64>().sqrt();
        if length == 0.0 {
            break;
        }
        vector.iter_mut().for_each(|x| *x = (*x as f64 / length) as f32);
        let mut next = vec![0.0f32; columns];
        let mut square = 0.0;
        for row in matrix.chunks_exact(columns) {
            let product = row.iter().zip(&vector).map(|(&a, &x)| a / largest * x).sum::<f32>();
            square += (product as f64).powi(2);
            next.iter_mut().zip(row).for_each(|(sum, &a)| *sum += a / largest * product);
        }
        let found = square / norm;
        vector = next;
        if (found - share).abs() <= SETTLED * found {
            share = found;
            break;
        }
        share = found;
    }
    Some(share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_known_singular_values() {
        // One row and one column, scaled.
        let outer: Vec<f32> = (0..20)
            .flat_map(|i| (0..30).map(move |j| (i as f32 - 7.5) * (j as f32 + 1.0) * 1e-20))
            .collect();
        assert!((leading_share(&outer, 30).unwrap() - 1.0).abs() < 1e-5);
        // Singular values 2, 1, 1.
        let diagonal = [2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        assert!((leading_share(&diagonal, 3).unwrap() - 4.0 / 6.0).abs() < 1e-4);
        assert_eq!(leading_share(&[0.0; 9], 3), None);
    }
}
