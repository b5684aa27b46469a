//! The `.bs` file: `docs/format/container.md` in code.

pub mod header;
pub mod reader;
pub mod writer;

/// The first bytes of a file.
pub const MAGIC: &[u8; 4] = b"BGSM";
/// The version that this release writes.
pub const VERSION: u16 = 16;
/// Bytes before the header.
pub const PREFIX_BYTES: u64 = 10;
/// Bytes of the header's MD5.
pub const DIGEST_BYTES: u64 = 16;
