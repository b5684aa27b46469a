//! AVX-512: sixteen states a register, a masked expand for the words.

use super::super::decode::{DecodeTable, Stream};
use super::super::encode::{EncodeTable, Encoder};
use super::super::{LANES, SCALE, STATE_MIN};
use super::scalar;
use std::arch::x86_64::*;

/// Words that one step may look at: each half loads sixteen, the second one from up to sixteen further on.
const REACH: usize = LANES;

/// One step of sixteen states; `words` points at sixteen readable ones. Returns states, entries and the number of words taken.
///
/// # Safety
/// 32 bytes at `words` must be readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
unsafe fn step(x: __m512i, table: &DecodeTable, words: *const u8) -> (__m512i, __m512i, usize) {
    let low12 = _mm512_set1_epi32((SCALE - 1) as i32);
    // SAFETY: indices are masked to the length of the table.
    let entry = unsafe { _mm512_i32gather_epi32::<4>(_mm512_and_si512(x, low12), table.0.as_ptr().cast()) };
    let freq = _mm512_and_si512(entry, low12);
    let offset = _mm512_and_si512(_mm512_srli_epi32::<12>(entry), low12);
    let y = _mm512_add_epi32(_mm512_mullo_epi32(freq, _mm512_srli_epi32::<12>(x)), offset);
    let low = _mm512_cmplt_epu32_mask(y, _mm512_set1_epi32(STATE_MIN as i32));
    // SAFETY: the caller's promise.
    let near = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(words.cast()) });
    let word = _mm512_maskz_expand_epi32(low, near);
    let x = _mm512_mask_or_epi32(y, low, _mm512_slli_epi32::<16>(y), word);
    (x, _mm512_srli_epi32::<24>(entry), low.count_ones() as usize)
}

/// Decodes `N` streams side by side; see [`super::decode`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
pub fn decode<const N: usize>(tables: [&DecodeTable; N], streams: [&mut Stream<'_>; N], symbols: [&mut [u8]; N]) -> bool {
    let n_steps = symbols.iter().map(|s| s.len() / LANES).min().unwrap_or(0);
    let mut x = [[_mm512_setzero_si512(); 2]; N];
    let mut at = [0usize; N];
    // The last byte offset at which a whole step may still read.
    let mut last = [0usize; N];
    let mut n_done = 0;
    let mut is_long = true;
    for k in 0..N {
        // SAFETY: 32 states are two registers.
        x[k] = unsafe {
            [
                _mm512_loadu_si512(streams[k].states.as_ptr().cast()),
                _mm512_loadu_si512(streams[k].states.as_ptr().add(16).cast()),
            ]
        };
        is_long &= streams[k].words.len() >= 2 * REACH;
        last[k] = streams[k].words.len().saturating_sub(2 * REACH);
    }
    if is_long {
        while n_done < n_steps && (0..N).all(|k| at[k] <= last[k]) {
            for k in 0..N {
                // SAFETY: `at ≤ last` leaves 64 bytes: 32 for the first half, which takes at most 32, and 32 for the second.
                // 32 symbols remain, since n_done < n_steps.
                unsafe {
                    let words = streams[k].words.as_ptr().add(at[k]);
                    let (x0, s0, n0) = step(x[k][0], tables[k], words);
                    let (x1, s1, n1) = step(x[k][1], tables[k], words.add(2 * n0));
                    x[k] = [x0, x1];
                    at[k] += 2 * (n0 + n1);
                    let out = symbols[k].as_mut_ptr().add(n_done * LANES);
                    _mm_storeu_si128(out.cast(), _mm512_cvtepi32_epi8(s0));
                    _mm_storeu_si128(out.add(16).cast(), _mm512_cvtepi32_epi8(s1));
                }
            }
            n_done += 1;
        }
    }
    let mut is_whole = true;
    for (k, (stream, out)) in streams.into_iter().zip(symbols).enumerate() {
        // SAFETY: as for loading.
        unsafe {
            _mm512_storeu_si512(stream.states.as_mut_ptr().cast(), x[k][0]);
            _mm512_storeu_si512(stream.states.as_mut_ptr().add(16).cast(), x[k][1]);
        }
        stream.words = &stream.words[at[k]..];
        is_whole &= decode_rest(tables[k], stream, &mut out[n_done * LANES..]);
    }
    is_whole
}

/// Decodes what one stream has left when another one, or its own words, ended the loop above.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
fn decode_rest(table: &DecodeTable, stream: &mut Stream<'_>, symbols: &mut [u8]) -> bool {
    if symbols.len() >= LANES && stream.words.len() >= 2 * REACH {
        return decode([table], [stream], [symbols]);
    }
    scalar::decode(table, stream, symbols)
}

/// Encodes `N` streams side by side; every reciprocal must be exact. See [`super::encode`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
pub fn encode<const N: usize>(tables: [&EncodeTable; N], symbols: [&[u8]; N], encoders: [&mut Encoder; N]) {
    // Longer streams get a start, so that all have the same number of whole steps left.
    let n_steps = symbols.iter().map(|symbols| symbols.len() / LANES).min().unwrap_or(0);
    let mut encoders = encoders;
    for k in 0..N {
        let (near, far) = symbols[k].split_at(n_steps * LANES);
        if N > 1 && far.len() >= LANES {
            encode([tables[k]], [far], [&mut *encoders[k]]);
        } else {
            scalar::encode(tables[k], far, encoders[k]);
        }
        // Sixteen words are stored at a time, of which the lower ones may be none of ours.
        assert!(encoders[k].at >= near.len() + LANES / 2);
    }
    let low12 = _mm512_set1_epi32((SCALE - 1) as i32);
    let low4 = _mm512_set1_epi32(15);
    let scale = _mm512_set1_epi32(SCALE as i32);
    let even_words = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd_words = _mm512_add_epi32(even_words, _mm512_set1_epi32(1));
    let mut at: [usize; N] = std::array::from_fn(|k| encoders[k].at);
    let words: [*mut u16; N] = std::array::from_fn(|k| encoders[k].words.as_mut_ptr());
    let mut x = [[_mm512_setzero_si512(); 2]; N];
    for k in 0..N {
        // SAFETY: 32 states are two registers.
        x[k] = unsafe {
            [
                _mm512_loadu_si512(encoders[k].states.as_ptr().cast()),
                _mm512_loadu_si512(encoders[k].states.as_ptr().add(16).cast()),
            ]
        };
    }
    for step in (0..n_steps).rev() {
        for half in [1, 0] {
            for k in 0..N {
                // SAFETY: 32 symbols remain for each step; gathers are indexed by bytes into tables of 256; each symbol adds at most one word,
                // and the assertion above leaves sixteen more below.
                unsafe {
                    let s = _mm512_cvtepu8_epi32(_mm_loadu_si128(symbols[k].as_ptr().add(step * LANES + 16 * half).cast()));
                    // Gathers cost by the element: two of eight wide entries rather than two of sixteen halves.
                    let entries = tables[k].entries.as_ptr().cast();
                    let below = _mm512_i32gather_epi64::<8>(_mm512_castsi512_si256(s), entries);
                    let above = _mm512_i32gather_epi64::<8>(_mm512_extracti64x4_epi64::<1>(s), entries);
                    let packed = _mm512_permutex2var_epi32(below, even_words, above);
                    let reciprocal = _mm512_permutex2var_epi32(below, odd_words, above);
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
    for (k, encoder) in encoders.into_iter().enumerate() {
        // SAFETY: as for loading.
        unsafe {
            _mm512_storeu_si512(encoder.states.as_mut_ptr().cast(), x[k][0]);
            _mm512_storeu_si512(encoder.states.as_mut_ptr().add(16).cast(), x[k][1]);
        }
        encoder.at = at[k];
    }
}
