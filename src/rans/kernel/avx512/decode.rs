//! Decoding: a search in registers where the alphabet is narrow, a masked expand for the words.

use super::super::super::decode::{DecodeTable, Stream};
use super::super::super::search::SearchTable;
use super::super::super::{LANES, SCALE, STATE_MIN};
use super::super::{Decoding, scalar};
use std::arch::x86_64::*;

/// Repeats a block for each of up to four streams: a loop would keep their states in memory.
macro_rules! for_each_stream {
    ($k:ident < $n:ident, $body:block) => {
        for_each_stream!($k < $n, $body, 0 1 2 3)
    };
    ($k:ident < $n:ident, $body:block, $($index:literal)*) => {
        $(if $index < $n {
            let $k = $index;
            $body
        })*
    };
}

/// Words that one step looks at.
const REACH: usize = LANES;

/// What the slots of 32 states say.
struct Found {
    freqs: [__m512i; 2],
    /// How far into its symbol's slots each slot lies.
    offsets: [__m512i; 2],
    symbols: __m256i,
}

/// Where it is looked up.
trait Slots: Copy {
    /// Looks up the slots in the low twelve bits of the states.
    ///
    /// # Safety
    /// The machine has the instructions of this module.
    unsafe fn of(self, x: [__m512i; 2]) -> Found;
}

/// Every slot has an entry in memory.
#[derive(Clone, Copy)]
struct Gathered<'a>(&'a DecodeTable);

impl Slots for Gathered<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
    unsafe fn of(self, x: [__m512i; 2]) -> Found {
        let low12 = _mm512_set1_epi32((SCALE - 1) as i32);
        // SAFETY: indices are masked to the length of the table.
        let entries = x.map(|x| unsafe { _mm512_i32gather_epi32::<4>(_mm512_and_si512(x, low12), self.0.slots.as_ptr().cast()) });
        let symbol_of = |entry| _mm512_cvtepi32_epi8(_mm512_srli_epi32::<24>(entry));
        Found {
            freqs: entries.map(|entry| _mm512_and_si512(entry, low12)),
            offsets: entries.map(|entry| _mm512_and_si512(_mm512_srli_epi32::<12>(entry), low12)),
            symbols: _mm256_set_m128i(symbol_of(entries[1]), symbol_of(entries[0])),
        }
    }
}

/// The number of symbols that start at or below a slot is found by comparing with three of them at a time: a gather costs more than the
/// whole search.
#[derive(Clone, Copy)]
struct Searched<'a>(&'a SearchTable);

/// The low bytes of the even lanes of 16 bits, then those of the odd ones.
const IN_ORDER: [u8; 64] = {
    let mut bytes = [0; 64];
    let mut i = 0;
    while i < LANES {
        bytes[i] = (i % 16 * 4 + i / 16 * 2) as u8;
        i += 1;
    }
    bytes
};

impl Slots for Searched<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
    unsafe fn of(self, x: [__m512i; 2]) -> Found {
        let low12 = _mm512_set1_epi32((SCALE - 1) as i32);
        let low16 = _mm512_set1_epi32(0xFFFF);
        // SAFETY: 32 values are a register.
        let load = |values: &[u16; 32]| unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
        // The slots of the first sixteen states in the even lanes of 16 bits, of the others in the odd ones.
        let slots = _mm512_or_si512(
            _mm512_and_si512(x[0], low12),
            _mm512_slli_epi32::<16>(_mm512_and_si512(x[1], low12)),
        );
        let SearchTable {
            sixteenths,
            fourths,
            ones,
            digits,
            starts,
            freqs,
            symbols,
        } = self.0;
        let add = |at: __m512i, starts: [__m512i; 3], digits: &[[u16; 32]; 3]| {
            let reached = starts.map(|start| _mm512_cmpge_epu16_mask(slots, start));
            let below = _mm512_maskz_mov_epi16(reached[0], load(&digits[0]));
            let above = _mm512_mask_mov_epi16(load(&digits[1]), reached[2], load(&digits[2]));
            _mm512_add_epi16(at, _mm512_mask_mov_epi16(below, reached[1], above))
        };
        let after = |at: __m512i, starts: &[[u16; 32]; 3]| starts.each_ref().map(|starts| _mm512_permutexvar_epi16(at, load(starts)));
        let at = add(_mm512_setzero_si512(), sixteenths.each_ref().map(load), &digits[0]);
        let at = add(at, after(at, fourths), &digits[1]);
        let at = add(at, after(at, ones), &digits[2]);
        let pick = |values: &[[u16; 32]; 2]| _mm512_permutex2var_epi16(load(&values[0]), at, load(&values[1]));
        let freqs = pick(freqs);
        let offsets = _mm512_sub_epi16(slots, pick(starts));
        // SAFETY: 64 values are a register.
        let load_bytes = |values: &[u8; 64]| unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
        let symbols = _mm512_permutexvar_epi8(_mm512_permutexvar_epi8(load_bytes(&IN_ORDER), at), load_bytes(symbols));
        let split = |values: __m512i| [_mm512_and_si512(values, low16), _mm512_srli_epi32::<16>(values)];
        Found {
            freqs: split(freqs),
            offsets: split(offsets),
            symbols: _mm512_castsi512_si256(symbols),
        }
    }
}

/// One step of 32 states; `words` points at 32 readable ones. Returns the states and the number of words taken.
///
/// # Safety
/// 64 bytes at `words` must be readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
unsafe fn renew(x: [__m512i; 2], found: &Found, words: *const u8) -> ([__m512i; 2], usize) {
    let y: [__m512i; 2] = std::array::from_fn(|half| {
        let quotient = _mm512_srli_epi32::<12>(x[half]);
        _mm512_add_epi32(_mm512_mullo_epi32(found.freqs[half], quotient), found.offsets[half])
    });
    let low = y.map(|y| _mm512_cmplt_epu32_mask(y, _mm512_set1_epi32(STATE_MIN as i32)));
    let all_low = _mm512_kunpackw(low[1] as u32, low[0] as u32);
    // Lane i of 32 bits holds i twice.
    let lanes = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32(0x10001),
    );
    // All words are loaded before it is known how many are taken: the number is not waited for until the next step.
    // SAFETY: the caller's promise.
    let taken = _mm512_maskz_expand_epi16(all_low, unsafe { _mm512_loadu_si512(words.cast()) });
    // Each to the upper half of its state's lane, from where a funnel shift brings it in.
    let renewed = |half: usize| {
        let from = _mm512_add_epi16(_mm512_set1_epi16(16 * half as i16), lanes);
        _mm512_mask_shldi_epi32::<16>(y[half], low[half], y[half], _mm512_permutexvar_epi16(from, taken))
    };
    ([renewed(0), renewed(1)], all_low.count_ones() as usize)
}

/// Decodes `N` streams side by side; see [`super::super::decode()`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
pub fn decode<const N: usize>(mut streams: [Decoding<'_, '_>; N]) -> bool {
    let tables = streams.each_ref().map(|(table, ..)| *table);
    let searches = tables.map(|table| table.search.as_deref());
    let n_done = if searches.iter().all(Option::is_some) {
        let slots = searches.map(|search| Searched(search.expect("all are there")));
        // SAFETY: this function has the same instructions.
        unsafe { decode_steps(slots, &mut streams) }
    } else {
        // SAFETY: as above.
        unsafe { decode_steps(tables.map(Gathered), &mut streams) }
    };
    let mut is_whole = true;
    for (table, stream, symbols) in streams {
        is_whole &= decode_rest(table, stream, &mut symbols[n_done..]);
    }
    is_whole
}

/// Decodes whole steps of all streams, as long as each has the words for one. Returns the number of symbols.
///
/// # Safety
/// The machine has the instructions of this module.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
unsafe fn decode_steps<const N: usize, S: Slots>(slots: [S; N], streams: &mut [Decoding<'_, '_>; N]) -> usize {
    let n_steps = streams.iter().map(|(_, _, symbols)| symbols.len() / LANES).min().unwrap_or(0);
    if streams.iter().any(|(_, stream, _)| stream.words.len() < 2 * REACH) {
        return 0;
    }
    let mut at = [0usize; N];
    // The last byte offset at which a whole step may still read.
    let last: [usize; N] = std::array::from_fn(|k| streams[k].1.words.len() - 2 * REACH);
    let words: [*const u8; N] = std::array::from_fn(|k| streams[k].1.words.as_ptr());
    let out: [*mut u8; N] = std::array::from_fn(|k| streams[k].2.as_mut_ptr());
    let mut x = [[_mm512_setzero_si512(); 2]; N];
    for k in 0..N {
        // SAFETY: 32 states are two registers.
        x[k] = unsafe {
            [
                _mm512_loadu_si512(streams[k].1.states.as_ptr().cast()),
                _mm512_loadu_si512(streams[k].1.states.as_ptr().add(16).cast()),
            ]
        };
    }
    let mut n_done = 0;
    while n_done < n_steps * LANES && (0..N).all(|k| at[k] <= last[k]) {
        for_each_stream!(k < N, {
            // SAFETY: `at ≤ last` leaves 64 bytes. 32 symbols remain, since n_done is below their whole steps.
            unsafe {
                let found = slots[k].of(x[k]);
                let (renewed, n) = renew(x[k], &found, words[k].add(at[k]));
                x[k] = renewed;
                at[k] += 2 * n;
                _mm256_storeu_si256(out[k].add(n_done).cast(), found.symbols);
            }
        });
        n_done += LANES;
    }
    for (k, (_, stream, _)) in streams.iter_mut().enumerate() {
        // SAFETY: as for loading.
        unsafe {
            _mm512_storeu_si512(stream.states.as_mut_ptr().cast(), x[k][0]);
            _mm512_storeu_si512(stream.states.as_mut_ptr().add(16).cast(), x[k][1]);
        }
        stream.words = &stream.words[at[k]..];
    }
    n_done
}

/// Decodes what one stream has left when another one, or its own words, ended the loop above.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
fn decode_rest(table: &DecodeTable, stream: &mut Stream<'_>, symbols: &mut [u8]) -> bool {
    if symbols.len() < LANES {
        return scalar::decode(table, stream, symbols);
    }
    if stream.words.len() >= 2 * REACH {
        return decode([(table, stream, symbols)]);
    }
    // Where symbols take a fraction of a bit, few words are many symbols: they are decoded from a copy with zeros behind it. A step that takes of
    // these is the last one, and shows that the words do not suffice.
    let mut padded = [0; 4 * REACH];
    padded[..stream.words.len()].copy_from_slice(stream.words);
    let mut tail = Stream {
        states: stream.states,
        words: &padded[..stream.words.len() + 2 * REACH],
    };
    let n_left = tail.words.len();
    let n_done = match table.search.as_deref() {
        // SAFETY: this function has the same instructions.
        Some(search) => unsafe { decode_steps([Searched(search)], &mut [(table, &mut tail, &mut *symbols)]) },
        // SAFETY: as above.
        None => unsafe { decode_steps([Gathered(table)], &mut [(table, &mut tail, &mut *symbols)]) },
    };
    let n_taken = n_left - tail.words.len();
    let states = tail.states;
    let Some(words) = stream.words.get(n_taken..) else {
        return false;
    };
    (stream.states, stream.words) = (states, words);
    scalar::decode(table, stream, &mut symbols[n_done..])
}
