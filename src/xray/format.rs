//! How the words of a float type are cut, and what they are worth.

use crate::dtype::Dtype;

/// Sign, exponent and mantissa of words, or of what is kept of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bytes of a word.
    pub word_bytes: usize,
    /// Bits of the exponent.
    pub exponent_bits: u32,
    /// Bits of the mantissa that are looked at.
    pub mantissa_bits: u32,
    /// Exponent of 1.0.
    bias: i32,
    specials: Specials,
}

/// Which words are no finite numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Specials {
    /// Those with the highest exponent, as IEEE 754 has it.
    HighestExponent,
    /// Those with all bits but the sign set.
    AllOnes,
    /// Negative zero.
    NegativeZero,
}

impl Format {
    /// The format of a dtype that is looked at.
    pub fn of(dtype: Dtype) -> Option<Self> {
        let new = |word_bytes, exponent_bits, mantissa_bits, bias, specials| Format {
            word_bytes,
            exponent_bits,
            mantissa_bits,
            bias,
            specials,
        };
        use Specials::{AllOnes, HighestExponent, NegativeZero};
        Some(match dtype {
            Dtype::BF16 => new(2, 8, 7, 127, HighestExponent),
            Dtype::F16 => new(2, 5, 10, 15, HighestExponent),
            // Its upper half, which is what BF16 would keep of it.
            Dtype::F32 => new(4, 8, 7, 127, HighestExponent),
            Dtype::F8_E4M3 => new(1, 4, 3, 7, AllOnes),
            Dtype::F8_E5M2 => new(1, 5, 2, 15, HighestExponent),
            Dtype::F8_E4M3FNUZ => new(1, 4, 3, 8, NegativeZero),
            Dtype::F8_E5M2FNUZ => new(1, 5, 2, 16, NegativeZero),
            _ => return None,
        })
    }

    /// The power of two that a stored exponent stands for.
    pub fn power(self, exponent: usize) -> i32 {
        exponent as i32 - self.bias
    }

    /// Bits of sign, exponent and mantissa.
    pub fn word_bits(self) -> u32 {
        1 + self.exponent_bits + self.mantissa_bits
    }

    /// Whether words are the upper part of longer ones.
    pub fn is_cut(self) -> bool {
        self.word_bytes > self.word_bits() as usize / 8
    }

    /// Words without a sign.
    pub fn n_magnitudes(self) -> usize {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    /// Magnitudes of finite words, which are those below; the rest are NaN or infinity.
    pub fn n_finite(self) -> usize {
        match self.specials {
            Specials::HighestExponent => self.n_magnitudes() - (1 << self.mantissa_bits),
            Specials::AllOnes => self.n_magnitudes() - 1,
            Specials::NegativeZero => self.n_magnitudes(),
        }
    }

    /// Whether a word is a finite number.
    pub fn is_finite(self, is_negative: bool, magnitude: usize) -> bool {
        magnitude < self.n_finite() && !(self.specials == Specials::NegativeZero && is_negative && magnitude == 0)
    }

    /// The value of a magnitude, also of the first that is not finite as if it were.
    pub fn value(self, magnitude: usize) -> f64 {
        let exponent = (magnitude >> self.mantissa_bits) as i32;
        let mantissa = (magnitude & ((1 << self.mantissa_bits) - 1)) as f64;
        let one = (1u64 << self.mantissa_bits) as f64;
        let (mantissa, exponent) = if exponent == 0 { (mantissa, 1) } else { (one + mantissa, exponent) };
        mantissa / one * f64::powi(2.0, exponent - self.bias)
    }

    /// The value that words of a magnitude stand for: where they are cut, the middle of what they were cut from.
    pub fn middle(self, magnitude: usize) -> f64 {
        if self.is_cut() && magnitude > 0 {
            (self.value(magnitude) + self.value(magnitude + 1)) / 2.0
        } else {
            self.value(magnitude)
        }
    }

    /// Where the numbers end that become this magnitude, those before it becoming the one below: between the two if numbers are rounded,
    /// at its value if they are cut.
    pub fn boundary(self, magnitude: usize) -> f64 {
        if magnitude == 0 {
            0.0
        } else if self.is_cut() {
            self.value(magnitude)
        } else {
            (self.value(magnitude - 1) + self.value(magnitude)) / 2.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_dtype() {
        for bits in (0..0x7F80u32).step_by(37) {
            let value = f32::from_bits(bits << 16) as f64;
            assert_eq!(Format::of(Dtype::BF16).unwrap().value(bits as usize), value);
            assert_eq!(Format::of(Dtype::F32).unwrap().value(bits as usize), value);
        }
        let value = |dtype, magnitude| Format::of(dtype).unwrap().value(magnitude);
        assert_eq!(value(Dtype::F16, 0x3C00), 1.0);
        assert_eq!(value(Dtype::F16, 0x7BFF), 65504.0);
        assert_eq!(value(Dtype::F16, 1), f64::powi(2.0, -24));
        assert_eq!(value(Dtype::F8_E4M3, 0x7E), 448.0);
        assert_eq!(value(Dtype::F8_E5M2, 0x7B), 57344.0);
        assert_eq!(value(Dtype::F8_E4M3FNUZ, 0x7F), 240.0);
        assert_eq!(value(Dtype::F8_E5M2FNUZ, 0x7F), 57344.0);
    }
}
