//! Short streams: one state, for a few hundred symbols where thirty-two states would cost more than they carry.

use super::bits::{put_varint, take, take_u32, take_varint};
use super::{FreqTable, SCALE, SCALE_BITS, STATE_MIN};

/// Appends the stream of `symbols`, all of which have a frequency.
pub fn encode(table: &FreqTable, symbols: &[u8], out: &mut Vec<u8>) {
    let starts = starts(table);
    let mut x = STATE_MIN;
    let mut words = Vec::new();
    for &s in symbols.iter().rev() {
        let f = table.freq(s) as u32;
        if x >> (32 - SCALE_BITS) >= f {
            words.push(x as u16);
            x >>= 16;
        }
        x = ((x / f) << SCALE_BITS) + x % f + starts[s as usize];
    }
    put_varint(out, words.len() as u64);
    out.extend(x.to_le_bytes());
    out.extend(words.iter().rev().flat_map(|w| w.to_le_bytes()));
}

/// Takes a stream of `symbols.len()` symbols off the front of `bytes`. None if it is not one.
pub fn take_symbols(table: &FreqTable, bytes: &mut &[u8], symbols: &mut [u8]) -> Option<()> {
    let n_words = take_varint(bytes)?;
    let mut x = take_u32(bytes)?;
    let mut words = take(bytes, usize::try_from(n_words.checked_mul(2)?).ok()?)?
        .as_chunks::<2>()
        .0
        .iter();
    let starts = starts(table);
    let mut slots = [0u8; SCALE as usize];
    for s in 0..256 {
        slots[starts[s] as usize..][..table.freq(s as u8) as usize].fill(s as u8);
    }
    if x < STATE_MIN {
        return None;
    }
    for symbol in symbols {
        let slot = x & (SCALE - 1);
        let s = slots[slot as usize];
        x = table.freq(s) as u32 * (x >> SCALE_BITS) + slot - starts[s as usize];
        if x < STATE_MIN {
            x = x << 16 | u16::from_le_bytes(*words.next()?) as u32;
        }
        *symbol = s;
    }
    (x == STATE_MIN && words.next().is_none()).then_some(())
}

fn starts(table: &FreqTable) -> [u32; 256] {
    let mut sum = 0;
    std::array::from_fn(|s| {
        let start = sum;
        sum += table.freq(s as u8) as u32;
        start
    })
}
