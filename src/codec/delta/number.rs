//! Words as numbers whose differences are small where the floats are close.

use crate::float::Layout;

/// A word of 1, 2, 4 or 8 bytes as an unsigned integer.
pub trait Word: Copy + Default + Eq + Send + Sync + 'static {
    /// A word in memory.
    type Bytes: Copy;
    /// Its bits.
    const BITS: u32;
    /// The words in `bytes`, whose length is a multiple of theirs.
    fn all(bytes: &[u8]) -> &[Self::Bytes];
    /// The same, to be written.
    fn all_mut(bytes: &mut [u8]) -> &mut [Self::Bytes];
    /// From memory.
    fn get(bytes: Self::Bytes) -> Self;
    /// To memory.
    fn put(self) -> Self::Bytes;
    /// The low bits of `x`.
    fn of(x: u64) -> Self;
    /// With zeros above.
    fn widened(self) -> u64;
    /// As a signed integer.
    fn signed(self) -> i64 {
        (self.widened() << (64 - Self::BITS)) as i64 >> (64 - Self::BITS)
    }
    /// The ordered number of a word with a sign; its own inverse.
    fn ordered(self) -> Self;
    /// How far `self` lies from `base`, away from zero being positive if words have a sign.
    fn difference<const SIGN: bool>(self, base: Self) -> Self;
    /// The word that lies `difference` from `self`.
    fn moved<const SIGN: bool>(self, difference: Self) -> Self;
    /// Shifts right, the sign bit coming in from the left.
    fn shifted(self, bits: u32) -> Self;
    /// The low byte of `self − lo`, and whether that is all of it.
    fn symbol(self, lo: Self) -> (u8, bool);
    /// `((lo + symbol) << raw_bits | raw) << zeros`.
    fn of_parts(lo: Self, symbol: u8, raw_bits: u32, raw: Self, zeros: u32) -> Self;
    /// `self << by | low`, where these bits are zero.
    fn above(self, by: u32, low: u8) -> Self;
    /// The low byte of `self >> by`.
    fn byte(self, by: u32) -> u8;
    /// The bits that are set in any of the two.
    fn or(self, other: Self) -> Self;
    /// The low byte of `self >> by`, with no more bits than `mask` has.
    fn context(self, by: u32, mask: u8) -> u8;
}

macro_rules! word {
    ($word:ty, $signed:ty) => {
        impl Word for $word {
            type Bytes = [u8; size_of::<$word>()];
            const BITS: u32 = <$word>::BITS;

            fn all(bytes: &[u8]) -> &[Self::Bytes] {
                bytes.as_chunks().0
            }

            fn all_mut(bytes: &mut [u8]) -> &mut [Self::Bytes] {
                bytes.as_chunks_mut().0
            }

            #[inline(always)]
            fn get(bytes: Self::Bytes) -> Self {
                <$word>::from_le_bytes(bytes)
            }

            #[inline(always)]
            fn put(self) -> Self::Bytes {
                self.to_le_bytes()
            }

            #[inline(always)]
            fn of(x: u64) -> Self {
                x as $word
            }

            #[inline(always)]
            fn widened(self) -> u64 {
                self as u64
            }

            #[inline(always)]
            fn ordered(self) -> Self {
                const SIGN: $word = 1 << (<$word>::BITS - 1);
                if self > SIGN { SIGN.wrapping_sub(self) } else { self }
            }

            #[inline(always)]
            fn difference<const SIGN: bool>(self, base: Self) -> Self {
                if !SIGN {
                    return self.wrapping_sub(base);
                }
                let d = self.ordered().wrapping_sub(base.ordered());
                if (base as $signed) < 0 { d.wrapping_neg() } else { d }
            }

            #[inline(always)]
            fn moved<const SIGN: bool>(self, difference: Self) -> Self {
                if !SIGN {
                    return self.wrapping_add(difference);
                }
                let d = if (self as $signed) < 0 {
                    difference.wrapping_neg()
                } else {
                    difference
                };
                self.ordered().wrapping_add(d).ordered()
            }

            #[inline(always)]
            fn shifted(self, bits: u32) -> Self {
                (self as $signed >> bits) as $word
            }

            #[inline(always)]
            fn symbol(self, lo: Self) -> (u8, bool) {
                let symbol = self.wrapping_sub(lo);
                (symbol as u8, symbol as u64 <= 0xFF)
            }

            #[inline(always)]
            fn of_parts(lo: Self, symbol: u8, raw_bits: u32, raw: Self, zeros: u32) -> Self {
                (lo.wrapping_add(symbol as $word) << raw_bits | raw) << zeros
            }

            #[inline(always)]
            fn above(self, by: u32, low: u8) -> Self {
                // In two steps, since eight bits of a byte are all that there are.
                self << (by - 1) << 1 | low as $word
            }

            #[inline(always)]
            fn byte(self, by: u32) -> u8 {
                (self >> by) as u8
            }

            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }

            #[inline(always)]
            fn context(self, by: u32, mask: u8) -> u8 {
                (self >> by) as u8 & mask
            }
        }
    };
}

word!(u8, i8);
word!(u16, i16);
word!(u32, i32);
word!(u64, i64);

/// Where the context of a base word lies: the bits below it, and the bits of the byte there that belong to it.
pub fn context_of(layout: Layout) -> (u32, u8) {
    match layout {
        Layout::F8 => (0, 0x7F),
        Layout::Bf16 | Layout::F16 => (7, 0xFF),
        Layout::F32 => (23, 0xFF),
        Layout::F64 => (52, 0xFF),
        Layout::Byte | Layout::I16 | Layout::I32 | Layout::I64 => (0, 0),
    }
}

/// Small numbers of either sign as small numbers.
pub fn zigzag(x: i64) -> u64 {
    (x << 1 ^ x >> 63) as u64
}

/// The inverse of [`zigzag`].
pub fn unzigzag(x: u64) -> i64 {
    (x >> 1) as i64 ^ -((x & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<W: Word + std::fmt::Debug>(a: u64, b: u64) {
        let (a, b) = (W::of(a), W::of(b));
        assert_eq!(a.ordered().ordered(), a);
        assert_eq!(b.moved::<true>(a.difference::<true>(b)), a);
        assert_eq!(b.moved::<false>(a.difference::<false>(b)), a);
        assert_eq!(W::of(a.signed() as u64), a);
    }

    #[test]
    fn all_words_of_two_bytes_are_ordered_as_their_floats_are() {
        let mut ordered: Vec<(i64, f32)> = (0..=u16::MAX)
            .map(|x| (x.ordered().signed(), f32::from_bits((x as u32) << 16)))
            .filter(|(_, value)| !value.is_nan())
            .collect();
        ordered.sort_by_key(|(number, _)| *number);
        // The first is −0.
        assert!(ordered[0].1 == 0.0 && ordered[1..].is_sorted_by(|a, b| a.1 < b.1));
        for (a, b) in (0..=u16::MAX).map(|x| (x, x.wrapping_mul(40_503))) {
            check::<u16>(a as u64, b as u64);
            check::<u8>(a as u64, b as u64);
        }
    }

    proptest! {
        #[test]
        fn differences_lead_back(a: u64, b: u64, x: i64) {
            check::<u32>(a, b);
            check::<u64>(a, b);
            check::<u32>(1 << 31, b);
            check::<u64>(a, 1 << 63);
            prop_assert_eq!(unzigzag(zigzag(x)), x);
        }
    }
}
