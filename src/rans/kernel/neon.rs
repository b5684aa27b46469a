//! NEON: four states a register, a table of byte permutations for the words.

use super::super::decode::{DecodeTable, Stream};
use super::super::{LANES, SCALE, SCALE_BITS, STATE_MIN};
use super::scalar;
use std::arch::aarch64::*;

/// States in a register.
const WIDTH: usize = 4;

/// Words that one step of 32 states may look at: each of eight registers loads four.
const REACH: usize = LANES;

/// For each lane that takes a word: its bit in the set of such lanes, and above these four bits the bytes of a word.
static WEIGHTS: [u32; WIDTH] = [0x21, 0x22, 0x24, 0x28];

/// For each set of lanes that take a word, the permutation of bytes that brings them words 0, 1, 2, … in order.
static EXPAND: [[u8; 16]; 1 << WIDTH] = {
    // An index past the end of the register gives zero.
    let mut table = [[0xFF; 16]; 1 << WIDTH];
    let mut mask = 0;
    while mask < 1 << WIDTH {
        let mut lane = 0;
        let mut n = 0;
        while lane < WIDTH {
            if mask >> lane & 1 == 1 {
                table[mask][4 * lane] = 2 * n;
                table[mask][4 * lane + 1] = 2 * n + 1;
                n += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// One step of four states. Returns states, entries and the number of bytes taken.
///
/// # Safety
/// 8 bytes at `words` must be readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn step(x: uint32x4_t, table: &DecodeTable, words: *const u8) -> (uint32x4_t, uint32x4_t, usize) {
    const BITS: i32 = SCALE_BITS as i32;
    let pairs = vreinterpretq_u64_u32(x);
    let [a, b] = [vgetq_lane_u64::<0>(pairs), vgetq_lane_u64::<1>(pairs)];
    // NEON has no gather. The mask spares the check of an index.
    let entries = [a, a >> 32, b, b >> 32].map(|x| table.slots[x as usize & (SCALE - 1) as usize]);
    // SAFETY: the array is one register.
    let entry = unsafe { vld1q_u32(entries.as_ptr()) };
    let low12 = vdupq_n_u32(SCALE - 1);
    let freq = vandq_u32(entry, low12);
    let offset = vandq_u32(vshrq_n_u32::<12>(entry), low12);
    let y = vmlaq_u32(offset, freq, vshrq_n_u32::<BITS>(x));
    let low = vcltq_u32(y, vdupq_n_u32(STATE_MIN));
    // SAFETY: the array is one register.
    let taken = vaddvq_u32(vandq_u32(low, unsafe { vld1q_u32(WEIGHTS.as_ptr()) })) as usize;
    // SAFETY: the caller's promise; a row of the table is one register.
    let (near, order) = unsafe { (vld1_u8(words), vld1q_u8(EXPAND[taken & 15].as_ptr())) };
    let word = vreinterpretq_u32_u8(vqtbl1q_u8(vcombine_u8(near, vdup_n_u8(0)), order));
    (vbslq_u32(low, vsliq_n_u32::<16>(word, y), y), entry, taken >> 4)
}

/// The top bytes of sixteen entries, which are their symbols.
#[inline]
#[target_feature(enable = "neon")]
fn symbols_of(entries: &[uint32x4_t; 4]) -> uint8x16_t {
    let [a, b, c, d] = entries.map(|entry| vreinterpretq_u16_u32(entry));
    let [ab, cd] = [vuzp2q_u16(a, b), vuzp2q_u16(c, d)].map(|pair| vreinterpretq_u8_u16(pair));
    vuzp2q_u8(ab, cd)
}

/// See [`super::decode`].
#[target_feature(enable = "neon")]
pub fn decode(table: &DecodeTable, stream: &mut Stream<'_>, symbols: &mut [u8]) -> bool {
    let mut n_done = 0;
    if stream.words.len() >= 2 * REACH {
        let last = stream.words.len() - 2 * REACH;
        let mut at = 0;
        let mut x = [vdupq_n_u32(0); LANES / WIDTH];
        for (x, states) in x.iter_mut().zip(stream.states.as_chunks::<WIDTH>().0) {
            // SAFETY: the chunk is one register.
            *x = unsafe { vld1q_u32(states.as_ptr()) };
        }
        for out in symbols.as_chunks_mut::<LANES>().0 {
            if at > last {
                break;
            }
            let mut entries = x;
            for (x, entry) in x.iter_mut().zip(&mut entries) {
                // SAFETY: `at` was at most `last` before this step, and the registers before this one took at most 8 bytes each of 64.
                let n;
                (*x, *entry, n) = unsafe { step(*x, table, stream.words.as_ptr().add(at)) };
                at += n;
            }
            for (out, entries) in out.as_chunks_mut::<16>().0.iter_mut().zip(entries.as_chunks::<4>().0) {
                // SAFETY: the chunk is one register.
                unsafe { vst1q_u8(out.as_mut_ptr(), symbols_of(entries)) };
            }
            n_done += LANES;
        }
        for (x, states) in x.iter().zip(stream.states.as_chunks_mut::<WIDTH>().0) {
            // SAFETY: the chunk is one register.
            unsafe { vst1q_u32(states.as_mut_ptr(), *x) };
        }
        stream.words = &stream.words[at..];
    }
    scalar::decode(table, stream, &mut symbols[n_done..])
}
