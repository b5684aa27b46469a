//! Words of a tensor → a blob that every release of the published package from 1.0.0 on decodes.

mod codeword;
mod float;
mod lowcard;

use super::Codec;
use crate::codec::zstd;
use crate::dtype::Dtype;

/// Level of compression for tensors of up to [`SMALL_BYTES`], and for others, of which a higher one takes minutes.
const LEVELS: [i32; 2] = [19, 9];
/// Bytes of a tensor that is compressed at the higher level.
const SMALL_BYTES: usize = 1 << 20;

/// A coded tensor.
#[derive(Debug)]
pub struct Coded {
    /// How.
    pub form: Form,
    /// Its bytes.
    pub blob: Vec<u8>,
}

/// The codec of a blob, and what its record says besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Signs, exponents and mantissas, or whole bytes, in a range coder.
    Float(Codec),
    /// At most 16 distinct words, and indices into them.
    Lowcard {
        /// Bytes of a word.
        word_bytes: usize,
        /// Distinct words.
        n_distinct: usize,
    },
    /// One zstd frame.
    Zstd {
        /// At which level it was made.
        level: i32,
        /// Bytes of the words.
        n_bytes: usize,
    },
}

/// The name that the published package has for a dtype. None for those that it stores, and then fails to give back.
pub fn dtype_name(dtype: Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::BF16 => "bfloat16",
        Dtype::F16 => "float16",
        Dtype::F32 => "float32",
        Dtype::F8_E4M3 => "float8_e4m3fn",
        Dtype::F8_E5M2 => "float8_e5m2",
        Dtype::I64 => "int64",
        Dtype::I32 => "int32",
        Dtype::I16 => "int16",
        Dtype::I8 => "int8",
        Dtype::U8 => "uint8",
        Dtype::U16 => "uint16",
        Dtype::BOOL => "bool",
        _ => return None,
    })
}

/// Encodes a tensor in the form that takes the fewest bytes.
pub fn encode(dtype: Dtype, words: &[u8]) -> Coded {
    let candidates = [lowcard::encode(dtype, words), float::encode(dtype, words)];
    let best = candidates.into_iter().flatten().min_by_key(|coded| coded.blob.len());
    match best {
        Some(best) if !zstd::may_take_less(words, best.blob.len()) => best,
        Some(best) => [best, frame(words)]
            .into_iter()
            .min_by_key(|coded| coded.blob.len())
            .expect("there are two"),
        None => frame(words),
    }
}

fn frame(words: &[u8]) -> Coded {
    let level = LEVELS[(words.len() > SMALL_BYTES) as usize];
    Coded {
        form: Form::Zstd {
            level,
            n_bytes: words.len(),
        },
        blob: compressed(words, level),
    }
}

/// A zstd frame, which names its content's size: published readers need that.
fn compressed(bytes: &[u8], level: i32) -> Vec<u8> {
    ::zstd::bulk::compress(bytes, level).expect("compressing into memory cannot fail")
}

/// Appends bytes behind their number. None if that does not fit its field.
fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend(u32::try_from(bytes.len()).ok()?.to_le_bytes());
    out.extend(bytes);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_form_is_chosen() {
        let mut state = 1u32;
        let mut noise = |n: usize| -> Vec<u8> {
            let step = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            (0..n).map(step).collect()
        };
        let name = |dtype, words: &[u8]| match encode(dtype, words).form {
            Form::Float(codec) => codec.name(),
            Form::Lowcard { .. } => "lowcard",
            Form::Zstd { .. } => "zstd",
        };
        let narrow = |n, noise: Vec<u8>| -> Vec<u8> { (0..n).flat_map(|i| [noise[i], 0x3c | noise[i] & 1]).collect() };
        assert_eq!(name(Dtype::BF16, &narrow(40_000, noise(40_000))), "bf16_se_ac");
        assert_eq!(name(Dtype::BF16, &noise(64)), "zstd");
        assert_eq!(name(Dtype::I64, &noise(4096)), "zstd");
        assert_eq!(name(Dtype::F16, &[]), "fp16_se_ac");
        let few: Vec<u8> = noise(4096).iter().flat_map(|byte| [0, byte & 3, 7, 0x40]).collect();
        assert_eq!(name(Dtype::F32, &few), "lowcard");
    }
}
