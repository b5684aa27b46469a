//! Two fidelities of BF16 words: levels of four bits, and what brings the rest back.

mod levels;
mod quantiser;
mod residual;

use crate::error::Result;
use crate::pool::Threads;
use levels::Levels;

/// The codec of the levels, as the header names it.
pub const FAST: &str = "int4g_v1";
/// The codec of the rest.
pub const RESIDUAL: &str = "int4g_residual_v1";

/// Fills `out` with the words.
///
/// # Errors
/// `Corrupt`; `Io` of kind `OutOfMemory`.
pub fn decode(fast: &[u8], residual: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let levels = Levels::parse(fast, threads, out.len() / 2)?;
    residual::decode(&levels, residual, threads, out.as_chunks_mut().0)
}

/// Fills `out` with the BF16 words that the levels alone stand for.
///
/// # Errors
/// `Corrupt`; `Io` of kind `OutOfMemory`.
pub fn decode_fast(fast: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let levels = Levels::parse(fast, threads, out.len() / 2)?;
    for (i, word) in out.as_chunks_mut().0.iter_mut().enumerate() {
        *word = levels.word(i).to_le_bytes();
    }
    Ok(())
}
