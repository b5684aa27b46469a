//! The mean to expect of the next word, in units of its scale: a linear prediction from words near it.
//!
//! Values have 8 fraction bits. The weights follow the error of each prediction (least mean squares).

use super::Matrix;

/// Words of the same kernel just before the word.
const TAPS: usize = 16;
/// The mean so far of the words at its place of the row, that of the words at its position of the row's kernels, and the word above it.
const NEAR: usize = 3;
/// Positions with weights of their own; those beyond share the last.
const KINDS: usize = 64;
/// Rate of the weights.
const STEP: u32 = 9;
/// No prediction is further from 0; [`exp2`](super::scale::exp2) sees to the same for values.
const MOST: i32 = 6 << 8;

/// Weights with 14 fraction bits.
#[derive(Clone, Copy, Default)]
struct Weights {
    taps: [i16; TAPS],
    near: [i32; NEAR],
}

/// What a weight moves by, 2^−7 of error times value. Rounded, for a bias would carry weights of small values far off.
#[inline(always)]
fn step(error: i32, value: i32) -> i32 {
    (error * value + (1 << (STEP - 1))) >> STEP
}

/// A mean so far, 16 fraction bits.
#[derive(Clone, Copy, Default)]
struct Average(i32);

impl Average {
    /// 2^16 / (n + 8).
    const GAIN: [u16; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            table[n] = ((1 << 16) / (n as u32 + 8)) as u16;
            n += 1;
        }
        table
    };

    #[inline(always)]
    fn value(self) -> i32 {
        self.0 >> 8
    }

    /// Takes in a value that `n` others came before.
    #[inline(always)]
    fn learn(&mut self, value: i32, n: usize) {
        let step = ((value << 8) - self.0) as i64 * Self::GAIN[n.min(255)] as i64;
        self.0 += (step >> 16) as i32;
    }
}

/// Where a word is, for its prediction.
#[derive(Clone, Copy)]
pub struct Spot {
    /// Rows of the part before its own.
    pub row: usize,
    /// Columns of its row before its own.
    pub column: usize,
    /// Words of its kernel before it.
    pub position: usize,
    /// Words of its row before it, as far as places are told apart.
    pub place: usize,
}

/// What the mean is predicted from, and how.
pub struct Mean {
    weights: Vec<Weights>,
    taps: [i16; TAPS],
    near: [i32; NEAR],
    places: Vec<Average>,
    positions: Vec<Average>,
    above: Vec<i16>,
    mean: i32,
    has_kernels: bool,
}

impl Mean {
    /// Nothing known.
    pub fn new(matrix: &Matrix) -> Self {
        Self {
            weights: vec![Weights::default(); KINDS],
            taps: [0; TAPS],
            near: [0; NEAR],
            places: vec![Average::default(); matrix.n_places()],
            positions: vec![Average::default(); matrix.n_positions()],
            above: vec![0; matrix.n_places()],
            mean: 0,
            has_kernels: matrix.has_kernels(),
        }
    }

    /// Forgets the means of the last row.
    pub fn start_row(&mut self) {
        self.positions.fill(Average::default());
    }

    /// Forgets the last kernel.
    #[inline(always)]
    pub fn start_kernel(&mut self) {
        self.taps = [0; TAPS];
    }

    /// The mean of the next word.
    #[inline(always)]
    pub fn predict(&mut self, spot: Spot) -> i32 {
        self.near = [
            self.places[spot.place].value(),
            self.positions[spot.position].value(),
            self.above[spot.place] as i32,
        ];
        let weights = &self.weights[spot.position.min(KINDS - 1)];
        let mut sum: i32 = weights.near.iter().zip(&self.near).map(|(&weight, &value)| weight * value).sum();
        if self.has_kernels {
            sum += weights
                .taps
                .iter()
                .zip(&self.taps)
                .map(|(&weight, &value)| weight as i32 * value as i32)
                .sum::<i32>();
        }
        self.mean = (sum >> 14).clamp(-MOST, MOST);
        self.mean
    }

    /// The value that came after its prediction.
    #[inline(always)]
    pub fn learn(&mut self, spot: Spot, value: i32) {
        let error = (value - self.mean).clamp(-MOST / 2, MOST / 2);
        let weights = &mut self.weights[spot.position.min(KINDS - 1)];
        for (weight, &value) in weights.near.iter_mut().zip(&self.near) {
            *weight = (*weight + step(error, value)).clamp(i16::MIN as i32, i16::MAX as i32);
        }
        if self.has_kernels {
            for (weight, &value) in weights.taps.iter_mut().zip(&self.taps) {
                *weight = weight.saturating_add(step(error, value as i32) as i16);
            }
            self.taps.copy_within(1.., 0);
            self.taps[TAPS - 1] = value as i16;
        }
        self.places[spot.place].learn(value, spot.row);
        self.positions[spot.position].learn(value, spot.column);
        self.above[spot.place] = value as i16;
    }
}
