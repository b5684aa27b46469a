//! AVX2: eight states a register, a table of permutations for the words.

use super::super::decode::{DecodeTable, Stream};
use super::super::{LANES, SCALE};
use super::scalar;
use std::arch::x86_64::*;

/// Words that one step of 32 states may look at: each of four registers loads eight.
const REACH: usize = LANES;

/// For each set of lanes that take a word, the permutation that brings them words 0, 1, 2, … in order.
static EXPAND: [[u32; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut lane = 0;
        let mut n = 0;
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][lane] = n;
                n += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// One step of eight states. Returns states, entries and the number of words taken.
///
/// # Safety
/// 16 bytes at `words` must be readable.
#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
unsafe fn step(x: __m256i, table: &DecodeTable, words: *const u8) -> (__m256i, __m256i, usize) {
    let low12 = _mm256_set1_epi32((SCALE - 1) as i32);
    // SAFETY: indices are masked to the length of the table.
    let entry = unsafe { _mm256_i32gather_epi32::<4>(table.slots.as_ptr().cast(), _mm256_and_si256(x, low12)) };
    let freq = _mm256_and_si256(entry, low12);
    let offset = _mm256_and_si256(_mm256_srli_epi32::<12>(entry), low12);
    let y = _mm256_add_epi32(_mm256_mullo_epi32(freq, _mm256_srli_epi32::<12>(x)), offset);
    let low = _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(y), _mm256_setzero_si256());
    let mask = _mm256_movemask_ps(_mm256_castsi256_ps(low)) as usize;
    // SAFETY: the caller's promise; the mask has eight bits.
    let (near, order) = unsafe {
        (
            _mm256_cvtepu16_epi32(_mm_loadu_si128(words.cast())),
            _mm256_loadu_si256(EXPAND[mask].as_ptr().cast()),
        )
    };
    let word = _mm256_permutevar8x32_epi32(near, order);
    let refilled = _mm256_or_si256(_mm256_slli_epi32::<16>(y), word);
    (
        _mm256_blendv_epi8(y, refilled, low),
        _mm256_srli_epi32::<24>(entry),
        mask.count_ones() as usize,
    )
}

/// See [`super::decode`].
#[target_feature(enable = "avx2,bmi2,popcnt")]
pub fn decode(table: &DecodeTable, stream: &mut Stream<'_>, symbols: &mut [u8]) -> bool {
    let mut n_done = 0;
    if stream.words.len() >= 2 * REACH {
        let last = stream.words.len() - 2 * REACH;
        let mut at = 0;
        let mut x = [_mm256_setzero_si256(); 4];
        // SAFETY: 32 states are four registers.
        unsafe {
            for (k, x) in x.iter_mut().enumerate() {
                *x = _mm256_loadu_si256(stream.states.as_ptr().add(8 * k).cast());
            }
        }
        for out in symbols.chunks_exact_mut(LANES) {
            if at > last {
                break;
            }
            let mut s = [_mm256_setzero_si256(); 4];
            for k in 0..4 {
                let n;
                // SAFETY: `at` was at most `last` before this step, and the registers before this one took at most 16 bytes each of 64.
                (x[k], s[k], n) = unsafe { step(x[k], table, stream.words.as_ptr().add(at)) };
                at += 2 * n;
            }
            let pairs = [_mm256_packus_epi32(s[0], s[1]), _mm256_packus_epi32(s[2], s[3])];
            let bytes = _mm256_packus_epi16(pairs[0], pairs[1]);
            // Packing works within halves; this undoes its interleaving of groups of four.
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            // SAFETY: the chunk is 32 bytes.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes) };
            n_done += LANES;
        }
        // SAFETY: as for loading.
        unsafe {
            for (k, x) in x.iter().enumerate() {
                _mm256_storeu_si256(stream.states.as_mut_ptr().add(8 * k).cast(), *x);
            }
        }
        stream.words = &stream.words[at..];
    }
    scalar::decode(table, stream, &mut symbols[n_done..])
}
