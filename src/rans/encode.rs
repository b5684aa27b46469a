//! Encoding a stream, as far as all kernels share it.

use super::{FreqTable, LANES, SCALE, SCALE_BITS, SEED_BYTES, STATE_MIN, STATES_BYTES};

/// What coding each symbol takes.
///
/// Without a division, a state `x` becomes `x + bias + q · (2^12 − freq)` with `q = (x · reciprocal >> 32) >> shift`.
pub struct EncodeTable {
    pub(super) freqs: [u16; 256],
    pub(super) starts: [u16; 256],
    /// Reciprocal (32 bits), bias (16), frequency (12), shift (4), highest bits first.
    pub(super) entries: [u64; 256],
    /// Whether `q` is the quotient for every state and symbol.
    pub(super) is_exact: bool,
    /// The entries by the low seven bits of the symbol, if the symbols that have a frequency lie within 128.
    pub(super) narrow: Option<NarrowEntries>,
}

/// Entries in two halves, each of which a few registers hold.
pub struct NarrowEntries {
    pub(super) packed: [u32; NARROW],
    pub(super) reciprocals: [u32; NARROW],
    /// Whether the symbols lie within 64, so that six bits will do: the second half repeats the first one.
    pub(super) is_half: bool,
}

/// Symbols that a narrow table spans at most.
const NARROW: usize = 128;

impl EncodeTable {
    /// Cumulates frequencies and prepares divisions.
    ///
    /// With m = ⌈2^k / f⌉ and e = m·f − 2^k, ⌊x·m / 2^k⌋ = ⌊x / f⌋ for all x with x·e < 2^k (Granlund and Montgomery, 1994). States are below
    /// f · 2^20 when they are divided, and k = 31 + ⌈log2 f⌉; only some f above 2^11 fail. For f = 1 the reciprocal 2^32 − 1 gives q = x − 1,
    /// which the bias makes good.
    pub fn new(table: &FreqTable) -> Box<EncodeTable> {
        let mut made = Box::new(EncodeTable {
            freqs: *table.freqs(),
            starts: [0; 256],
            entries: [0; 256],
            is_exact: true,
            narrow: None,
        });
        let mut start = 0u64;
        for s in 0..256 {
            let f = table.freq(s as u8) as u64;
            made.starts[s] = start as u16;
            if f == 1 {
                made.entries[s] = (u32::MAX as u64) << 32 | (start + SCALE as u64 - 1) << 16 | 1 << 4;
            } else if f > 1 {
                let shift = f.next_power_of_two().trailing_zeros() as u64;
                let k = 31 + shift;
                let m = (1u64 << k).div_ceil(f);
                made.is_exact &= (m * f - (1 << k)) * (f << (32 - SCALE_BITS)) <= 1 << k;
                made.entries[s] = m << 32 | start << 16 | f << 4 | (shift - 1);
            }
            start += f;
        }
        let used = table.used();
        if used.len() <= NARROW {
            let mut narrow = NarrowEntries {
                packed: [0; NARROW],
                reciprocals: [0; NARROW],
                is_half: used.len() <= NARROW / 2,
            };
            let stride = if narrow.is_half { NARROW / 2 } else { NARROW };
            for s in used.map(usize::from) {
                for at in (s % stride..NARROW).step_by(stride) {
                    narrow.packed[at] = made.entries[s] as u32;
                    narrow.reciprocals[at] = (made.entries[s] >> 32) as u32;
                }
            }
            made.narrow = Some(narrow);
        }
        made
    }
}

/// A stream being encoded, from its last symbol to its first.
#[derive(Default)]
pub struct Encoder {
    pub(super) states: [u32; LANES],
    /// Words, filled from the end.
    pub(super) words: Vec<u16>,
    /// Index of the first word that is filled.
    pub(super) at: usize,
}

impl Encoder {
    /// Begins a stream of up to `n` symbols whose initial states carry `seed`, in the memory of the one before.
    pub fn begin(&mut self, n: usize, seed: &[u8; SEED_BYTES]) {
        for (state, bytes) in self.states.iter_mut().zip(seed.as_chunks::<2>().0) {
            *state = STATE_MIN | u16::from_le_bytes(*bytes) as u32;
        }
        // One word a symbol at most.
        if self.words.len() < n {
            self.words.resize(n, 0);
        }
        self.at = self.words.len();
    }

    /// The stored states and the words.
    pub fn finish(&self) -> ([u8; STATES_BYTES], &[u16]) {
        let mut states = [0; STATES_BYTES];
        for (bytes, state) in states.as_chunks_mut::<4>().0.iter_mut().zip(self.states) {
            *bytes = state.to_le_bytes();
        }
        (states, &self.words[self.at..])
    }
}
