//! How fast the codec itself is: one thread, in memory, no files and no digests.

use crate::codec::blob::{Index, chunk_words};
use crate::codec::chunk::{Decoder, Encoding};
use crate::codec::context::Matrix;
use crate::codec::planes::Pools;
use crate::codec::select::{self, Choice, Words};
use crate::codec::{Codec, Coded, Spare};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::options::Mode;
use crate::simd::Isa;
use crate::survey::{Item, survey};
use std::time::Instant;

/// Sizes and rates of one run.
#[derive(Clone, Copy, Debug)]
pub struct CodecSpeed {
    /// Bytes before.
    pub raw_bytes: u64,
    /// Bytes after, tables included.
    pub coded_bytes: u64,
    /// Raw bytes encoded a second, the choice of tables and codec included.
    pub encode_bytes_per_s: f64,
    /// Raw bytes decoded a second into memory that was written to before, checksums checked.
    pub decode_bytes_per_s: f64,
}

/// Times the codec on the words of a tensor with rows of `row_words`, or on their differences to as many base words; the best of `repeat` runs.
///
/// # Errors
/// `Option` if the bytes are no whole number of words, or suit no codec.
pub fn codec_speed(
    bytes: &[u8],
    base: Option<&[u8]>,
    dtype: Dtype,
    row_words: usize,
    mode: Mode,
    isa: Isa,
    repeat: usize,
) -> Result<CodecSpeed> {
    let layout = dtype.layout();
    let width = layout.word_bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(width) || base.is_some_and(|base| base.len() != bytes.len()) {
        return Err(Error::option(format!("{} bytes are no words of {}", bytes.len(), dtype.name())));
    }
    let n_words = bytes.len() / width;
    let matrix = Matrix::of(&[n_words / row_words.max(1), row_words.max(1)]);
    let tensors = [(matrix, n_words)];
    let single = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|error| Error::option(error.to_string()))?;
    let words = Words {
        bytes,
        layout,
        row_words,
        matrix,
        is_integer: dtype.family().is_none(),
    };
    let spare = Spare::default();
    let mut chunks: Vec<Coded> = Vec::new();
    let mut encode = || {
        let pools = if base.is_some() {
            Pools::default()
        } else {
            survey(&[Item { dtype, words, base: None }], mode, isa).pools
        };
        let codec = match base {
            Some(_) => Codec::Delta,
            None => match select::choose(words, &tensors, &pools, mode, isa) {
                Choice::Chunked(codec) => codec,
                _ => return Err(Error::option("these words do not compress")),
            },
        };
        let (pools_of, spare) = (&pools, &spare);
        let encoding = Encoding {
            codec,
            layout,
            pools: pools_of,
            row_words,
            tensors: &tensors,
            may_sort: mode.may_sort(),
            isa,
            spare,
        };
        let part_words = chunk_words(codec, layout, n_words as u64, row_words);
        chunks.drain(..).for_each(|chunk| spare.put(chunk.body));
        for (at, part) in bytes.chunks(part_words * width).enumerate() {
            let start = at * part_words * width;
            chunks.push(match base {
                Some(base) => encoding.encode_on(part, &base[start..start + part.len()]),
                None => encoding.encode(at * part_words, part).expect("the choice has looked at all words"),
            });
        }
        Ok((pools, codec))
    };
    let mut encode_s = f64::INFINITY;
    let mut made = None;
    for _ in 0..repeat.max(1) {
        let start = Instant::now();
        made = Some(single.install(&mut encode)?);
        encode_s = encode_s.min(start.elapsed().as_secs_f64());
    }
    let (pools, codec) = made.expect("at least one run");

    let part_words = chunk_words(codec, layout, n_words as u64, row_words);
    let mut out = crate::buffer::Buffer::new(bytes.len() as u64)?;
    let mut decode_s = f64::INFINITY;
    for _ in 0..repeat.max(1) + 1 {
        let start = Instant::now();
        for ((at, Coded { head, body }), out) in chunks.iter().enumerate().zip(out.chunks_mut(part_words * width)) {
            let n = out.len() / width;
            let damaged = |damage: crate::codec::Damage| Error::corrupt(damage.message);
            let decoder = Decoder::new(
                isa,
                codec,
                layout,
                &pools,
                &tensors,
                head,
                at * part_words..at * part_words + n,
                body.len(),
            )
            .map_err(damaged)?;
            let parts: Vec<&[u8]> = decoder.parts(&(0..n), body.len()).into_iter().map(|part| &body[part]).collect();
            let start = at * part_words * width;
            let base = base.map_or(&[][..], |base| &base[start..start + n * width]);
            decoder.decode(&parts, base, &(0..n), out).map_err(damaged)?;
        }
        decode_s = decode_s.min(start.elapsed().as_secs_f64());
    }
    if out[..] != *bytes {
        return Err(Error::corrupt("decoding does not give the words back"));
    }
    let rate = |seconds: f64| bytes.len() as f64 / seconds;
    let chunk_bytes: usize = chunks.iter().map(Coded::bytes).sum();
    let coded_bytes = (Index::bytes(chunks.len()) + chunk_bytes + pools.to_bytes().len()) as u64;
    Ok(CodecSpeed {
        raw_bytes: bytes.len() as u64,
        coded_bytes,
        encode_bytes_per_s: rate(encode_s),
        decode_bytes_per_s: rate(decode_s),
    })
}
