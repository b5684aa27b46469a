//! Words of a tensor ⇄ its blob.
//!
//! [`Codec`] is the table of what a tensor's record may name. All chunked codecs are transforms around [`planes`]: each chunk stands alone, with a head
//! that says where its blocks are and a body that holds them.

pub mod blob;
pub mod chunk;
pub mod context;
pub mod delta;
pub mod framed;
pub mod legacy;
pub mod palette;
pub mod planes;
pub mod row_delta;
pub mod select;
pub mod sparse;
pub mod stored;
pub mod zstd;

use crate::pool::lock;
use crate::rans::bits::take_u32;
use std::sync::Mutex;

/// The codecs, as the header names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// No words.
    Empty,
    /// One word, repeated.
    Constant,
    /// The words of another tensor.
    Tied,
    /// Words of a pack.
    Packed,
    /// The bytes, as they are.
    Stored,
    /// Planes.
    Planes,
    /// Indices into few distinct words.
    Palette,
    /// A mask, and the words that are not zero.
    Sparse,
    /// Rows as differences.
    RowDelta,
    /// zstd frames.
    Zstd,
    /// Words coded with odds learned from those before them.
    Context,
    /// Words as differences to those of a base.
    Delta,
}

/// Their names, each at its place in the enum.
const TABLE: [(Codec, &str); 12] = [
    (Codec::Empty, "empty"),
    (Codec::Constant, "constant"),
    (Codec::Tied, "tied"),
    (Codec::Packed, "packed"),
    (Codec::Stored, "stored"),
    (Codec::Planes, "planes"),
    (Codec::Palette, "palette"),
    (Codec::Sparse, "sparse"),
    (Codec::RowDelta, "row_delta"),
    (Codec::Zstd, "zstd"),
    (Codec::Context, "context"),
    (Codec::Delta, "delta"),
];

impl Codec {
    /// All codecs.
    pub fn all() -> impl Iterator<Item = Codec> {
        TABLE.iter().map(|row| row.0)
    }

    /// The name in the header.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// The codec of that name.
    pub fn from_name(name: &str) -> Option<Codec> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Whether its blob is a sequence of chunks.
    pub fn is_chunked(self) -> bool {
        matches!(
            self,
            Codec::Planes | Codec::Palette | Codec::Sparse | Codec::RowDelta | Codec::Zstd | Codec::Context | Codec::Delta
        )
    }

    /// Whether a tensor or pack with this codec has a blob.
    pub fn has_blob(self) -> bool {
        self.is_chunked() || self == Codec::Stored
    }
}

/// A coded chunk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Coded {
    /// What a reader needs before it can read parts of the body.
    pub head: Vec<u8>,
    /// The blocks.
    pub body: Vec<u8>,
}

impl Coded {
    /// Bytes of both.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// Memory of bodies that have been written, for the next ones: taking fresh pages costs as much as coding does.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Vec<Vec<u8>>>);

/// Bytes that a [`Spare`] keeps at most: not every codec takes from it what all give.
const SPARE_BYTES: usize = 96 << 20;

impl Spare {
    /// An empty vector with room for about `n_bytes`.
    pub fn take(&self, n_bytes: usize) -> Vec<u8> {
        let kept = lock(&self.0).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(n_bytes + n_bytes / 64))
    }

    /// Keeps the memory of `bytes`, unless there is enough of it.
    pub fn put(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut kept = lock(&self.0);
        if kept.iter().map(Vec::capacity).sum::<usize>() + bytes.capacity() <= SPARE_BYTES {
            kept.push(bytes);
        }
    }
}

/// What is wrong with a chunk: a sentence, and the block if it is one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The block, counted in the chunk.
    pub block: Option<usize>,
    /// What is wrong.
    pub message: &'static str,
    /// Whether that is the base's fault.
    pub is_of_base: bool,
}

impl Damage {
    /// What is wrong with a block.
    pub fn at(block: usize, message: &'static str) -> Self {
        Damage {
            block: Some(block),
            ..message.into()
        }
    }

    /// Base words that are not those that a chunk was made from.
    pub fn of_base() -> Self {
        Damage {
            is_of_base: true,
            .."is a difference to other words than its base has".into()
        }
    }
}

impl From<&'static str> for Damage {
    fn from(message: &'static str) -> Self {
        Damage {
            block: None,
            message,
            is_of_base: false,
        }
    }
}

/// Splits the CRC-32 off the end of `bytes` and checks it.
pub(crate) fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, mut crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    (take_u32(&mut crc)? == crc32fast::hash(content)).then_some(content)
}

/// Appends the CRC-32 of `bytes` to them.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

const HEAD_CRC: &str = "the chunk's head does not match its checksum";
const HEAD_WRONG: &str = "the chunk's head contradicts itself";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_own_index() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(Codec::from_name(row.1), Some(row.0));
        }
    }
}
