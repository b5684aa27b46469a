//! Words of a tensor ⇄ its blob.

pub mod planes;

use crate::rans::bits::take_u32;

/// Splits the CRC-32 off the end of `bytes` and checks it.
pub(crate) fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, mut crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    (take_u32(&mut crc)? == crc32fast::hash(content)).then_some(content)
}
