//! Chunks that only decode as a whole: a body with its checksum in the head.

use super::{Coded, Damage, HEAD_CRC, HEAD_WRONG, checked, seal};
use std::ops::Range;

/// A chunk with that body.
pub fn coded(body: Vec<u8>) -> Coded {
    Coded {
        head: seal(crc32fast::hash(&body).to_le_bytes().to_vec()),
        body,
    }
}

/// A chunk whose head has been read.
pub struct Decoder {
    crc: u32,
    raw_bytes: usize,
}

impl Decoder {
    /// Parses the head of a chunk of `raw_bytes`.
    pub fn new(head: &[u8], raw_bytes: usize) -> Result<Self, Damage> {
        let content = checked(head).ok_or(HEAD_CRC)?;
        let crc = u32::from_le_bytes(content.try_into().map_err(|_| HEAD_WRONG)?);
        Ok(Self { crc, raw_bytes })
    }

    /// The checksum of the body.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Decodes the chunk with `unpack`, which fills its argument, and copies the words in `range`, of `width` bytes each.
    pub fn decode(
        &self,
        body: &[u8],
        range: &Range<usize>,
        width: usize,
        out: &mut [u8],
        unpack: impl FnOnce(&mut [u8]) -> Result<(), &'static str>,
    ) -> Result<(), Damage> {
        let damage = |message| Damage::at(0, message);
        if crc32fast::hash(body) != self.crc {
            return Err(damage("does not match its checksum"));
        }
        if out.len() == self.raw_bytes {
            return unpack(out).map_err(damage);
        }
        let mut whole = vec![0; self.raw_bytes];
        unpack(&mut whole).map_err(damage)?;
        out.copy_from_slice(&whole[range.start * width..range.end * width]);
        Ok(())
    }
}
