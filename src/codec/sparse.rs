//! Chunks with many zeros: a bit mask of the other words, and these words.

use super::chunk::{Encoding, decode_all};
use super::planes::{Pools, decode::Decoder as PlanesDecoder, encode as planes};
use super::{Coded, Damage, HEAD_CRC, HEAD_WRONG, checked, seal};
use crate::float::Layout;
use crate::rans::bits::{put_varint, take, take_varint};
use crate::simd::Isa;
use std::ops::Range;

/// Encodes a chunk.
pub fn encode(encoding: &Encoding<'_>, words: &[u8]) -> Coded {
    let width = encoding.layout.word_bytes();
    let mut mask = vec![0u8; (words.len() / width).div_ceil(8)];
    let mut values = Vec::new();
    for (i, word) in words.chunks_exact(width).enumerate() {
        if word.iter().any(|&byte| byte != 0) {
            mask[i / 8] |= 1 << (i % 8);
            values.extend_from_slice(word);
        }
    }
    let coded_mask = planes::encode(&encoding.plan(Layout::Byte, 0), &mask);
    let mut head = Vec::new();
    put_varint(&mut head, (values.len() / width) as u64);
    put_varint(&mut head, coded_mask.head.len() as u64);
    head.extend(coded_mask.head);
    let mut body = coded_mask.body;
    if !values.is_empty() {
        let coded_values = planes::encode(&encoding.plan(encoding.layout, 0), &values);
        put_varint(&mut head, body.len() as u64);
        head.extend(coded_values.head);
        body.extend(coded_values.body);
    }
    Coded { head: seal(head), body }
}

/// A chunk whose head has been read.
pub struct Decoder<'a> {
    mask: PlanesDecoder<'a>,
    mask_bytes: usize,
    values: Option<PlanesDecoder<'a>>,
    n_values: usize,
    n_words: usize,
    width: usize,
}

impl<'a> Decoder<'a> {
    /// Parses a head.
    pub fn new(isa: Isa, layout: Layout, pools: &'a Pools, head: &[u8], n_words: usize, body_bytes: usize) -> Result<Self, Damage> {
        let mut rest = checked(head).ok_or(HEAD_CRC)?;
        let mut parse = || {
            let n_values = usize::try_from(take_varint(&mut rest)?).ok().filter(|&n| n <= n_words)?;
            let mask_head_bytes = usize::try_from(take_varint(&mut rest)?).ok()?;
            let mask_head = take(&mut rest, mask_head_bytes)?;
            let mask_bytes = if n_values > 0 {
                usize::try_from(take_varint(&mut rest)?).ok()?
            } else {
                body_bytes
            };
            (mask_bytes <= body_bytes && (n_values > 0 || rest.is_empty())).then_some((n_values, mask_head, mask_bytes, rest))
        };
        let (n_values, mask_head, mask_bytes, values_head) = parse().ok_or(HEAD_WRONG)?;
        let mask = PlanesDecoder::new(isa, pools.of(Layout::Byte), mask_head, n_words.div_ceil(8), mask_bytes)?;
        let values = match n_values {
            0 => None,
            _ => Some(PlanesDecoder::new(
                isa,
                pools.of(layout),
                values_head,
                n_values,
                body_bytes - mask_bytes,
            )?),
        };
        Ok(Self {
            mask,
            mask_bytes,
            values,
            n_values,
            n_words,
            width: layout.word_bytes(),
        })
    }

    /// Where the blocks of mask and values lie in the body, with their checksums.
    pub fn blocks(&self) -> Vec<(Range<usize>, u32)> {
        let mut blocks = self.mask.checksums(0);
        blocks.extend(self.values.iter().flat_map(|values| values.checksums(self.mask_bytes)));
        blocks
    }

    /// Number of blocks of mask and values.
    pub fn n_blocks(&self) -> usize {
        self.mask.n_blocks() + self.values.as_ref().map_or(0, PlanesDecoder::n_blocks)
    }

    /// Decodes the words in `range` of the chunk.
    pub fn decode(&self, body: &[u8], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
        let mut mask = vec![0; self.n_words.div_ceil(8)];
        decode_all(&self.mask, &body[..self.mask_bytes], mask.len(), &mut mask)?;
        let mut values = vec![0; self.n_values * self.width];
        if let Some(planes) = &self.values {
            decode_all(planes, &body[self.mask_bytes..], self.n_values, &mut values).map_err(|damage| Damage {
                block: damage.block.map(|block| block + self.mask.n_blocks()),
                ..damage
            })?;
        }
        let is_set = |i: usize| mask[i / 8] >> (i % 8) & 1 != 0;
        let n_set: usize = mask.iter().map(|byte| byte.count_ones() as usize).sum();
        if n_set != self.n_values || (self.n_words..mask.len() * 8).any(is_set) {
            return Err("the mask does not fit the number of values".into());
        }
        let mut values = values
            .chunks_exact(self.width)
            .skip((0..range.start).filter(|&i| is_set(i)).count());
        for (i, word) in range.clone().zip(out.chunks_exact_mut(self.width)) {
            match is_set(i) {
                true => word.copy_from_slice(values.next().expect("as many values as bits are set")),
                false => word.fill(0),
            }
        }
        Ok(())
    }
}
