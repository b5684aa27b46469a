//! Chunks as zstd frames: for words with repetitions that planes do not see, such as position indices.

use super::{Coded, framed};
use std::io::Read;

/// Level of compression: the highest of those that need no more memory to decode. Only small or unusual tensors get here.
const LEVEL: i32 = 19;

/// Encodes a chunk.
pub fn encode(words: &[u8]) -> Coded {
    framed::coded(::zstd::bulk::compress(words, LEVEL).expect("compressing into memory cannot fail"))
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
