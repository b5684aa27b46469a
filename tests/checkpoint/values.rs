//! Values that tensors hold: distributions that a codec is made for, or that none is. The same seed gives the same bits on every machine.

use bigsmall::Dtype;

/// A generator of random bits: SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// A value close to normally distributed: a sum of twelve uniform ones, which unlike logarithms is the same on every machine.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.bits() >> 40) as f32).sum::<f32>() / (1 << 24) as f32 - 6.0
    }
}

/// A distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Weights of one scale.
    Normal,
    /// Weights whose rows differ in scale.
    RowScaled,
    /// One value, not zero.
    Constant,
    /// Zeros.
    Zeros,
    /// Zeros with some weights between.
    Sparse,
    /// At most sixteen values.
    Palette,
    /// Bits without any order.
    Random,
    /// Weights that a narrower format holds: of 16 and of 19 significant bits, in turns of rows.
    Widened,
    /// Integers one after the other.
    Sequential,
    /// Rows that resemble the row before.
    RowsAlike,
    /// NaNs with payloads, infinities, zeros of both signs, denormals and the largest values, among weights.
    Extremes,
}

impl Values {
    pub const ALL: [Values; 11] = [
        Values::Normal,
        Values::RowScaled,
        Values::Constant,
        Values::Zeros,
        Values::Sparse,
        Values::Palette,
        Values::Random,
        Values::Widened,
        Values::Sequential,
        Values::RowsAlike,
        Values::Extremes,
    ];

    /// The bytes of a tensor of `n` elements in rows of `row`.
    pub fn bytes(self, dtype: Dtype, n: u64, row: u64, seed: u64) -> Vec<u8> {
        // A complex number is two values.
        let (scalar, per_element) = if dtype == Dtype::C64 { (Dtype::F32, 2) } else { (dtype, 1) };
        let (n, row) = ((n * per_element) as usize, ((row * per_element) as usize).max(1));
        let width = scalar.bits();
        let mut random = Random(seed);
        let mut words: Vec<u64> = Vec::with_capacity(n);
        let palette: [f32; 16] = std::array::from_fn(|_| random.normal() * 0.02);
        for i in 0..n {
            let weight = random.normal() * 0.02;
            words.push(match self {
                Values::Normal => word(scalar, weight),
                Values::RowScaled => word(scalar, weight * [1.0, 0.125, 8.0, 0.5, 0.0625][i / row % 5]),
                Values::Constant => word(scalar, 0.75),
                Values::Zeros => 0,
                Values::Sparse if random.below(12) == 0 => word(scalar, weight),
                Values::Sparse => 0,
                Values::Palette => word(scalar, palette[random.below(16)]),
                Values::Random => random.bits(),
                Values::Widened => word(scalar, f32::from_bits(weight.to_bits() & [0xFFFF_0000, 0xFFFF_E000][i / row % 2])),
                Values::Sequential => 1000 + i as u64,
                Values::RowsAlike if i < row => word(scalar, weight),
                Values::RowsAlike => words[i - row].wrapping_add(random.bits() & 3),
                Values::Extremes => match random.below(8) {
                    0 => 1 << (width - 1),
                    1 => u64::MAX,
                    2 => random.bits() & 3,
                    3 => u64::MAX >> (65 - width),
                    4 => word(scalar, f32::INFINITY) | random.bits() & 1,
                    5 => word(scalar, f32::NEG_INFINITY),
                    _ => word(scalar, weight),
                },
            });
        }
        pack(&words, width)
    }
}

/// The bits of a weight in a scalar dtype. Floats of fewer bits are cut off; integers hold the weight in steps of a usual quantisation.
fn word(dtype: Dtype, weight: f32) -> u64 {
    let bits = weight.to_bits() as u64;
    let sign = bits >> 31;
    // With the exponent moved to that of a narrower format; what is out of range becomes zero or the largest exponent.
    let narrow = |exponent_bits: u32, mantissa_bits: u32| {
        let bias = (1i64 << (exponent_bits - 1)) - 1;
        let exponent = (bits >> 23 & 0xFF) as i64 - 127 + bias;
        let mantissa = bits >> (23 - mantissa_bits) & ((1 << mantissa_bits) - 1);
        let magnitude = match exponent {
            ..=0 => 0,
            _ => (exponent.min((1 << exponent_bits) - 1) as u64) << mantissa_bits | mantissa,
        };
        sign << (exponent_bits + mantissa_bits) | magnitude
    };
    let steps = |per_unit: f32| (weight * per_unit) as i64 as u64;
    match dtype {
        Dtype::F64 => (weight as f64 * 1.1).to_bits(),
        Dtype::F32 | Dtype::C64 => bits,
        Dtype::BF16 => bits >> 16,
        Dtype::F16 => narrow(5, 10),
        Dtype::F8_E5M2 | Dtype::F8_E5M2FNUZ => narrow(5, 2),
        Dtype::F8_E4M3 | Dtype::F8_E4M3FNUZ => narrow(4, 3),
        Dtype::F8_E8M0 => bits >> 23 & 0xFF,
        Dtype::F6_E3M2 => narrow(3, 2),
        Dtype::F6_E2M3 => narrow(2, 3),
        Dtype::F4 => narrow(2, 1),
        Dtype::BOOL => (weight > 0.01) as u64,
        Dtype::I8 => steps(1500.0),
        Dtype::U8 => steps(1500.0).wrapping_add(128),
        Dtype::I16 | Dtype::U16 => steps(50_000.0),
        Dtype::I32 | Dtype::U32 => steps(4e6),
        Dtype::I64 | Dtype::U64 => steps(1e9),
    }
}

/// Words of `width` bits, one after the other, lowest bits first.
fn pack(words: &[u64], width: u32) -> Vec<u8> {
    if width.is_multiple_of(8) {
        return words
            .iter()
            .flat_map(|word| word.to_le_bytes().into_iter().take(width as usize / 8))
            .collect();
    }
    let mut bytes = vec![0u8; (words.len() * width as usize).div_ceil(8)];
    for bit in 0..words.len() * width as usize {
        let value = words[bit / width as usize] >> (bit % width as usize) & 1;
        bytes[bit / 8] |= (value as u8) << (bit % 8);
    }
    bytes
}
