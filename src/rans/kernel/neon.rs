//! NEON: four states a register, a table of byte permutations for the words.

use super::super::decode::{DecodeTable, Stream};
use super::super::{LANES, SCALE, STATE_MIN};
use super::scalar;
use std::arch::aarch64::*;

/// States in a register.
const WIDTH: usize = 4;

/// Registers that hold all states.
const REGISTERS: usize = LANES / WIDTH;

/// Words that one step of 32 states may look at: each of eight registers loads four.
const REACH: usize = LANES;

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

/// One step of four states without the renormalisation: the new states, and the entries.
#[inline]
#[target_feature(enable = "neon")]
fn step(x: uint32x4_t, table: &DecodeTable) -> (uint32x4_t, uint32x4_t) {
    let low12 = vdupq_n_u32(SCALE - 1);
    let states = vreinterpretq_u64_u32(x);
    let [a, b] = [vgetq_lane_u64::<0>(states), vgetq_lane_u64::<1>(states)];
    // NEON has no gather. No index needs a check: it is masked to the length of the table.
    let entries = [a, a >> 32, b, b >> 32].map(|x| table.0[x as usize & (SCALE - 1) as usize]);
    // SAFETY: the array is one register.
    let entry = unsafe { vld1q_u32(entries.as_ptr()) };
    let freq = vandq_u32(entry, low12);
    let offset = vandq_u32(vshrq_n_u32::<12>(entry), low12);
    (vmlaq_u32(offset, freq, vshrq_n_u32::<12>(x)), entry)
}

/// A byte for each register, the first one lowest: the set of lanes that need a word in the low half, the bytes which these take in the high half.
#[inline]
#[target_feature(enable = "neon")]
fn needs(y: &[uint32x4_t; REGISTERS]) -> u64 {
    static WEIGHTS: [u8; 16] = [
        0x21, 0x22, 0x24, 0x28, 0x21, 0x22, 0x24, 0x28, 0x21, 0x22, 0x24, 0x28, 0x21, 0x22, 0x24, 0x28,
    ];
    let min = vdupq_n_u32(STATE_MIN);
    // SAFETY: the array is one register.
    let weights = unsafe { vld1q_u8(WEIGHTS.as_ptr()) };
    let mut halves = [vdupq_n_u8(0); 2];
    for (half, y) in halves.iter_mut().zip(y.as_chunks::<4>().0) {
        let low = y.map(|y| vreinterpretq_u16_u32(vcltq_u32(y, min)));
        let pairs = [vuzp1q_u16(low[0], low[1]), vuzp1q_u16(low[2], low[3])].map(|pair| vreinterpretq_u8_u16(pair));
        *half = vandq_u8(vuzp1q_u8(pairs[0], pairs[1]), weights);
    }
    let sums = vpaddq_u8(halves[0], halves[1]);
    vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)))
}

/// Sixteen symbols from their entries.
#[inline]
#[target_feature(enable = "neon")]
fn symbols_of(entries: &[uint32x4_t; 4]) -> uint8x16_t {
    let e = entries.map(|entry| vreinterpretq_u16_u32(entry));
    vuzp2q_u8(
        vreinterpretq_u8_u16(vuzp2q_u16(e[0], e[1])),
        vreinterpretq_u8_u16(vuzp2q_u16(e[2], e[3])),
    )
}

/// See [`super::decode`].
#[target_feature(enable = "neon")]
pub fn decode(table: &DecodeTable, stream: &mut Stream<'_>, symbols: &mut [u8]) -> bool {
    let mut n_done = 0;
    if stream.words.len() >= 2 * REACH {
        let last = stream.words.len() - 2 * REACH;
        let mut at = 0;
        let mut x = [vdupq_n_u32(0); REGISTERS];
        for (x, states) in x.iter_mut().zip(stream.states.as_chunks::<WIDTH>().0) {
            // SAFETY: the chunk is one register.
            *x = unsafe { vld1q_u32(states.as_ptr()) };
        }
        for out in symbols.as_chunks_mut::<LANES>().0 {
            if at > last {
                break;
            }
            let mut entry = x;
            for (x, entry) in x.iter_mut().zip(&mut entry) {
                (*x, *entry) = step(*x, table);
            }
            let needs = needs(&x);
            for (x, need) in x.iter_mut().zip(needs.to_le_bytes()) {
                // SAFETY: `at` was at most `last` before this step, and the registers before this one took at most 8 bytes each of 64.
                let near = unsafe { vld1_u8(stream.words.as_ptr().add(at)) };
                // SAFETY: the array is one register.
                let order = unsafe { vld1q_u8(EXPAND[need as usize & 15].as_ptr()) };
                let word = vreinterpretq_u32_u8(vqtbl1q_u8(vcombine_u8(near, vdup_n_u8(0)), order));
                let low = vcltq_u32(*x, vdupq_n_u32(STATE_MIN));
                *x = vbslq_u32(low, vsliq_n_u32::<16>(word, *x), *x);
                at += need as usize >> 4;
            }
            for (out, entries) in out.as_chunks_mut::<16>().0.iter_mut().zip(entry.as_chunks::<4>().0) {
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
