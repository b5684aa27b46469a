//! The head of a `delta` chunk: classes, and the directory of blocks.

use super::cut::Cut;
use super::grouping::MAX_CLASSES;
use super::number::{unzigzag, zigzag};
use crate::codec::{HEAD_CRC, HEAD_WRONG, checked, seal};
use crate::float::Layout;
use crate::rans::FreqTable;
use crate::rans::bits::{put_varint, take_u8, take_u32, take_varint};
use std::ops::{Range, RangeInclusive};

/// Binary logarithms of the words of a block.
pub const BLOCK_LOG2: RangeInclusive<u8> = 12..=18;

/// How the symbols of a class are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there are a few of them for thousands of words")]
pub enum Symbols {
    /// All are this one.
    Constant(u8),
    /// rANS with this table.
    Coded(FreqTable),
}

/// Base words of like size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// How their differences are cut.
    pub cut: Cut,
    /// Their symbols.
    pub symbols: Symbols,
}

/// A block in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// Its length.
    pub bytes: u32,
    /// Its CRC-32; that of nothing if it has no bytes.
    pub crc: u32,
    /// That of its base words.
    pub base_crc: u32,
}

/// The head of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Binary logarithm of the words of a block.
    pub block_log2: u8,
    /// The first contexts of all classes but the first, ascending.
    pub firsts: Vec<u8>,
    /// Classes, by context.
    pub classes: Vec<Class>,
    /// Blocks, in order.
    pub blocks: Vec<BlockEntry>,
}

impl Head {
    /// The words of a block, of a chunk of `n_words`.
    pub fn words_of(&self, block: usize, n_words: usize) -> Range<usize> {
        let start = block << self.block_log2;
        start..n_words.min(start + (1 << self.block_log2))
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![self.block_log2, self.classes[0].cut.zeros as u8];
        put_varint(&mut out, self.classes.len() as u64);
        out.extend(&self.firsts);
        for Class { cut, symbols } in &self.classes {
            out.push(cut.raw_bits as u8);
            put_varint(&mut out, zigzag(cut.lo));
            match symbols {
                Symbols::Constant(symbol) => out.extend([1, *symbol]),
                Symbols::Coded(table) => {
                    out.push(3);
                    out.extend(table.to_bytes());
                }
            }
        }
        for block in &self.blocks {
            put_varint(&mut out, block.bytes as u64 / 4);
            if block.bytes > 0 {
                out.extend(block.crc.to_le_bytes());
            }
            out.extend(block.base_crc.to_le_bytes());
        }
        seal(out)
    }

    /// Parses the head of a chunk of `n_words` words whose blocks take `body_bytes`. The error says what is wrong with it.
    pub fn parse(bytes: &[u8], layout: Layout, n_words: usize, body_bytes: usize) -> Result<Head, &'static str> {
        let mut rest = checked(bytes).ok_or(HEAD_CRC)?;
        Self::take(&mut rest, layout, n_words, body_bytes)
            .filter(|_| rest.is_empty())
            .ok_or(HEAD_WRONG)
    }

    fn take(rest: &mut &[u8], layout: Layout, n_words: usize, body_bytes: usize) -> Option<Head> {
        let word_bits = 8 * layout.word_bytes() as u32;
        let block_log2 = take_u8(rest).filter(|log2| BLOCK_LOG2.contains(log2))?;
        let zeros = take_u8(rest)? as u32;
        let n_classes = usize::try_from(take_varint(rest)?).ok().filter(|n| (1..=MAX_CLASSES).contains(n))?;
        let firsts = (1..n_classes).map(|_| take_u8(rest)).collect::<Option<Vec<u8>>>()?;
        if firsts.first() == Some(&0) || !firsts.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let mut classes = Vec::with_capacity(n_classes);
        for _ in 0..n_classes {
            let raw_bits = take_u8(rest)? as u32;
            let lo = unzigzag(take_varint(rest)?);
            let symbols = match take_u8(rest)? {
                1 => Symbols::Constant(take_u8(rest)?),
                3 => Symbols::Coded(FreqTable::take(rest)?),
                _ => return None,
            };
            if zeros + raw_bits >= word_bits || lo >> (word_bits - 1) != lo >> 63 {
                return None;
            }
            let cut = Cut { lo, raw_bits, zeros };
            classes.push(Class { cut, symbols });
        }
        let mut blocks = Vec::new();
        let mut sum = 0u64;
        for _ in 0..n_words.div_ceil(1 << block_log2) {
            let bytes = u32::try_from(take_varint(rest)?.checked_mul(4)?).ok()?;
            sum += bytes as u64;
            let crc = if bytes > 0 { take_u32(rest)? } else { 0 };
            let base_crc = take_u32(rest)?;
            blocks.push(BlockEntry { bytes, crc, base_crc });
        }
        (sum == body_bytes as u64).then_some(Head {
            block_log2,
            firsts,
            classes,
            blocks,
        })
    }
}
