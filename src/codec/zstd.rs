//! Chunks as zstd frames: for words with repetitions that planes do not see, such as position indices.

use super::{Coded, Damage, HEAD_CRC, HEAD_WRONG, checked, seal};
use std::io::Read;
use std::ops::Range;

/// Level of compression. Higher ones take long and gain little on weights.
const LEVEL: i32 = 9;

/// Encodes a chunk.
pub fn encode(words: &[u8]) -> Coded {
    let body = ::zstd::bulk::compress(words, LEVEL).expect("compressing into memory cannot fail");
    Coded { head: seal(crc32fast::hash(&body).to_le_bytes().to_vec()), body }
}

/// A chunk whose head has been read.
pub struct Decoder {
    crc: u32,
    raw_bytes: usize,
}

impl Decoder {
    /// Parses a head.
    pub fn new(head: &[u8], raw_bytes: usize) -> Result<Self, Damage> {
        let content = checked(head).ok_or(HEAD_CRC)?;
        let crc = u32::from_le_bytes(content.try_into().map_err(|_| HEAD_WRONG)?);
        Ok(Self { crc, raw_bytes })
    }

    /// Decodes the words in `range` of the chunk.
    pub fn decode(&self, body: &[u8], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
        let damage = |message| Damage { block: Some(0), message };
        if crc32fast::hash(body) != self.crc {
            return Err(damage("does not match its checksum"));
        }
        let mut inner = || -> std::io::Result<Option<()>> {
            // The frame must give all words and no byte more, whatever its own size field says.
            let mut frame = ::zstd::stream::read::Decoder::with_buffer(body)?.single_frame();
            let width = out.len() / range.len().max(1);
            let mut whole = vec![0; self.raw_bytes];
            frame.read_exact(&mut whole)?;
            let is_all = frame.read(&mut [0])? == 0 && frame.finish().is_empty();
            out.copy_from_slice(&whole[range.start * width..][..out.len()]);
            Ok(is_all.then_some(()))
        };
        inner().ok().flatten().ok_or(damage("matches its checksum but is not a frame of the chunk's words"))
    }
}
