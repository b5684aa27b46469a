//! Decoding a stream, as far as all kernels share it.

#[cfg(target_arch = "x86_64")]
use super::search::SearchTable;
use super::{FreqTable, LANES, SCALE, SEED_BYTES, STATE_MIN, STATES_BYTES};

/// What decoding needs of a frequency table.
pub struct DecodeTable {
    /// Frequency (12 bits), offset within the symbol's slots (12) and symbol (8) of each slot, lowest bits first.
    pub(super) slots: [u32; SCALE as usize],
    /// If there are few symbols.
    #[cfg(target_arch = "x86_64")]
    pub(super) search: Option<Box<SearchTable>>,
}

impl std::fmt::Debug for DecodeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DecodeTable")
    }
}

impl DecodeTable {
    /// Spreads a frequency table over its slots.
    pub fn new(table: &FreqTable) -> Box<DecodeTable> {
        let mut made = Box::new(DecodeTable {
            slots: [0; SCALE as usize],
            #[cfg(target_arch = "x86_64")]
            search: SearchTable::new(table),
        });
        let mut at = 0;
        for (s, &f) in table.freqs().iter().enumerate() {
            let entry = f as u32 | (s as u32) << 24;
            for (offset, slot) in made.slots[at..at + f as usize].iter_mut().enumerate() {
                *slot = entry | (offset as u32) << 12;
            }
            at += f as usize;
        }
        debug_assert_eq!(at, SCALE as usize);
        made
    }
}

/// A stream being decoded.
pub struct Stream<'a> {
    pub(super) states: [u32; LANES],
    /// The 16-bit words that no state has taken yet.
    pub(super) words: &'a [u8],
}

impl<'a> Stream<'a> {
    /// A stream from its stored states and words. None if a state is out of bounds.
    pub fn new(states: &[u8; STATES_BYTES], words: &'a [u8]) -> Option<Self> {
        let mut stream = Self { states: [0; LANES], words };
        for (state, bytes) in stream.states.iter_mut().zip(states.as_chunks::<4>().0) {
            *state = u32::from_le_bytes(*bytes);
            if *state < STATE_MIN {
                return None;
            }
        }
        Some(stream)
    }

    /// After the last symbol: the seed, or None if the stream does not end as an encoder's does.
    pub fn finish(self) -> Option<[u8; SEED_BYTES]> {
        if !self.words.is_empty() || self.states.iter().any(|x| x >> 16 != 1) {
            return None;
        }
        let mut seed = [0; SEED_BYTES];
        for (bytes, state) in seed.as_chunks_mut::<2>().0.iter_mut().zip(self.states) {
            *bytes = (state as u16).to_le_bytes();
        }
        Some(seed)
    }
}
