//! Grouping by masked compressing and expanding: a step for each class, whose words of a register all move at once.

use super::{Grouping, MAX_CLASSES, SLACK_WORDS};
use std::arch::x86_64::*;

macro_rules! kernels {
    ($name:ident, $word:ty, $lanes:literal, $mask:ty, $load_numbers:expr, $compress:ident, $store:ident, $expand:ident) => {
        pub mod $name {
            use super::*;

            const LANES: usize = $lanes;
            const _: () = assert!(LANES <= SLACK_WORDS);

            /// See [`Grouping::group`]: whole registers only. Returns the number of words that are done.
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
            pub fn group(grouping: &Grouping, at: &mut [usize; MAX_CLASSES + 1], words: &[$word], out: &mut [$word]) -> usize {
                assert!(grouping.numbers.len() == words.len() && out.len() >= words.len());
                let n_whole = words.len() / LANES * LANES;
                for start in (0..n_whole).step_by(LANES) {
                    // SAFETY: a register's worth of words and of their numbers remains. No more words are stored of a class than the grouping has
                    // counted, so they end before those of the next one begin, and the last ones where all words do.
                    unsafe {
                        let numbers = $load_numbers(grouping.numbers.as_ptr().add(start));
                        let from = _mm512_loadu_si512(words.as_ptr().add(start).cast());
                        for class in 0..grouping.n_classes {
                            let mask = numbers(class as i8);
                            let n = mask.count_ones();
                            let packed = $compress(mask, from);
                            let stored = (((1u128 << n) - 1) as u64) as $mask;
                            $store(out.as_mut_ptr().add(at[class]).cast(), stored, packed);
                            at[class] += n as usize;
                        }
                    }
                }
                n_whole
            }

            /// See [`Grouping::ungroup`]: whole registers only. Returns the number of words that are done.
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
            pub fn ungroup(grouping: &Grouping, at: &mut [usize; MAX_CLASSES + 1], words: &[$word], out: &mut [$word]) -> usize {
                assert!(grouping.numbers.len() == out.len() && words.len() >= out.len() + SLACK_WORDS);
                let n_whole = out.len() / LANES * LANES;
                for start in (0..n_whole).step_by(LANES) {
                    // SAFETY: a register's worth of words and of numbers remains. The words of a class begin no later than all words end, and behind
                    // them lies a register's worth of slack.
                    unsafe {
                        let numbers = $load_numbers(grouping.numbers.as_ptr().add(start));
                        let mut to = _mm512_setzero_si512();
                        for class in 0..grouping.n_classes {
                            let mask = numbers(class as i8);
                            to = $expand(to, mask, _mm512_loadu_si512(words.as_ptr().add(at[class]).cast()));
                            at[class] += mask.count_ones() as usize;
                        }
                        _mm512_storeu_si512(out.as_mut_ptr().add(start).cast(), to);
                    }
                }
                n_whole
            }
        }
    };
}

/// For a class, the mask of the 64 words that are of it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn of_64(numbers: *const u8) -> impl Fn(i8) -> u64 {
    // SAFETY: the caller's promise of 64 numbers.
    let numbers = unsafe { _mm512_loadu_si512(numbers.cast()) };
    move |class| _mm512_cmpeq_epi8_mask(numbers, _mm512_set1_epi8(class))
}

/// The same for 32 words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn of_32(numbers: *const u8) -> impl Fn(i8) -> u32 {
    // SAFETY: the caller's promise of 32 numbers.
    let numbers = unsafe { _mm256_loadu_si256(numbers.cast()) };
    move |class| _mm256_cmpeq_epi8_mask(numbers, _mm256_set1_epi8(class))
}

/// The same for 16 words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn of_16(numbers: *const u8) -> impl Fn(i8) -> u16 {
    // SAFETY: the caller's promise of 16 numbers.
    let numbers = unsafe { _mm_loadu_si128(numbers.cast()) };
    move |class| _mm_cmpeq_epi8_mask(numbers, _mm_set1_epi8(class))
}

kernels!(
    bytes,
    u8,
    64,
    u64,
    of_64,
    _mm512_maskz_compress_epi8,
    _mm512_mask_storeu_epi8,
    _mm512_mask_expand_epi8
);
kernels!(
    halves,
    u16,
    32,
    u32,
    of_32,
    _mm512_maskz_compress_epi16,
    _mm512_mask_storeu_epi16,
    _mm512_mask_expand_epi16
);
kernels!(
    words,
    u32,
    16,
    u16,
    of_16,
    _mm512_maskz_compress_epi32,
    _mm512_mask_storeu_epi32,
    _mm512_mask_expand_epi32
);
