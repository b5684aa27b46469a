//! A chunk word by word: what each row says of itself, then its words.

use super::mean::{Mean, Spot};
use super::probability::Probability;
use super::range::Coder;
use super::scale::{Scale, exp2};
use super::word::{Expected, Word};
use super::words::Words;
use super::{MOST_PLACES, Part};

/// Codes words with a sign, `E` bits of exponent and `M` of mantissa.
pub struct Model<const E: u32, const M: u32> {
    word: Word<E, M>,
    /// Whether a row has zeros, given whether the row before had.
    has_zeros: [Probability; 2],
    /// Zero bits at the end of all words of a row, given those of the row before, highest bit first.
    trailing: Vec<[Probability; 64]>,
    /// Whether a word is zero, given whether the two before it and the two above it are.
    is_zero: [Probability; 16],
    row: Row,
}

/// What a row says of itself.
#[derive(Clone, Copy, Default)]
struct Row {
    has_zeros: bool,
    n_trailing: u32,
}

impl<const E: u32, const M: u32> Model<E, M> {
    /// Nothing learned. Tables take over after the first `n_mixed` words if there are more.
    pub fn new(n_mixed: usize, n_words: usize) -> Self {
        Self {
            word: Word::new(n_mixed, n_words),
            has_zeros: [Probability::EVEN; 2],
            trailing: vec![[Probability::EVEN; 64]; 64],
            is_zero: [Probability::EVEN; 16],
            row: Row::default(),
        }
    }

    /// Codes the words of a part, the first of which is word `first` of the chunk.
    pub fn part<C: Coder>(&mut self, coder: &mut C, part: &Part, first: usize, words: &mut impl Words) {
        let matrix = &part.matrix;
        let base = if C::ENCODES {
            Self::base(first..first + part.words, words)
        } else {
            0
        };
        let base = coder.raw(16, base) as i32;
        let mut scale = Scale::new(matrix, base << 12);
        let mut mean = Mean::new(matrix);
        let mut zeros_above = vec![0u8; matrix.n_places()];

        let row_words = matrix.row_words();
        let mut place = part.start % row_words;
        let (mut i, end) = (first, first + part.words);
        for row in 0.. {
            if i == end {
                break;
            }
            let n = (row_words - place).min(end - i);
            self.row = self.start_row(coder, i..i + n, words);
            scale.start_row();
            mean.start_row();
            scale.start_kernel();
            mean.start_kernel();
            let mut zeros_before = 0u8;
            let (mut column, mut position) = (place / matrix.positions, place % matrix.positions);
            for i in i..i + n {
                let (known_place, known_column) = (place % MOST_PLACES, column % MOST_PLACES);
                self.word.start();
                let mut word = words.get(i);
                let mut is_zero = false;
                if self.row.has_zeros {
                    let above = &mut zeros_above[known_place];
                    is_zero = self.is_zero[(*above << 2 | zeros_before) as usize].code(coder, word == 0);
                    *above = (*above << 1 | is_zero as u8) & 3;
                    zeros_before = (zeros_before << 1 | is_zero as u8) & 3;
                }
                if is_zero {
                    word = 0;
                } else {
                    let spot = Spot {
                        row,
                        column,
                        position,
                        place: known_place,
                    };
                    let level = scale.predict(known_column, position);
                    let mut expected = Expected {
                        level,
                        mean: mean.predict(spot),
                        n_trailing: self.row.n_trailing,
                    };
                    if matrix.has_kernels() {
                        expected.mean = (expected.mean * exp2(-scale.kernel())) >> 12;
                    }
                    word = self.word.code(coder, expected, word);
                    let level = Word::<E, M>::level(word);
                    mean.learn(spot, Word::<E, M>::value(word, scale.above(level)));
                    scale.learn(known_column, position, level);
                }
                words.set(i, word);
                place += 1;
                position += 1;
                if position == matrix.positions {
                    (column, position) = (column + 1, 0);
                    scale.start_kernel();
                    mean.start_kernel();
                }
            }
            place = 0;
            i += n;
        }
    }

    /// Codes what a row says of itself.
    fn start_row<C: Coder>(&mut self, coder: &mut C, row: std::ops::Range<usize>, words: &impl Words) -> Row {
        let (mut has_zeros, mut ones) = (false, 0);
        if C::ENCODES {
            for i in row {
                has_zeros |= words.get(i) == 0;
                ones |= words.get(i);
            }
        }
        let most = Word::<E, M>::LOW;
        let n_trailing = ones.trailing_zeros().min(most) as usize;
        let tree = &mut self.trailing[self.row.n_trailing as usize];
        let mut node = 1;
        for i in (0..6).rev() {
            node = node << 1 | tree[node].code(coder, n_trailing >> i & 1 == 1) as usize;
        }
        Row {
            has_zeros: self.has_zeros[self.row.has_zeros as usize].code(coder, has_zeros),
            n_trailing: (node as u32 - 64).min(most),
        }
    }

    /// The mean level of words that are not zero and half an octave, in 16ths of an octave.
    fn base(range: std::ops::Range<usize>, words: &impl Words) -> u32 {
        let (mut sum, mut n) = (0, 0);
        for level in range.map(|i| Word::<E, M>::level(words.get(i)) as u64).filter(|&level| level > 0) {
            sum += level;
            n += 1;
        }
        ((sum / n.max(1) + (1 << 15)) >> 12).min(0xFFFF) as u32
    }
}
