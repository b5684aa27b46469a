//! Tensors of one shape in one blob.

use super::wpe_delta::add_words;
use super::{Codec, damaged};
use crate::error::Result;
use crate::pool::Threads;

/// How the members of a group are coded.
#[derive(Clone, Debug)]
pub enum Coding {
    /// One blob of all their words.
    Stack(Codec),
    /// A blob of the first one, then of the differences of each to the one before.
    Chain {
        /// The codec of each and its bytes.
        parts: Vec<(Codec, u64)>,
        /// Bytes of a word.
        width: usize,
    },
}

impl Coding {
    /// Whether a blob of so many bytes can hold so many members, as far as the numbers tell.
    pub fn fits(&self, n_members: usize, member_bytes: u64, blob_bytes: u64) -> bool {
        let raw_bytes = member_bytes.checked_mul(n_members as u64);
        match self {
            Coding::Stack(codec) => raw_bytes.is_some_and(|raw_bytes| codec.fits(raw_bytes, blob_bytes)),
            Coding::Chain { parts, width } => {
                let total = parts.iter().try_fold(0u64, |sum, (_, bytes)| sum.checked_add(*bytes));
                raw_bytes.is_some()
                    && member_bytes.is_multiple_of(*width as u64)
                    && parts.len() == n_members
                    && total == Some(blob_bytes)
                    && parts.iter().all(|(codec, bytes)| codec.fits(member_bytes, *bytes))
            }
        }
    }

    /// Fills `out` with the words of all members, in order.
    ///
    /// # Errors
    /// `Corrupt`; `Io` of kind `OutOfMemory`.
    pub fn decode(&self, blob: &[u8], n_members: usize, out: &mut [u8]) -> Result<()> {
        let (parts, width) = match self {
            // By one thread, since others may wait for a lock that the caller holds.
            Coding::Stack(codec) => return codec.decode(blob, Threads::One, out),
            Coding::Chain { parts, width } => (parts, *width),
        };
        let member_bytes = out.len() / n_members.max(1);
        let mut blob = blob;
        for (i, (codec, bytes)) in parts.iter().enumerate() {
            let (part, rest) = blob
                .split_at_checked(*bytes as usize)
                .ok_or_else(|| damaged("the blob ends early"))?;
            blob = rest;
            let (before, words) = out.split_at_mut(i * member_bytes);
            let words = &mut words[..member_bytes];
            codec.decode(part, Threads::One, words)?;
            if let Some(previous) = before.len().checked_sub(member_bytes).filter(|_| i > 0) {
                add_words(width, words, &before[previous..]);
            }
        }
        Ok(())
    }
}
