//! Two learned probabilities for each decision, and their mixture.
//!
//! Both are turned into log odds, added with weights, and turned back; the weights move so that the mixture would have been better.

use super::probability::Probability;
use super::range::Coder;

/// 2^16 / (1 + e^−x) at x = −8, −7.5 … 8.
const LOGISTIC: [u32; 33] = [
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565, 62428,
    63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
];

/// 2^16 times the probability at log odds `x` / 256, −2048 … 2047: straight lines between the points of [`LOGISTIC`].
const fn squash(x: i32) -> u32 {
    let (i, f) = (((x + 2048) >> 7) as usize, (x & 127) as u32);
    (LOGISTIC[i] * (128 - f) + LOGISTIC[i + 1] * f + 64) >> 7
}

/// [`squash`] of the index less 2048.
static SQUASH: [u16; 4096] = {
    let mut table = [0; 4096];
    let mut i = 0;
    while i < 4096 {
        table[i] = squash(i as i32 - 2048) as u16;
        i += 1;
    }
    table
};

/// For a probability in 2^12ths, the least log odds from −2047 to 2047 that [`squash`] makes as likely, or 2047.
static STRETCH: [i16; 4096] = {
    let mut table = [2047; 4096];
    let (mut p, mut x) = (0, -2047);
    while x <= 2047 {
        while p <= (squash(x) >> 4) as usize {
            table[p] = x as i16;
            p += 1;
        }
        x += 1;
    }
    table
};

/// Decisions of `NODES` kinds, each with a probability in two contexts.
pub struct Mixer<const NODES: usize> {
    first: Vec<[Probability; NODES]>,
    second: Vec<[Probability; NODES]>,
    /// 16 fraction bits.
    weights: [[i32; 2]; NODES],
}

impl<const NODES: usize> Mixer<NODES> {
    /// Nothing learned yet, in so many first and second contexts.
    pub fn new(n_first: usize, n_second: usize) -> Self {
        Self {
            first: vec![[Probability::EVEN; NODES]; n_first],
            second: vec![[Probability::EVEN; NODES]; n_second],
            weights: [[5 << 13; 2]; NODES],
        }
    }

    /// Codes a decision of kind `node`.
    #[inline(always)]
    pub fn code<C: Coder>(&mut self, coder: &mut C, (first, second): (usize, usize), node: usize, bit: bool) -> bool {
        let (a, b) = (&mut self.first[first][node], &mut self.second[second][node]);
        let weights = &mut self.weights[node];
        let (x, y) = (STRETCH[a.twelfth()] as i32, STRETCH[b.twelfth()] as i32);
        let odds = (weights[0] as i64 * x as i64 + weights[1] as i64 * y as i64) >> 16;
        let one = SQUASH[(odds.clamp(-2047, 2047) + 2048) as usize] as u32;
        let bit = coder.decide(one, bit);
        let error = ((bit as i32) << 16) - one as i32;
        // Weights stay far within 32 bits: rounding moves one by at most 1 a time, and beyond that it grows only while the odds are not at
        // their limit, which they are at any input but 0 once it exceeds 2^27.
        weights[0] += (x * error) >> 15;
        weights[1] += (y * error) >> 15;
        a.learn(bit);
        b.learn(bit);
        bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretch_undoes_squash() {
        for x in -2047..=2047 {
            let p = squash(x);
            assert!((1..65_536).contains(&p));
            let back = STRETCH[(p >> 4) as usize] as i32;
            assert!(squash(back) >> 4 == p >> 4 && back <= x);
        }
        assert!(STRETCH.is_sorted());
    }
}
