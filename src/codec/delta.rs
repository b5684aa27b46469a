//! Words as differences to those of a base, which the reader has too.
//!
//! An update moves a weight by a number of ulps that depends on its exponent. The base has nearly the same exponent, so it tells how large a
//! difference is to be expected: words are sorted into classes by the size of their base words, and each class has its own table.
//! Within a block, the words of a class lie together, so the loops that code symbols and planes know nothing of it.

pub mod cut;
pub mod decode;
pub mod difference;
pub mod encode;
pub mod fit;
pub mod grouping;
pub mod head;
pub mod number;

use crate::float::Layout;
use crate::simd::Isa;
use difference::differences;
use number::Word;

/// Mean bits of the sizes of differences between words and as many base words, in 1/16 bit.
pub fn mean_bits(layout: Layout, words: &[u8], base: &[u8]) -> u64 {
    match layout.word_bytes() {
        1 => mean_bits_of::<u8>(layout, words, base),
        2 => mean_bits_of::<u16>(layout, words, base),
        4 => mean_bits_of::<u32>(layout, words, base),
        _ => mean_bits_of::<u64>(layout, words, base),
    }
}

fn mean_bits_of<W: Word>(layout: Layout, words: &[u8], base: &[u8]) -> u64 {
    let mut of_words = vec![W::default(); W::all(words).len()];
    differences(Isa::SCALAR, layout.has_sign(), words, base, &mut of_words);
    let bits = |difference: &W| 64 - difference.signed().unsigned_abs().leading_zeros() as u64;
    of_words.iter().map(bits).sum::<u64>() * 16 / of_words.len().max(1) as u64
}

/// The mean, counted so, below which words are rather those of the base, changed, than others of the same kind: these have exponents of their own.
pub fn most_close_bits(layout: Layout) -> u64 {
    16 * match layout {
        Layout::Bf16 => 9,
        Layout::F16 => 12,
        Layout::F32 => 25,
        Layout::F64 => 54,
        Layout::F8 => 5,
        Layout::Byte | Layout::I16 | Layout::I32 | Layout::I64 => 4 * layout.word_bytes() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::decode::Decoder;
    use super::encode::{Plan, encode};
    use crate::codec::Spare;
    use crate::float::Layout;
    use crate::simd::Isa;
    use proptest::prelude::*;
    use std::ops::Range;

    /// Base words, and words that lie some way from them.
    fn pair(layout: Layout, n: usize, kind: u32, seed: u64) -> (Vec<u8>, Vec<u8>) {
        let width = layout.word_bytes();
        let mut x = seed | 1;
        let mut next = move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let (mut base, mut words) = (Vec::new(), Vec::new());
        for i in 0..n {
            let r = next();
            let value = ((r >> 40) as f32 / (1 << 23) as f32 - 1.0) * 2.0f32.powi(-(r as i32 & 7));
            let bits = match (kind & 7, layout) {
                (7, _) => r,
                (_, Layout::Bf16 | Layout::F16) => value.to_bits() as u64 >> 16,
                (_, Layout::F64) => (value as f64).to_bits(),
                (_, Layout::F8 | Layout::Byte) => value.to_bits() as u64 >> 22,
                _ => value.to_bits() as u64,
            };
            let size = next();
            let step = match kind >> 3 & 7 {
                0 => 0,
                1 => (size.is_multiple_of(40)) as u64,
                2 => (size & 15).wrapping_sub(8),
                3 => (size & 0xFFFF).wrapping_sub(1 << 15),
                4 => (size % 3).wrapping_sub(1) << 13,
                5 if (i / 5000).is_multiple_of(2) => 0,
                5 => size >> (size & 63),
                6 => size & 1 << 31,
                _ => size,
            };
            base.extend_from_slice(&bits.to_le_bytes()[..width]);
            words.extend_from_slice(&bits.wrapping_add(step).to_le_bytes()[..width]);
        }
        (base, words)
    }

    fn check(layout: Layout, n: usize, kind: u32, seed: u64, cut: (u32, u32)) {
        let (base, words) = pair(layout, n, kind, seed);
        let width = layout.word_bytes();
        let spare = Spare::default();
        let mut first = None;
        for isa in Isa::available() {
            let coded = encode(
                Plan {
                    layout,
                    isa,
                    spare: &spare,
                },
                &words,
                &base,
            );
            let decoder = Decoder::new(isa, layout, &coded.head, n, coded.body.len()).unwrap();
            let decode = |range: Range<usize>, base: &[u8]| {
                let parts: Vec<&[u8]> = decoder
                    .blocks_of(&range)
                    .map(|block| &coded.body[decoder.block_bytes(block)])
                    .collect();
                let base_words = decoder.base_of(&range);
                let mut out = vec![0xEE; range.len() * width];
                let base = &base[base_words.start * width..base_words.end * width];
                decoder.decode(&parts, base, &range, &mut out).map(|()| out)
            };
            assert!(decode(0..n, &base).unwrap() == words, "{layout:?} {isa}");
            let (a, b) = (cut.0 as usize % (n + 1), cut.1 as usize % (n + 1));
            let part = a.min(b)..a.max(b);
            assert!(decode(part.clone(), &base).unwrap() == words[part.start * width..part.end * width]);
            if n > 0 {
                let mut other = base.clone();
                other[cut.0 as usize % base.len()] ^= 1;
                assert!(decode(0..n, &other).unwrap_err().is_of_base);
            }
            let first = first.get_or_insert_with(|| {
                encode(
                    Plan {
                        layout,
                        isa,
                        spare: &spare,
                    },
                    &words,
                    &base,
                )
            });
            assert!(*first == coded, "{layout:?} {isa}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn chunks_come_back_whole_and_in_part(id in 0u8..9, n in prop_oneof![0usize..40, 0usize..3000, 60_000usize..140_000], kind in 0u32..64, seed: u64, cut in any::<(u32, u32)>()) {
            check(Layout::from_id(id).unwrap(), n, kind, seed, cut);
        }
    }

    #[test]
    fn long_blocks_come_back() {
        check(Layout::Bf16, 600_000, 8, 3, (100, 300_000));
    }

    #[test]
    fn what_does_not_change_takes_next_to_nothing() {
        let (base, _) = pair(Layout::Bf16, 1 << 20, 0, 1);
        let coded = encode(
            Plan {
                layout: Layout::Bf16,
                isa: Isa::SCALAR,
                spare: &Spare::default(),
            },
            &base,
            &base,
        );
        assert!(coded.body.is_empty() && coded.head.len() < 100);
    }
}
