//! Few distinct words: `lowcard`.

use super::{Coded, Form, LEVELS, SMALL_BYTES, compressed, put_sized};
use crate::dtype::Dtype;

/// Distinct words that a tensor may have.
const MAX_DISTINCT: usize = 16;
/// Bytes of a tensor below which the package does not look for them.
const LEAST_BYTES: usize = 256;

/// Encodes a tensor of 2- or 4-byte words, if they are few: the distinct ones, then one index a word as a zstd frame. Indices of bytes would take no
/// less than the bytes.
pub fn encode(dtype: Dtype, words: &[u8]) -> Option<Coded> {
    match dtype.bits() {
        _ if words.len() < LEAST_BYTES => None,
        16 => encode_words(words.as_chunks().0, u16::from_le_bytes),
        32 => encode_words(words.as_chunks().0, u32::from_le_bytes),
        _ => None,
    }
}

fn encode_words<const N: usize, W: Copy + Ord>(words: &[[u8; N]], number: fn([u8; N]) -> W) -> Option<Coded> {
    let mut distinct: Vec<[u8; N]> = Vec::with_capacity(MAX_DISTINCT);
    for word in words {
        if !distinct.contains(word) {
            if distinct.len() == MAX_DISTINCT {
                return None;
            }
            distinct.push(*word);
        }
    }
    distinct.sort_by_key(|word| number(*word));
    let index = |word: &[u8; N]| distinct.iter().position(|other| other == word).expect("all words are among them") as u8;
    let indices: Vec<u8> = words.iter().map(index).collect();
    let mut blob = vec![N as u8, distinct.len() as u8];
    blob.extend(distinct.as_flattened());
    let level = LEVELS[(indices.len() > SMALL_BYTES) as usize];
    put_sized(&mut blob, &compressed(&indices, level))?;
    blob.extend(u32::try_from(words.len()).ok()?.to_le_bytes());
    Some(Coded {
        form: Form::Lowcard {
            word_bytes: N,
            n_distinct: distinct.len(),
        },
        blob,
    })
}
