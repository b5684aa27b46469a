//! The header, of which a sidecar holds three.

use super::code::Code;
use super::layout::{BLOCK_BYTES, Layout};
use crate::error::{Error, Kind, Result};
use crate::source::ReadAt;
use std::sync::LazyLock;

const MAGIC: &[u8; 8] = b"BSECC16\0";
const VERSION: u16 = 1;
/// Bytes of its fields.
const FIELD_BYTES: usize = 48;
const CHECK_BYTES: usize = 48;
/// Bytes of a header.
pub const HEADER_BYTES: u64 = (FIELD_BYTES + CHECK_BYTES) as u64;
/// Bytes of the magic that may be wrong in a header that is looked for: enough to find any that can be mended, and few places else.
const MAX_WRONG_MAGIC: usize = 3;
/// Bytes that are searched at a time.
const SEARCHED_BYTES: u64 = 1 << 20;

static CODE: LazyLock<Code<CHECK_BYTES>> = LazyLock::new(Code::new);

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sizes of file and sidecar.
    pub layout: Layout,
    /// XXH3-128 of the file.
    pub digest: u128,
}

impl Header {
    /// The header as it is stored.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES as usize] {
        let Layout {
            file_bytes,
            n_groups,
            n_parity,
        } = self.layout;
        let mut fields = Vec::with_capacity(FIELD_BYTES + CHECK_BYTES);
        fields.extend_from_slice(MAGIC);
        fields.extend(VERSION.to_le_bytes());
        fields.extend((BLOCK_BYTES as u16).to_le_bytes());
        fields.extend((n_parity as u32).to_le_bytes());
        fields.extend(n_groups.to_le_bytes());
        fields.extend(file_bytes.to_le_bytes());
        fields.extend(self.digest.to_le_bytes());
        let check = CODE.check(&fields);
        fields.extend(check);
        fields.try_into().expect("the fields have that length")
    }

    /// Mends and parses stored bytes; None if they are no header.
    ///
    /// # Errors
    /// `Version` for a header that another release wrote, `Format` for one that contradicts itself.
    fn parse(stored: &[u8; HEADER_BYTES as usize]) -> Result<Option<Self>> {
        let (fields, check) = stored.split_at(FIELD_BYTES);
        let (mut fields, mut check): ([u8; FIELD_BYTES], [u8; CHECK_BYTES]) = (
            fields.try_into().expect("it is that long"),
            check.try_into().expect("it is that long"),
        );
        if CODE.correct(&mut fields, &mut check, CHECK_BYTES / 2).is_none() || fields[..8] != *MAGIC {
            return Ok(None);
        }
        let (pairs, words) = (fields[8..].as_chunks::<2>().0, fields.as_chunks::<8>().0);
        let [version, block_bytes] = [pairs[0], pairs[1]].map(u16::from_le_bytes);
        if version != VERSION || block_bytes as u64 != BLOCK_BYTES {
            let message = format!("a sidecar of version {version} with blocks of {block_bytes} bytes is not read by this release");
            return Err(Error::new(Kind::Version, message));
        }
        let [n_groups, file_bytes, low, high] = [2, 3, 4, 5].map(|i| u64::from_le_bytes(words[i]));
        let n_parity = (u64::from_le_bytes(words[1]) >> 32) & u32::MAX as u64;
        let layout = Layout {
            file_bytes,
            n_groups,
            n_parity,
        };
        let layout = layout.checked().ok_or_else(|| Error::format("the sidecar contradicts itself"))?;
        Ok(Some(Self {
            layout,
            digest: (high as u128) << 64 | low as u128,
        }))
    }

    /// The header of a sidecar: the first, the last, or whichever is found. None if there is none.
    ///
    /// # Errors
    /// `Io`, `Version`, `Format`.
    pub fn find(sidecar: &impl ReadAt) -> Result<Option<Self>> {
        let n_bytes = sidecar.n_bytes();
        let Some(last) = n_bytes.checked_sub(HEADER_BYTES) else {
            return Ok(None);
        };
        let at = |offset| -> Result<_> {
            let mut stored = [0; HEADER_BYTES as usize];
            sidecar.read_at(&mut stored, offset)?;
            Self::parse(&stored)
        };
        for offset in [0, last] {
            if let Some(found) = at(offset)? {
                return Ok(Some(found));
            }
        }
        let mut part = Vec::new();
        for start in (0..=last).step_by(SEARCHED_BYTES as usize) {
            let end = (start + SEARCHED_BYTES).min(last + 1);
            part.resize((end - start) as usize + MAGIC.len() - 1, 0);
            sidecar.read_at(&mut part, start)?;
            for (i, window) in part.windows(MAGIC.len()).enumerate() {
                let n_wrong = window.iter().zip(MAGIC).filter(|(a, b)| a != b).count();
                if n_wrong <= MAX_WRONG_MAGIC
                    && let Some(found) = at(start + i as u64)?
                {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}
