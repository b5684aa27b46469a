//! Encoding: entries from registers where the alphabet is narrow, a masked compress for the words.

use super::super::super::encode::NarrowEntries;
use super::super::super::{LANES, SCALE};
use super::super::{Encoding, scalar};
use std::arch::x86_64::*;

/// Where the entries of symbols come from.
trait Entries: Copy {
    /// The low and the high halves of the entries of sixteen symbols.
    ///
    /// # Safety
    /// The symbols are below 256, and the machine has the instructions of this module.
    unsafe fn of(self, symbols: __m512i) -> (__m512i, __m512i);
}

/// Entries in memory.
#[derive(Clone, Copy)]
struct Gathered<'a>(&'a [u64; 256]);

impl Entries for Gathered<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
    unsafe fn of(self, symbols: __m512i) -> (__m512i, __m512i) {
        let even_words = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd_words = _mm512_add_epi32(even_words, _mm512_set1_epi32(1));
        let entries = self.0.as_ptr().cast();
        // Gathers cost by the element: two of eight wide entries rather than two of sixteen halves.
        // SAFETY: the caller's promise.
        let (below, above) = unsafe {
            (
                _mm512_i32gather_epi64::<8>(_mm512_castsi512_si256(symbols), entries),
                _mm512_i32gather_epi64::<8>(_mm512_extracti64x4_epi64::<1>(symbols), entries),
            )
        };
        (
            _mm512_permutex2var_epi32(below, even_words, above),
            _mm512_permutex2var_epi32(below, odd_words, above),
        )
    }
}

/// Entries in `R` registers for each half: those of 64 symbols or 128.
#[derive(Clone, Copy)]
struct Permuted<const R: usize> {
    packed: [__m512i; R],
    reciprocals: [__m512i; R],
}

impl<const R: usize> Permuted<R> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
    fn new(table: &NarrowEntries) -> Self {
        // SAFETY: 16 values are a register.
        let load = |values: &[u32; 128]| std::array::from_fn(|i| unsafe { _mm512_loadu_si512(values[16 * i..][..16].as_ptr().cast()) });
        Permuted {
            packed: load(&table.packed),
            reciprocals: load(&table.reciprocals),
        }
    }
}

impl<const R: usize> Entries for Permuted<R> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
    unsafe fn of(self, symbols: __m512i) -> (__m512i, __m512i) {
        // Permutes look at the low five bits of an index, blends at the sixth and seventh.
        let is_odd = _mm512_test_epi32_mask(symbols, _mm512_set1_epi32(32));
        let is_above = _mm512_test_epi32_mask(symbols, _mm512_set1_epi32(64));
        let pick = |values: [__m512i; R]| {
            let pick = |at: usize| {
                let even = _mm512_permutex2var_epi32(values[at], symbols, values[at + 1]);
                _mm512_mask_mov_epi32(even, is_odd, _mm512_permutex2var_epi32(values[at + 2], symbols, values[at + 3]))
            };
            if R > 4 {
                _mm512_mask_mov_epi32(pick(0), is_above, pick(4))
            } else {
                pick(0)
            }
        };
        (pick(self.packed), pick(self.reciprocals))
    }
}

/// Encodes `N` streams side by side; every reciprocal must be exact. See [`super::super::encode_together`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
pub fn encode<const N: usize>(mut streams: [Encoding<'_, '_>; N]) {
    // Longer streams get a start, so that all have the same number of whole steps left.
    let n_steps = streams.iter().map(|(_, symbols, _)| symbols.len() / LANES).min().unwrap_or(0);
    for (table, symbols, encoder) in &mut streams {
        let (near, far) = symbols.split_at(n_steps * LANES);
        if N > 1 && far.len() >= LANES {
            encode([(*table, far, &mut **encoder)]);
        } else {
            scalar::encode(table, far, encoder);
        }
        *symbols = near;
        // What is left adds one word a symbol at most.
        assert!(encoder.at >= near.len());
    }
    let tables = streams.each_ref().map(|(table, ..)| *table);
    let narrow = |may_be_wide: bool| {
        let found = tables.map(|table| table.narrow.as_ref().filter(|narrow| may_be_wide || narrow.is_half));
        found
            .iter()
            .all(Option::is_some)
            .then(|| found.map(|narrow| narrow.expect("all are there")))
    };
    if let Some(entries) = narrow(false) {
        // SAFETY: the assertion above; this function has the same instructions.
        unsafe { encode_steps(entries.map(|table| Permuted::<4>::new(table)), streams) }
    } else if let Some(entries) = narrow(true) {
        // SAFETY: as above.
        unsafe { encode_steps(entries.map(|table| Permuted::<8>::new(table)), streams) }
    } else {
        // SAFETY: as above.
        unsafe { encode_steps(tables.map(|table| Gathered(&table.entries)), streams) }
    }
}

/// Encodes whole steps of `N` streams of the same length.
///
/// # Safety
/// Each encoder has room for one word a symbol, and the machine the instructions of this module.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
unsafe fn encode_steps<const N: usize, E: Entries>(entries: [E; N], mut streams: [Encoding<'_, '_>; N]) {
    let n_steps = streams.iter().map(|(_, symbols, _)| symbols.len() / LANES).min().unwrap_or(0);
    let low12 = _mm512_set1_epi32((SCALE - 1) as i32);
    let low4 = _mm512_set1_epi32(15);
    let scale = _mm512_set1_epi32(SCALE as i32);
    let mut at: [usize; N] = std::array::from_fn(|k| streams[k].2.at);
    let words: [*mut u16; N] = std::array::from_fn(|k| streams[k].2.words.as_mut_ptr());
    let mut x = [[_mm512_setzero_si512(); 2]; N];
    for k in 0..N {
        // SAFETY: 32 states are two registers.
        x[k] = unsafe {
            [
                _mm512_loadu_si512(streams[k].2.states.as_ptr().cast()),
                _mm512_loadu_si512(streams[k].2.states.as_ptr().add(16).cast()),
            ]
        };
    }
    for step in (0..n_steps).rev() {
        for half in [1, 0] {
            for k in 0..N {
                // SAFETY: 32 symbols remain for each step; each symbol adds at most one word, for which the caller promises room.
                unsafe {
                    let s = _mm512_cvtepu8_epi32(_mm_loadu_si128(streams[k].1.as_ptr().add(step * LANES + 16 * half).cast()));
                    let (packed, reciprocal) = entries[k].of(s);
                    let freq = _mm512_and_si512(_mm512_srli_epi32::<4>(packed), low12);
                    let y = x[k][half];
                    let high = _mm512_cmpge_epu32_mask(_mm512_srli_epi32::<20>(y), freq);
                    let n = high.count_ones() as usize;
                    let out = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(high, y));
                    at[k] -= n;
                    _mm256_mask_storeu_epi16(words[k].add(at[k]).cast(), ((1u32 << n) - 1) as u16, out);
                    let y = _mm512_mask_srli_epi32::<16>(y, high, y);
                    let even = _mm512_srli_epi64::<32>(_mm512_mul_epu32(y, reciprocal));
                    let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(y), _mm512_srli_epi64::<32>(reciprocal));
                    let q = _mm512_srlv_epi32(_mm512_mask_blend_epi32(0xAAAA, even, odd), _mm512_and_si512(packed, low4));
                    let bias = _mm512_srli_epi32::<16>(packed);
                    x[k][half] = _mm512_add_epi32(_mm512_add_epi32(y, bias), _mm512_mullo_epi32(q, _mm512_sub_epi32(scale, freq)));
                }
            }
        }
    }
    for (k, (_, _, encoder)) in streams.into_iter().enumerate() {
        // SAFETY: as for loading.
        unsafe {
            _mm512_storeu_si512(encoder.states.as_mut_ptr().cast(), x[k][0]);
            _mm512_storeu_si512(encoder.states.as_mut_ptr().add(16).cast(), x[k][1]);
        }
        encoder.at = at[k];
    }
}
