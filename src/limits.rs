//! Every bound that a hostile file or request is checked against, with its reason.

/// Threads that a caller may ask for: more than any machine runs, and few enough to start.
pub const MAX_THREADS: usize = 1024;
/// Bytes of a stored header: the bound of safetensors, whose header ours describes.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes of an unpacked header: names and shapes of 100 MB of safetensors header, and our own fields.
pub const MAX_HEADER_JSON_BYTES: u64 = 256 << 20;
/// Dimensions of a tensor. Frameworks stop at 64; NumPy at 64, torch at 64.
pub const MAX_DIMS: usize = 64;
/// Words of a chunk, so that offsets in it fit 32 bits and a decoder's scratch is bounded.
pub const MAX_CHUNK_WORDS: u64 = 1 << 24;
/// Raw bytes of a chunk: what one decoding thread may hold.
pub const MAX_CHUNK_BYTES: u64 = 64 << 20;
/// Words of a block: patch positions are 16 bits.
pub const BLOCK_WORDS: usize = 1 << 16;
/// Classes of a chunk, so that a class number and its count stay small.
pub const MAX_CLASSES: usize = 64;
/// Tables of a pool: they are named by one byte.
pub const MAX_POOL_TABLES: usize = 255;
/// Bytes of the tables blob: nine pools of full tables, each below a kilobyte.
pub const MAX_TABLES_BYTES: u64 = 9 * 256 * 1024;
/// Words of a pack: one small tensor is not to cost the decoding of many.
pub const MAX_PACK_WORDS: u64 = 1 << 22;
/// Words of a tensor that may be stored in another order, since any part of it then needs all of it.
pub const MAX_ORDERED_WORDS: u64 = 1 << 22;
/// Bytes of decoded words that a reader keeps for the other tensors and parts that need them.
pub const KEPT_BYTES: usize = 64 << 20;
/// Span of stored bytes that one CRC covers.
pub const STORED_SPAN_BYTES: u64 = 1 << 20;
/// Alignment of blobs.
pub const ALIGN: u64 = 64;
