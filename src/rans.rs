//! Symbols ⇄ rANS streams of 32 interleaved states, as `docs/format/streams.md` describes them.
//!
//! The coder is range ANS (Duda, arXiv:1311.2540): a state `x` holds all symbols coded so far; coding a symbol of frequency `f` out of 2^12
//! multiplies it by 2^12 / f. Thirty-two states take turns, so that a vector unit or a warp decodes as many symbols in one step, and share one
//! sequence of 16-bit words, so that renormalising is one expanding load.

pub mod bits;
pub mod cost;
pub mod decode;
pub mod encode;
pub mod histogram;
pub mod kernel;
#[cfg(target_arch = "x86_64")]
mod search;
pub mod short;
pub mod table;

pub use table::FreqTable;

/// States that take turns in a stream.
pub const LANES: usize = 32;
/// Binary logarithm of what the frequencies of a table sum to.
pub const SCALE_BITS: u32 = 12;
/// What the frequencies of a table sum to.
pub const SCALE: u32 = 1 << SCALE_BITS;
/// Lower bound of a state between symbols; the upper one is 2^32.
pub const STATE_MIN: u32 = 1 << 16;
/// Bytes of the states of a stream.
pub const STATES_BYTES: usize = LANES * 4;
/// Bytes that the initial states of the encoder carry.
pub const SEED_BYTES: usize = LANES * 2;
