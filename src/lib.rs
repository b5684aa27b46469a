//! Lossless compression of model weights: smaller checkpoints, the same bits.
//!
//! ```
//! # fn main() -> bigsmall::Result<()> {
//! let source = bigsmall::test_data::checkpoint();
//! let packed = bigsmall::compress_bytes(&source, &bigsmall::Options::default())?;
//! assert_eq!(bigsmall::decompress_bytes(&packed, 0)?, source);
//! # Ok(())
//! # }
//! ```

pub mod codec;
pub mod container;
pub mod dtype;
pub mod error;
pub mod float;
pub mod kv;
pub mod limits;
pub mod options;
pub mod rans;
pub mod simd;

mod base;
mod buffer;
mod closest;
mod compress;
mod decompress;
mod diff;
mod digest;
mod directory;
mod ecc;
mod load;
mod migrate;
mod order;
mod pool;
#[cfg(feature = "python")]
mod python;
mod safetensors;
mod scan;
mod sink;
mod source;
mod speed;
mod survey;
#[doc(hidden)]
pub mod test_data;
mod verify;
mod weights;
mod xray;

pub use buffer::Buffer;
pub use closest::closest;
pub use compress::{Matched, Summary, compress_bytes, compress_bytes_on, compress_bytes_on_with, compress_bytes_with};
pub use container::reader::Reader;
pub use decompress::{decompress_bytes, decompress_bytes_on, decompress_bytes_on_with, decompress_bytes_with};
pub use diff::{Change, Common, Diff, Distances, diff};
pub use directory::{compress, compress_on, decompress, decompress_on, migrate, packed_files, scan, verify};
pub use dtype::Dtype;
pub use ecc::{DEFAULT_PERCENT, Repair, protect, protect_bytes, repair, repair_bytes, sidecar_path};
pub use error::{Error, Kind, Result};
pub use load::{Target, Words, load, load_into, load_words};
pub use migrate::{Migration, Original};
pub use options::{Format, Mode, Options, Progress, no_progress};
pub use pool::Threads;
pub use scan::Estimate;
pub use simd::Isa;
pub use source::held::Held;
pub use source::{FileSource, ReadAt};
pub use speed::{CodecSpeed, codec_speed};
pub use verify::{Depth, Problem, Verification, VerifyOptions};
pub use weights::{Tensor, Weights};
pub use xray::{Flag, MIN_ELEMENTS, Stream, TensorXray, Xray, XrayOptions, xray};
