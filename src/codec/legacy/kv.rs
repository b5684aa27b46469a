//! Keys and values of an attention layer, as the published package holds them in memory.

use super::ans::Ans;
use super::buckets::{self, BF16};
use super::cursor::Cursor;
use super::range::Range;
use super::{Codec, damaged};
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::limits::MAX_DIMS;
use crate::pool::Threads;

/// Keys or values.
pub struct Tensor {
    /// BF16, F8_E4M3 or F8_E5M2.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its words.
    pub words: Buffer,
}

/// The start of an entry in chunks.
const CHUNKS: &[u8; 4] = b"BSKC";
/// The axis of a tensor whose words do not depend on each other.
const NO_AXIS: u8 = 255;

/// The keys and values of an entry.
///
/// # Errors
/// `Corrupt` if it is none; `Io` of kind `OutOfMemory`.
pub fn decode(entry: &[u8]) -> Result<[Tensor; 2]> {
    match entry.strip_prefix(CHUNKS) {
        Some(rest) => decode_chunks(Cursor(rest)),
        None => decode_entry(entry).map(|tensors| tensors.map(|(tensor, _)| tensor)),
    }
}

/// Entries that follow each other along their axis.
fn decode_chunks(mut rest: Cursor<'_>) -> Result<[Tensor; 2]> {
    let _versions = rest.u16()?;
    let n_chunks = rest.u32()?;
    let _nominal = rest.u32()?;
    let mut chunks: [Vec<(Tensor, usize)>; 2] = Default::default();
    for _ in 0..n_chunks {
        for (all, tensor) in chunks.iter_mut().zip(decode_entry(rest.prefixed()?)?) {
            all.push(tensor);
        }
    }
    let [keys, values] = chunks;
    Ok([joined(keys)?, joined(values)?])
}

/// Tensors one after the other along their axis.
fn joined(chunks: Vec<(Tensor, usize)>) -> Result<Tensor> {
    let wrong = || damaged("its chunks do not fit each other");
    let (first, axis) = chunks.first().ok_or_else(wrong)?;
    let (dtype, axis, mut shape) = (first.dtype, *axis, first.shape.clone());
    let mut length = 0u64;
    let mut n_bytes = 0u64;
    for (chunk, other_axis) in &chunks {
        length = length.checked_add(*chunk.shape.get(axis).ok_or_else(wrong)?).ok_or_else(wrong)?;
        n_bytes += chunk.words.len() as u64;
        let mut rest = chunk.shape.clone();
        rest[axis] = shape[axis];
        if rest != shape || *other_axis != axis || chunk.dtype != dtype {
            return Err(wrong());
        }
    }
    shape[axis] = length;
    let mut words = Buffer::new(n_bytes)?;
    let n_rows: usize = shape[..axis].iter().map(|&d| d as usize).product();
    let mut out = &mut words[..];
    for row in 0..n_rows {
        for (chunk, _) in &chunks {
            let n = chunk.words.len() / n_rows;
            let to = out.split_off_mut(..n).ok_or_else(wrong)?;
            to.copy_from_slice(&chunk.words[row * n..(row + 1) * n]);
        }
    }
    Ok(Tensor { dtype, shape, words })
}

/// An entry that is no chunks, each tensor with the axis that words may depend on each other along.
fn decode_entry(entry: &[u8]) -> Result<[(Tensor, usize); 2]> {
    let mut entry = Cursor(entry);
    let version = entry.u8()?;
    match version {
        1 | 2 => (),
        3 => {
            entry.u8()?;
        }
        _ => return Err(damaged("the entry is of no known version")),
    }
    Ok([decode_tensor(&mut entry, version)?, decode_tensor(&mut entry, version)?])
}

fn decode_tensor(entry: &mut Cursor<'_>, version: u8) -> Result<(Tensor, usize)> {
    let (dtype, is_sequence) = if version == 3 {
        let dtype = match entry.u8()? {
            0 => Dtype::BF16,
            1 => Dtype::F8_E4M3,
            2 => Dtype::F8_E5M2,
            _ => return Err(damaged("the entry is of no known dtype")),
        };
        (dtype, entry.u8()? == 1)
    } else {
        (Dtype::BF16, false)
    };
    let n_dims = entry.u8()? as usize;
    let axis = if version == 3 { entry.u8()? } else { NO_AXIS };
    if n_dims > MAX_DIMS {
        return Err(damaged("the entry has too many dimensions"));
    }
    let shape: Vec<u64> = entry.u32s(n_dims)?.into_iter().map(u64::from).collect();
    let blob = entry.prefixed()?;
    let n_bytes = dtype.bytes_of(&shape).ok_or_else(|| damaged("the shape is that of no tensor"))?;
    if n_bytes > 0 && Cursor(blob).u32()? as u64 != n_bytes / dtype.layout().word_bytes() as u64 {
        return Err(damaged("the blob is of another number of elements"));
    }
    let mut words = Buffer::new(n_bytes)?;
    let axis = if axis == NO_AXIS { n_dims.saturating_sub(2) } else { axis as usize };
    let steps = is_sequence.then(|| Steps::along(&shape, axis)).transpose()?;
    if !words.is_empty() {
        match dtype {
            Dtype::BF16 if version == 1 => buckets::decode::<Range>(&BF16, blob, Threads::One, &mut words)?,
            Dtype::BF16 => buckets::decode_with::<Ans>(&BF16, blob, Threads::One, &mut words, |symbols| {
                // The low bytes are exponents, the high ones signs.
                steps
                    .iter()
                    .for_each(|steps| steps.undo(symbols, |symbol, before| symbol[0] = symbol[0].wrapping_add(before[0])));
            })?,
            _ => {
                Codec::F8Cat.decode(blob, Threads::One, &mut words)?;
                let bytes = words.as_chunks_mut::<1>().0;
                steps
                    .iter()
                    .for_each(|steps| steps.undo(bytes, |byte, before| byte[0] ^= before[0]));
            }
        }
    }
    Ok((Tensor { dtype, shape, words }, axis))
}

/// Elements that follow each other along an axis.
struct Steps {
    /// Positions on the axis.
    length: usize,
    /// Elements of a position.
    stride: usize,
}

impl Steps {
    fn along(shape: &[u64], axis: usize) -> Result<Steps> {
        let (length, inner) = shape
            .get(axis..)
            .and_then(<[u64]>::split_first)
            .ok_or_else(|| damaged("the entry has no such axis"))?;
        Ok(Steps {
            length: *length as usize,
            stride: inner.iter().map(|&d| d as usize).product(),
        })
    }

    /// Has `join` make each element of its difference and the element before.
    fn undo<const N: usize>(&self, elements: &mut [[u8; N]], join: impl Fn(&mut [u8; N], [u8; N])) {
        for i in 0..elements.len() {
            if !(i / self.stride).is_multiple_of(self.length) {
                let before = elements[i - self.stride];
                join(&mut elements[i], before);
            }
        }
    }
}
