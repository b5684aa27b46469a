//! The bytes of a blob that is to be made.

use std::borrow::Cow;
use std::ops::Range;

/// What a blob holds: the words of a tensor, or of the members of a pack.
pub struct Content<'a> {
    /// The words of each.
    members: Vec<&'a [u8]>,
    n_bytes: usize,
}

impl<'a> Content<'a> {
    /// That of tensors of the same dtype.
    pub fn new(members: Vec<&'a [u8]>) -> Self {
        let n_bytes = members.iter().map(|bytes| bytes.len()).sum();
        Self { members, n_bytes }
    }

    /// Number of bytes.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Some of the bytes. Those of several members are put together, which for all packs at once would take as much memory as their tensors do.
    pub fn bytes(&self, range: &Range<usize>) -> Cow<'a, [u8]> {
        if let [bytes] = self.members[..] {
            return Cow::Borrowed(&bytes[range.clone()]);
        }
        let mut gathered = Vec::with_capacity(range.len());
        let mut start = 0;
        for bytes in &self.members {
            let (from, to) = (range.start.max(start), range.end.min(start + bytes.len()));
            if from < to {
                gathered.extend_from_slice(&bytes[from - start..to - start]);
            }
            start += bytes.len();
        }
        Cow::Owned(gathered)
    }

    /// All bytes.
    pub fn all(&self) -> Cow<'a, [u8]> {
        self.bytes(&(0..self.n_bytes))
    }
}
