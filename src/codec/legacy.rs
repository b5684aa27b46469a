//! Blobs of the published package's containers: `docs/format/published.md`.
//!
//! Most cut words into sign, exponent and mantissa, and code the mantissas of each exponent with a table of their own ([`buckets`]); they
//! differ in the entropy coder. Its codewords do not depend on each other, so several are decoded side by side ([`lanes`]).

mod ans;
mod blosc;
mod buckets;
mod bytes;
mod category;
mod cursor;
pub mod dual;
pub mod encode;
mod f32;
mod fp2;
pub mod group;
pub mod kv;
mod lanes;
mod low_cardinality;
mod parallel;
mod range;
mod short_rans;
mod single_kernel;
mod sparsity;
mod v8;
mod width;
mod wpe_delta;

use crate::error::{Error, Result};
use crate::pool::Threads;

/// The codecs of single blobs, as the header names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Codec {
    Raw,
    Zstd,
    Bf16Ac,
    Bf16Rans,
    Bf16Tans,
    Bf16SingleKernel,
    Bf16Parallel,
    Bf16Sparsity,
    Bf16Fp2,
    Bf16V8,
    F16Ac,
    F32Ac,
    F32NativeBf16,
    F32NativeBf16V2,
    F8Cat,
    F4Cat,
    LowCardinality,
    WpeDelta,
}

use Codec::*;

/// Their names and the bytes of their words, each at its place in the enum. The last two are kinds of the codec `special`.
const TABLE: [(Codec, &str, u64); 18] = [
    (Raw, "raw", 1),
    (Zstd, "zstd", 1),
    (Bf16Ac, "bf16_se_ac", 2),
    (Bf16Rans, "bf16_se_rans", 2),
    (Bf16Tans, "bf16_se_tans", 2),
    (Bf16SingleKernel, "bf16_se_single_kernel", 2),
    (Bf16Parallel, "bf16_parallel_v1", 2),
    (Bf16Sparsity, "bf16_sparsity_v1", 2),
    (Bf16Fp2, "fp2_residual_v1", 2),
    (Bf16V8, "bf16_v8", 2),
    (F16Ac, "fp16_se_ac", 2),
    (F32Ac, "fp32_se_ac", 4),
    (F32NativeBf16, "bf16_native_f32", 4),
    (F32NativeBf16V2, "bf16_native_f32_v2", 4),
    (F8Cat, "fp8_cat_ac", 1),
    (F4Cat, "fp4_cat_ac", 1),
    (LowCardinality, "lowcard", 1),
    (WpeDelta, "wpe_delta", 1),
];

impl Codec {
    /// All of them.
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

    /// Whether a blob of so many bytes can be one of `raw_bytes` when decoded, as far as the numbers tell.
    pub fn fits(self, raw_bytes: u64, blob_bytes: u64) -> bool {
        let width = TABLE[self as usize].2;
        raw_bytes.is_multiple_of(width) && (self != Raw || raw_bytes == blob_bytes)
    }

    /// Fills `out` with the words of a blob.
    ///
    /// # Errors
    /// `Corrupt` if the blob is not one of as many bytes; `Io` of kind `OutOfMemory`.
    pub fn decode(self, blob: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        match self {
            Raw => bytes::raw(blob, out),
            Zstd => bytes::zstd(blob, out),
            Bf16Ac => buckets::decode::<range::Range>(&buckets::BF16, blob, threads, out),
            Bf16Rans => buckets::decode::<ans::Ans>(&buckets::BF16, blob, threads, out),
            Bf16Tans => buckets::decode::<short_rans::ShortRans>(&buckets::BF16, blob, threads, out),
            Bf16SingleKernel => single_kernel::decode(blob, threads, out),
            Bf16Parallel => parallel::decode(blob, threads, out),
            Bf16Sparsity => sparsity::decode(blob, threads, out),
            Bf16Fp2 => fp2::decode(blob, threads, out),
            Bf16V8 => v8::decode(blob, threads, out),
            F16Ac => buckets::decode::<range::Range>(&buckets::F16, blob, threads, out),
            F32Ac => f32::decode(blob, threads, out),
            F32NativeBf16 => f32::decode_native(blob, threads, out),
            F32NativeBf16V2 => f32::decode_native_v2(blob, threads, out),
            F8Cat => bytes::f8(blob, out),
            F4Cat => bytes::f4(blob, out),
            LowCardinality => low_cardinality::decode(blob, out),
            WpeDelta => wpe_delta::decode(blob, out),
        }
    }
}

/// An error of a blob that is not what its codec makes.
fn damaged(message: &'static str) -> Error {
    Error::corrupt(message)
}

/// Refuses a blob that is not of `n` elements.
fn check_count(stored: u32, n: usize) -> Result<()> {
    if stored as usize == n {
        Ok(())
    } else {
        Err(damaged("the blob is of another number of elements"))
    }
}

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
