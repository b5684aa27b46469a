//! The definition of the coder, in safe Rust. Every other kernel gives the same bytes and symbols.

use super::super::decode::{DecodeTable, Stream};
use super::super::encode::{EncodeTable, Encoder};
use super::super::{LANES, SCALE, SCALE_BITS, STATE_MIN};

const MASK: u32 = SCALE - 1;

/// One decoding step without the renormalisation: the new state, and the symbol in the top byte.
#[inline(always)]
fn step(table: &DecodeTable, x: u32) -> (u32, u32) {
    let entry = table.slots[(x & MASK) as usize];
    ((entry & 0xFFF) * (x >> SCALE_BITS) + (entry >> 12 & 0xFFF), entry)
}

/// See [`super::decode`].
pub fn decode(table: &DecodeTable, stream: &mut Stream<'_>, symbols: &mut [u8]) -> bool {
    let mut n_done = 0;
    for out in symbols.chunks_exact_mut(LANES) {
        // While words for a whole step remain, no single symbol needs a check.
        let Some((near, _)) = stream.words.split_first_chunk::<{ 2 * LANES }>() else {
            break;
        };
        let mut taken = 0usize;
        for (x, symbol) in stream.states.iter_mut().zip(out) {
            let (y, entry) = step(table, *x);
            let at = (2 * taken) & (2 * LANES - 2);
            let word = u16::from_le_bytes([near[at], near[at + 1]]) as u32;
            // Without a branch: whether a state takes a word is as good as random.
            let is_low = (y < STATE_MIN) as u32;
            *x = y << (16 * is_low) | word & is_low.wrapping_neg();
            taken += is_low as usize;
            *symbol = (entry >> 24) as u8;
        }
        stream.words = &stream.words[2 * taken..];
        n_done += LANES;
    }
    decode_checked(table, stream, &mut symbols[n_done..])
}

/// The same, with a check before every word.
pub(super) fn decode_checked(table: &DecodeTable, stream: &mut Stream<'_>, symbols: &mut [u8]) -> bool {
    for chunk in symbols.chunks_mut(LANES) {
        for (x, symbol) in stream.states.iter_mut().zip(chunk) {
            let (mut y, entry) = step(table, *x);
            if y < STATE_MIN {
                let Some((word, rest)) = stream.words.split_first_chunk::<2>() else {
                    return false;
                };
                stream.words = rest;
                y = y << 16 | u16::from_le_bytes(*word) as u32;
            }
            *x = y;
            *symbol = (entry >> 24) as u8;
        }
    }
    true
}

/// See [`super::encode`].
pub fn encode(table: &EncodeTable, symbols: &[u8], encoder: &mut Encoder) {
    let Encoder { states, words, at } = encoder;
    let (whole, rest) = symbols.split_at(symbols.len() / LANES * LANES);
    for chunk in std::iter::once(rest).chain(whole.chunks_exact(LANES).rev()) {
        for (x, &symbol) in states.iter_mut().zip(chunk).rev() {
            let f = table.freqs[symbol as usize] as u32;
            if *x >> (32 - SCALE_BITS) >= f {
                *at -= 1;
                words[*at] = *x as u16;
                *x >>= 16;
            }
            *x = ((*x / f) << SCALE_BITS) + *x % f + table.starts[symbol as usize] as u32;
        }
    }
}
