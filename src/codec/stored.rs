//! Bytes as they are, with a checksum for each span of them.

use crate::limits::STORED_SPAN_BYTES;

/// Bytes of the blob of `raw_bytes`.
pub fn blob_bytes(raw_bytes: u64) -> Option<u64> {
    raw_bytes.checked_add(raw_bytes.div_ceil(STORED_SPAN_BYTES).checked_mul(4)?)
}

/// The checksums of whole spans of `raw` and of what is left.
pub fn checksums(raw: &[u8]) -> Vec<u8> {
    raw.chunks(STORED_SPAN_BYTES as usize)
        .flat_map(|span| crc32fast::hash(span).to_le_bytes())
        .collect()
}
