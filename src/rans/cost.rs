//! What a symbol costs, in integers, so that every machine makes the same choices.

use super::{FreqTable, SCALE, SCALE_BITS};
use std::sync::LazyLock;

/// Costs are counted in 1/1024 bit.
pub const ONE_BIT: u64 = 1024;

/// A patch: 16 bits of position, 16 of key, and the symbol that stands in its place.
pub const PATCH: u64 = 36 * ONE_BIT;

/// Binary logarithm of `x` ≥ 1 in 1/1024, rounded down, by repeated squaring.
fn log2_fixed(x: u32) -> u32 {
    let integer = x.ilog2();
    let mut y = (x as u64) << (31 - integer); // in [2^31, 2^32), a number in [1, 2)
    let mut fraction = 0;
    for _ in 0..10 {
        y = (y * y) >> 31;
        fraction <<= 1;
        if y >= 1 << 32 {
            fraction |= 1;
            y >>= 1;
        }
    }
    integer << 10 | fraction
}

static COST_OF_FREQUENCY: LazyLock<Vec<u16>> = LazyLock::new(|| {
    let mut costs = vec![PATCH as u16];
    costs.extend((1..=SCALE).map(|f| ((SCALE_BITS << 10) - log2_fixed(f)) as u16));
    costs
});

/// The cost of each symbol under `table`; one without frequency costs a patch.
pub fn symbol_costs(table: &FreqTable) -> [u16; 256] {
    std::array::from_fn(|s| COST_OF_FREQUENCY[table.freq(s as u8) as usize])
}

/// The cost of symbols counted by `counts`.
pub fn total(counts: &[u32; 256], costs: &[u16; 256]) -> u64 {
    counts.iter().zip(costs).map(|(&n, &c)| n as u64 * c as u64).sum()
}

/// The least that any table can make `counts` cost: their order-0 entropy.
pub fn entropy(counts: &[u32]) -> u64 {
    let n: u64 = counts.iter().map(|&c| c as u64).sum();
    if n == 0 {
        return 0;
    }
    let log = |x: u64| {
        // 32 bits are precise enough for a logarithm in 1/1024.
        let shift = (64 - x.leading_zeros()).saturating_sub(32);
        (log2_fixed((x >> shift) as u32) + (shift << 10)) as u64
    };
    let log_n = log(n);
    counts.iter().filter(|&&c| c > 0).map(|&c| c as u64 * (log_n - log(c as u64))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_reals() {
        for x in [1u32, 2, 3, 5, 100, 4095, 4096, u32::MAX] {
            let exact = (x as f64).log2() * 1024.0;
            assert!((exact - log2_fixed(x) as f64).abs() < 1.5, "{x}");
        }
    }
}
