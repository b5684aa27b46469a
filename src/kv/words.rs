//! Exact words of one dtype, without a file around them.

use crate::buffer::Buffer;
use crate::codec::blob::{Index, chunk_words};
use crate::codec::chunk::{Decoder, Encoding};
use crate::codec::context::Matrix;
use crate::codec::planes::Pools;
use crate::codec::select::{Choice, Words, trivial};
use crate::codec::{Codec, Coded, Damage, Spare, checked, seal};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::limits::MAX_TABLES_BYTES;
use crate::options::Mode;
use crate::rans::bits::{take, take_u8, take_u32};
use crate::simd::Isa;
use crate::survey::{Item, survey};
use rayon::prelude::*;

const STORED: u8 = 0;
const CONSTANT: u8 = 1;
const PLANES: u8 = 2;
/// Words below which tables would cost more than they save.
const LEAST_PLANES_WORDS: usize = 256;

/// Encodes the words of a tensor with rows of `row_words`.
///
/// # Errors
/// `Option` if the bytes are no whole number of words.
pub fn encode(bytes: &[u8], dtype: Dtype, row_words: usize, isa: Isa) -> Result<Vec<u8>> {
    let layout = dtype.layout();
    let width = layout.word_bytes();
    if !bytes.len().is_multiple_of(width) {
        return Err(Error::option(format!("{} bytes are no words of {}", bytes.len(), dtype.name())));
    }
    let n_words = bytes.len() / width;
    let words = Words {
        bytes,
        layout,
        row_words,
        matrix: Matrix::of(&[n_words / row_words.max(1), row_words.max(1)]),
        is_integer: dtype.family().is_none(),
    };
    if let Some(Choice::Constant(word)) = trivial(words) {
        return Ok([&[CONSTANT], &word[..]].concat());
    }
    let mut coded = Vec::new();
    if n_words >= LEAST_PLANES_WORDS {
        coded = planes(words, dtype, isa);
    }
    if coded.is_empty() || coded.len() > 5 + bytes.len() {
        coded = seal(bytes.to_vec());
        coded.insert(0, STORED);
    }
    Ok(coded)
}

fn planes(words: Words<'_>, dtype: Dtype, isa: Isa) -> Vec<u8> {
    let (bytes, layout, width) = (words.bytes, words.layout, words.layout.word_bytes());
    let n_words = bytes.len() / width;
    let pools = survey(&[Item { dtype, words, base: None }], Mode::Inference, isa).pools;
    let tensors = [(words.matrix, n_words)];
    let spare = Spare::default();
    let encoding = Encoding {
        codec: Codec::Planes,
        layout,
        pools: &pools,
        row_words: words.row_words,
        tensors: &tensors,
        may_sort: Mode::Inference.may_sort(),
        isa,
        spare: &spare,
    };
    let part_words = chunk_words(Codec::Planes, layout, n_words as u64, words.row_words);
    let chunks: Vec<Coded> = bytes
        .par_chunks(part_words * width)
        .enumerate()
        .map(|(at, part)| encoding.encode(at * part_words, part).expect("planes suit all words"))
        .collect();
    let tables = pools.to_bytes();
    let sizes: Vec<(u32, u32)> = chunks.iter().map(|c| (c.head.len() as u32, c.body.len() as u32)).collect();
    let mut out = vec![PLANES];
    out.extend((tables.len() as u32).to_le_bytes());
    out.extend(tables);
    out.extend(Index::write(part_words, &sizes));
    for Coded { head, body } in chunks {
        out.extend(head);
        out.extend(body);
    }
    out
}

/// Decodes `n_words` words.
///
/// # Errors
/// `Corrupt` if the bytes are not what [`encode`] makes of as many words.
pub fn decode(coded: &[u8], dtype: Dtype, n_words: u64, isa: Isa) -> Result<Buffer> {
    let width = dtype.layout().word_bytes();
    let damaged = || Error::corrupt("coded words are damaged");
    let n_bytes = n_words.checked_mul(width as u64).ok_or_else(damaged)?;
    let mut rest = coded;
    let form = take_u8(&mut rest).ok_or_else(damaged)?;
    match form {
        STORED => {
            let bytes = checked(rest).filter(|bytes| bytes.len() as u64 == n_bytes).ok_or_else(damaged)?;
            let mut out = Buffer::new(n_bytes)?;
            out.copy_from_slice(bytes);
            Ok(out)
        }
        CONSTANT if rest.len() == width => {
            let mut out = Buffer::new(n_bytes)?;
            out.chunks_exact_mut(width).for_each(|word| word.copy_from_slice(rest));
            Ok(out)
        }
        PLANES => decode_planes(rest, dtype, n_words, isa),
        _ => Err(damaged()),
    }
}

fn decode_planes(coded: &[u8], dtype: Dtype, n_words: u64, isa: Isa) -> Result<Buffer> {
    let layout = dtype.layout();
    let width = layout.word_bytes();
    let damaged = || Error::corrupt("coded words are damaged");
    let mut blob = coded;
    let tables_bytes = take_u32(&mut blob).filter(|&n| n as u64 <= MAX_TABLES_BYTES).ok_or_else(damaged)?;
    let pools = take(&mut blob, tables_bytes as usize)
        .and_then(Pools::from_bytes)
        .ok_or_else(damaged)?;
    let first = *blob.first_chunk::<4>().ok_or_else(damaged)?;
    let n_chunks = Index::n_chunks(first, layout, n_words, blob.len() as u64).ok_or_else(damaged)?;
    let index = blob
        .get(..Index::bytes(n_chunks))
        .and_then(|bytes| Index::parse(bytes, n_words, blob.len() as u64))
        .ok_or_else(damaged)?;
    let mut out = Buffer::new(n_words * width as u64)?;
    let jobs: Vec<_> = out.chunks_mut(index.chunk_words * width).enumerate().collect();
    jobs.into_par_iter().try_for_each(|(chunk, out)| {
        let (head, body) = &index.chunks[chunk];
        let (head, body) = (
            &blob[head.start as usize..head.end as usize],
            &blob[body.start as usize..body.end as usize],
        );
        let words = index.words_of(chunk);
        let words = words.start as usize..words.end as usize;
        let all = 0..words.len();
        let failed = |damage: Damage| Error::corrupt(damage.message);
        let decoder = Decoder::new(isa, Codec::Planes, layout, &pools, &[], head, words, body.len()).map_err(failed)?;
        let parts: Vec<&[u8]> = decoder.parts(&all, body.len()).into_iter().map(|part| &body[part]).collect();
        decoder.decode(&parts, &[], &all, out).map_err(failed)
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], dtype: Dtype, row_words: usize) -> usize {
        let isa = Isa::current().unwrap();
        let coded = encode(bytes, dtype, row_words, isa).unwrap();
        let n_words = (bytes.len() / dtype.layout().word_bytes()) as u64;
        assert_eq!(decode(&coded, dtype, n_words, isa).unwrap()[..], *bytes);
        assert!(decode(&coded[..coded.len() - 1], dtype, n_words, isa).is_err());
        assert!(coded.len() <= bytes.len() + 5);
        coded.len()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn any_words_come_back(bytes in prop::collection::vec(any::<u8>(), 0..3000), row_words in 0usize..70) {
            for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F8_E4M3] {
                let whole = bytes.len() / 4 * 4;
                if whole > 0 {
                    check(&bytes[..whole], dtype, row_words);
                }
            }
        }
    }

    #[test]
    fn likely_words_take_less_and_equal_ones_nothing() {
        let words: Vec<u8> = (0..1u32 << 17)
            .flat_map(|i| {
                let x = (i.wrapping_mul(2654435761) >> 8) as f32 / 1e7 - 0.8;
                ((x.to_bits() >> 16) as u16).to_le_bytes()
            })
            .collect();
        assert!(check(&words, Dtype::BF16, 64) < words.len() * 3 / 4);
        assert_eq!(check(&[7; 4096], Dtype::F32, 64), 5);
    }
}
