//! Chunks as zstd frames: for words with repetitions that planes do not see, such as position indices.

use super::{Coded, framed};
use std::io::Read;

/// Level of compression: the highest of those that need no more memory to decode. Only small or unusual tensors get here.
const LEVEL: i32 = 19;
/// Level that takes a hundredth of the time.
const QUICK_LEVEL: i32 = 3;
/// Words of so few bytes are not worth a guess.
const PART_BYTES: usize = 1 << 16;

/// Encodes a chunk.
pub fn encode(words: &[u8]) -> Coded {
    framed::coded(::zstd::bulk::compress(words, LEVEL).expect("compressing into memory cannot fail"))
}

/// Whether [`encode`] may make fewer than `least` bytes of the words: a guess from a low level, and from what the high one gains on a part.
pub fn may_take_less(words: &[u8], least: usize) -> bool {
    let Some((part, _)) = words.split_at_checked(PART_BYTES) else {
        return true;
    };
    let bytes = |words: &[u8], level| {
        let frame = ::zstd::bulk::compress(words, level).expect("compressing into memory cannot fail");
        frame.len() as u64
    };
    let (quick, least) = (bytes(words, QUICK_LEVEL), least as u64);
    // No high level halves what a low one leaves of numbers, and most numbers leave nothing to either.
    quick < least || quick / 2 < least && bytes(part, LEVEL) * quick < bytes(part, QUICK_LEVEL) * least
}

/// Fills `out` from a frame that must hold just as much, whatever its own size field says.
pub fn decode(body: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    let mut inner = || -> std::io::Result<bool> {
        let mut frame = ::zstd::stream::read::Decoder::with_buffer(body)?.single_frame();
        frame.read_exact(out)?;
        Ok(frame.read(&mut [0])? == 0 && frame.finish().is_empty())
    };
    match inner() {
        Ok(true) => Ok(()),
        _ => Err("matches its checksum but is not a frame of the chunk's words"),
    }
}
