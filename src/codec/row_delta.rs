//! Chunks whose rows resemble each other: differences to the row before.

use super::chunk::{Encoding, decode_all};
use super::planes::{Pools, decode::Decoder as PlanesDecoder, encode as planes};
use super::{Coded, Damage, HEAD_CRC, HEAD_WRONG, checked, seal};
use crate::float::Layout;
use crate::rans::bits::{put_varint, take_varint};
use crate::simd::Isa;
use std::ops::Range;

/// Encodes a chunk.
pub fn encode(encoding: &Encoding<'_>, words: &[u8]) -> Coded {
    let row_words = encoding.row_words.max(1);
    let differences = differences(encoding.layout, row_words, words);
    let coded = planes::encode(&encoding.plan(encoding.layout.integer(), encoding.row_words), &differences);
    let mut head = Vec::new();
    put_varint(&mut head, row_words as u64);
    head.extend(coded.head);
    Coded {
        head: seal(head),
        body: coded.body,
    }
}

/// The differences of monotone words to those of the row before, zigzag.
pub fn differences(layout: Layout, row_words: usize, words: &[u8]) -> Vec<u8> {
    let width = layout.word_bytes();
    let bits = 8 * width as u32;
    let word = |i: usize| monotone(layout, get(&words[i * width..][..width]), bits);
    let n = words.len() / width;
    let mut out = Vec::with_capacity(words.len());
    for i in 0..n {
        let before = if i < row_words { 0 } else { word(i - row_words) };
        let d = sign_extended(word(i).wrapping_sub(before), bits);
        out.extend_from_slice(&((d << 1 ^ d >> 63) as u64).to_le_bytes()[..width]);
    }
    out
}

fn get(word: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..word.len()].copy_from_slice(word);
    u64::from_le_bytes(bytes)
}

fn sign_extended(x: u64, bits: u32) -> i64 {
    (x << (64 - bits)) as i64 >> (64 - bits)
}

/// Words whose order as two's complement integers is that of the numbers; its own inverse.
fn monotone(layout: Layout, x: u64, bits: u32) -> u64 {
    let magnitude = u64::MAX >> (65 - bits);
    if layout.has_sign() && x >> (bits - 1) & 1 != 0 {
        x ^ magnitude
    } else {
        x
    }
}

/// A chunk whose head has been read.
pub struct Decoder<'a> {
    /// The differences.
    pub planes: PlanesDecoder<'a>,
    layout: Layout,
    row_words: usize,
    n_words: usize,
}

impl<'a> Decoder<'a> {
    /// Parses a head.
    pub fn new(isa: Isa, layout: Layout, pools: &'a Pools, head: &[u8], n_words: usize, body_bytes: usize) -> Result<Self, Damage> {
        let mut rest = checked(head).ok_or(HEAD_CRC)?;
        let row_words = take_varint(&mut rest)
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n > 0)
            .ok_or(HEAD_WRONG)?;
        let planes = PlanesDecoder::new(isa, pools.of(layout.integer()), rest, n_words, body_bytes)?;
        Ok(Self {
            planes,
            layout,
            row_words,
            n_words,
        })
    }

    /// Decodes the words in `range` of the chunk.
    pub fn decode(&self, body: &[u8], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
        let width = self.layout.word_bytes();
        let bits = 8 * width as u32;
        let mut words = vec![0; self.n_words * width];
        decode_all(&self.planes, body, self.n_words, &mut words)?;
        for i in 0..self.n_words {
            let zigzag = get(&words[i * width..][..width]);
            let d = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            let before = if i < self.row_words {
                0
            } else {
                get(&words[(i - self.row_words) * width..][..width])
            };
            let sum = before.wrapping_add(d as u64);
            words[i * width..][..width].copy_from_slice(&sum.to_le_bytes()[..width]);
        }
        for word in words.chunks_exact_mut(width) {
            let plain = monotone(self.layout, get(word), bits);
            word.copy_from_slice(&plain.to_le_bytes()[..width]);
        }
        out.copy_from_slice(&words[range.start * width..range.end * width]);
        Ok(())
    }
}
