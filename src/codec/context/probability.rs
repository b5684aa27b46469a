//! A probability learned from the decisions it was used for.

use super::range::Coder;

/// Decisions after which a probability stops getting slower to move.
const LIMIT: u32 = 511;

/// 2^16 / (n + 1.5).
static RATE: [u16; LIMIT as usize + 1] = {
    let mut table = [0; LIMIT as usize + 1];
    let mut n = 0;
    while n <= LIMIT {
        table[n as usize] = ((1 << 17) / (2 * n + 3)) as u16;
        n += 1;
    }
    table
};

/// The probability of true, 22 bits, and below it how many decisions it has seen, 10 bits.
#[derive(Clone, Copy)]
pub struct Probability(u32);

impl Probability {
    /// As likely as not, nothing seen.
    pub const EVEN: Probability = Probability(1 << 31);

    /// The upper 12 bits of the probability.
    #[inline(always)]
    pub fn twelfth(self) -> usize {
        (self.0 >> 20) as usize
    }

    /// Moves towards the decision made.
    #[inline(always)]
    pub fn learn(&mut self, bit: bool) {
        let (p, seen) = ((self.0 >> 10) as i64, self.0 & 1023);
        let goal = if bit { (1 << 22) - 1 } else { 0 };
        let p = p + (((goal - p) * RATE[seen.min(LIMIT) as usize] as i64) >> 16);
        self.0 = (p as u32) << 10 | (seen + 1).min(LIMIT);
    }

    /// Codes a decision with this probability alone.
    #[inline(always)]
    pub fn code<C: Coder>(&mut self, coder: &mut C, bit: bool) -> bool {
        let bit = coder.decide((self.0 >> 16).clamp(32, 65_504), bit);
        self.learn(bit);
        bit
    }
}
