//! The magnitude to expect of the next word: a product of factors for its row, column, position and kernel, learned from the words before.
//!
//! All of it is logarithmic. The *level* of a word is its exponent and mantissa read as one number, in octaves with 16 fraction bits: a
//! logarithm to base 2 made of straight lines, which needs no table.

use super::Matrix;

/// No factor goes further from 0 than this, so that a sum of five cannot overflow.
const MOST: i32 = 1 << 28;

/// 2^z of `z` in octaves with 16 fraction bits; straight lines between whole octaves. 12 fraction bits, at most 6.
#[inline(always)]
pub fn exp2(z: i32) -> i32 {
    let (octave, value) = (z >> 16, (1 << 16) + (z & 0xFFFF));
    if octave > 2 {
        return 6 << 12;
    }
    ((value << 2) >> (6 - octave).min(31)).min(6 << 12)
}

/// The slope of the likelihood of a word `z` octaves above the scale, were magnitudes exponentially distributed: 2^z − 1, at most 4.
#[inline(always)]
fn slope(z: i32) -> i32 {
    (exp2(z).min(5 << 12) - (1 << 12)) << 4
}

/// One factor. It follows the slope in steps that get smaller, from 1 / START down to 1 / (START + LIMIT).
#[derive(Clone, Copy, Default)]
struct Factor<const START: u32, const LIMIT: u32> {
    octaves: i32,
    seen: u32,
}

impl<const START: u32, const LIMIT: u32> Factor<START, LIMIT> {
    /// 2^16 / (n + START).
    const GAIN: [u16; 2048] = {
        let mut table = [0; 2048];
        let mut n = 0;
        while n < 2048 {
            table[n as usize] = ((1 << 16) / (n + START)) as u16;
            n += 1;
        }
        table
    };

    #[inline(always)]
    fn learn(&mut self, slope: i32) {
        let gain = Self::GAIN[self.seen as usize & 2047];
        let step = (slope as i64 * gain as i64) >> 16;
        self.octaves = (self.octaves + step as i32).clamp(-MOST, MOST);
        self.seen = (self.seen + 1).min(LIMIT);
    }
}

/// The factors of a matrix, and their product for the word at hand.
pub struct Scale {
    base: i32,
    row: Factor<3, 511>,
    columns: Vec<Factor<8, 511>>,
    positions: Vec<Factor<20, 2047>>,
    kernel: Factor<5, 255>,
    has_kernels: bool,
    /// Without the kernel's factor.
    outer: i32,
}

impl Scale {
    /// Nothing known but the scale of the whole.
    pub fn new(matrix: &Matrix, base: i32) -> Self {
        Self {
            base,
            row: Factor::default(),
            columns: vec![Factor::default(); matrix.n_columns()],
            positions: vec![Factor::default(); matrix.n_positions()],
            kernel: Factor::default(),
            has_kernels: matrix.has_kernels(),
            outer: 0,
        }
    }

    /// Forgets the last row's factor.
    pub fn start_row(&mut self) {
        self.row = Factor::default();
    }

    /// Forgets the last kernel's factor.
    #[inline(always)]
    pub fn start_kernel(&mut self) {
        self.kernel = Factor::default();
    }

    /// The factor of the kernel.
    #[inline(always)]
    pub fn kernel(&self) -> i32 {
        self.kernel.octaves
    }

    /// The level to expect of the next word.
    #[inline(always)]
    pub fn predict(&mut self, column: usize, position: usize) -> i32 {
        self.outer = self.base + self.row.octaves + self.columns[column].octaves + self.positions[position].octaves;
        self.outer + self.kernel.octaves
    }

    /// How far the level that came is above the scale without the kernel's factor.
    #[inline(always)]
    pub fn above(&self, level: i32) -> i32 {
        level - self.outer
    }

    /// The level that came after its prediction.
    #[inline(always)]
    pub fn learn(&mut self, column: usize, position: usize, level: i32) {
        let above = self.above(level);
        let outer = slope(above);
        self.row.learn(outer);
        self.columns[column].learn(outer);
        if self.has_kernels {
            self.positions[position].learn(outer);
            self.kernel.learn(slope(above - self.kernel.octaves));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_meet_at_whole_octaves() {
        assert_eq!([-13, -12, -1, 0, 1, 2].map(|z| exp2(z << 16)), [0, 1, 2048, 4096, 8192, 16384]);
        assert_eq!(exp2(1 << 15), 6144);
        assert_eq!(exp2(5 << 15), 6 << 12);
        assert_eq!(exp2(i32::MAX), 6 << 12);
        assert_eq!(exp2(i32::MIN), 0);
    }

    #[test]
    fn factors_find_the_scales_of_rows_and_columns() {
        let matrix = Matrix { columns: 8, positions: 1 };
        let mut scale = Scale::new(&matrix, 100 << 16);
        let level = |row: i32, column: i32| (100 << 16) + ((row % 3) << 15) - (column << 14);
        for row in 0..300 {
            scale.start_row();
            for column in 0..8 {
                let expected = scale.predict(column, 0);
                if row > 200 && column > 5 {
                    assert!((expected - level(row, column as i32)).abs() < 1 << 15, "{row} {column} {expected}");
                }
                scale.learn(column, 0, level(row, column as i32));
            }
        }
    }
}
