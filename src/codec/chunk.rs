//! One chunk of a chunked codec, encoded and decoded, whole or in part.

use super::context::{self, Matrix, Part};
use super::planes::decode::Decoder as PlanesDecoder;
use super::planes::encode::Plan;
use super::planes::{self, Pools};
use super::{Codec, Coded, Damage, Spare, delta, framed, palette, row_delta, sparse, zstd};
use crate::float::Layout;
use crate::simd::Isa;
use std::ops::Range;

/// How the chunks of a tensor are encoded.
#[derive(Clone, Copy, Debug)]
pub struct Encoding<'a> {
    /// The codec, a chunked one.
    pub codec: Codec,
    /// The layout of the words.
    pub layout: Layout,
    /// Tables shared by the file.
    pub pools: &'a Pools,
    /// Words of a row, 0 where there are no rows.
    pub row_words: usize,
    /// The tensors whose words these are, with their numbers of words.
    pub tensors: &'a [(Matrix, usize)],
    /// Whether rows may be sorted into classes, which decoding has to undo.
    pub may_sort: bool,
    /// Instruction set.
    pub isa: Isa,
    /// Memory for bodies.
    pub spare: &'a Spare,
}

impl<'a> Encoding<'a> {
    /// The plan for planes of `layout` with rows of `row_words`.
    pub(super) fn plan(&self, layout: Layout, row_words: usize) -> Plan<'a> {
        Plan {
            pool: self.pools.of(layout),
            row_words,
            may_sort: self.may_sort,
            isa: self.isa,
            spare: self.spare,
        }
    }

    /// Encodes a chunk as differences to base words.
    pub fn encode_on(&self, words: &[u8], base: &[u8]) -> Coded {
        let plan = delta::encode::Plan {
            layout: self.layout,
            isa: self.isa,
            spare: self.spare,
        };
        delta::encode::encode(plan, words, base)
    }

    /// Encodes a chunk whose first word is number `first`. None if its words do not suit the codec: too many distinct ones for a palette,
    /// or no floats for contexts.
    pub fn encode(&self, first: usize, words: &[u8]) -> Option<Coded> {
        match self.codec {
            Codec::Palette => palette::encode(self, words),
            Codec::Sparse => Some(sparse::encode(self, words)),
            Codec::RowDelta => Some(row_delta::encode(self, words)),
            Codec::Zstd => Some(zstd::encode(words)),
            Codec::Context => {
                let range = first..first + words.len() / self.layout.word_bytes();
                let parts = Part::cut(self.tensors.iter().copied(), range);
                context::encode(words, self.layout, &parts).map(framed::coded)
            }
            _ => Some(planes::encode::encode(&self.plan(self.layout, self.row_words), words)),
        }
    }
}

/// A chunk whose head has been read.
pub enum Decoder<'a> {
    /// Blocks can be decoded one by one.
    Planes(PlanesDecoder<'a>),
    /// Blocks hold indices.
    Palette(palette::Decoder<'a>),
    /// Only the whole chunk can be decoded.
    Sparse(sparse::Decoder<'a>),
    /// Only the whole chunk can be decoded.
    RowDelta(row_delta::Decoder<'a>),
    /// Only the whole chunk can be decoded.
    Zstd(framed::Decoder, usize),
    /// Only the whole chunk can be decoded.
    Context(framed::Decoder, Layout, Vec<Part>),
    /// Blocks can be decoded one by one, each with its base words.
    Delta(delta::decode::Decoder),
}

impl<'a> Decoder<'a> {
    /// Parses the head of a chunk of the words in `words` of these tensors.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        isa: Isa,
        codec: Codec,
        layout: Layout,
        pools: &'a Pools,
        tensors: &[(Matrix, usize)],
        head: &[u8],
        words: Range<usize>,
        body_bytes: usize,
    ) -> Result<Self, Damage> {
        let n_words = words.len();
        Ok(match codec {
            Codec::Palette => Decoder::Palette(palette::Decoder::new(isa, layout, pools, head, n_words, body_bytes)?),
            Codec::Sparse => Decoder::Sparse(sparse::Decoder::new(isa, layout, pools, head, n_words, body_bytes)?),
            Codec::RowDelta => Decoder::RowDelta(row_delta::Decoder::new(isa, layout, pools, head, n_words, body_bytes)?),
            Codec::Zstd => Decoder::Zstd(framed::Decoder::new(head, n_words * layout.word_bytes())?, layout.word_bytes()),
            Codec::Delta => Decoder::Delta(delta::decode::Decoder::new(isa, layout, head, n_words, body_bytes)?),
            Codec::Context if !layout.has_sign() => return Err("contexts are for words with a sign only".into()),
            Codec::Context => {
                let parts = Part::cut(tensors.iter().copied(), words);
                Decoder::Context(framed::Decoder::new(head, n_words * layout.word_bytes())?, layout, parts)
            }
            _ => Decoder::Planes(PlanesDecoder::new(isa, pools.of(layout), head, n_words, body_bytes)?),
        })
    }

    /// The parts of the body that decoding the words in `range` needs, ascending.
    pub fn parts(&self, range: &Range<usize>, body_bytes: usize) -> Vec<Range<usize>> {
        let blocks = |planes: &PlanesDecoder| planes.blocks_of(range).into_iter().map(|block| planes.block_bytes(block)).collect();
        match self {
            Decoder::Planes(planes) => blocks(planes),
            Decoder::Palette(palette) => blocks(&palette.planes),
            Decoder::Delta(delta) => delta.blocks_of(range).map(|block| delta.block_bytes(block)).collect(),
            _ => std::iter::once(0..body_bytes).collect(),
        }
    }

    /// The base words that decoding the words in `range` needs; none unless they are differences.
    pub fn base_of(&self, range: &Range<usize>) -> Range<usize> {
        match self {
            Decoder::Delta(delta) => delta.base_of(range),
            _ => 0..0,
        }
    }

    /// Decodes the words in `range` from the parts of the body that [`Decoder::parts`] named, and the base words that [`Decoder::base_of`] did.
    pub fn decode(&self, parts: &[&[u8]], base: &[u8], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
        match self {
            Decoder::Delta(delta) => delta.decode(parts, base, range, out),
            Decoder::Planes(planes) => decode_blocks(planes, parts, range, out),
            Decoder::Palette(palette) => palette.decode(parts, range, out),
            Decoder::Sparse(sparse) => sparse.decode(parts[0], range, out),
            Decoder::RowDelta(delta) => delta.decode(parts[0], range, out),
            Decoder::Zstd(frame, width) => frame.decode(parts[0], range, *width, out, |out| zstd::decode(parts[0], out)),
            Decoder::Context(frame, layout, tensors) => frame.decode(parts[0], range, layout.word_bytes(), out, |out| {
                context::decode(parts[0], *layout, tensors, out)
            }),
        }
    }

    /// Where the blocks lie in a body of `body_bytes`, with their checksums.
    pub fn blocks(&self, body_bytes: usize) -> Vec<(Range<usize>, u32)> {
        match self {
            Decoder::Planes(planes) => planes.checksums(0),
            Decoder::Palette(palette) => palette.planes.checksums(0),
            Decoder::Sparse(sparse) => sparse.blocks(),
            Decoder::RowDelta(delta) => delta.planes.checksums(0),
            Decoder::Delta(delta) => delta.checksums(),
            Decoder::Zstd(frame, _) | Decoder::Context(frame, ..) => std::iter::once((0..body_bytes, frame.crc())).collect(),
        }
    }

    /// The number of blocks, for saying where in a tensor one is.
    pub fn n_blocks(&self) -> usize {
        match self {
            Decoder::Planes(planes) => planes.n_blocks(),
            Decoder::Palette(palette) => palette.planes.n_blocks(),
            Decoder::Sparse(sparse) => sparse.n_blocks(),
            Decoder::RowDelta(delta) => delta.planes.n_blocks(),
            Decoder::Zstd(..) | Decoder::Context(..) => 1,
            Decoder::Delta(delta) => delta.n_blocks(),
        }
    }
}

/// Decodes the words in `range` from the blocks that cover it.
pub(super) fn decode_blocks(planes: &PlanesDecoder, parts: &[&[u8]], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
    let blocks: Vec<(usize, &[u8])> = planes.blocks_of(range).into_iter().zip(parts.iter().copied()).collect();
    planes
        .decode(&blocks, range, out)
        .map_err(|(block, message)| Damage::at(block, message))
}

/// Decodes a whole chunk of planes from its body.
pub(super) fn decode_all(planes: &PlanesDecoder, body: &[u8], n_words: usize, out: &mut [u8]) -> Result<(), Damage> {
    let parts: Vec<&[u8]> = (0..planes.n_blocks()).map(|block| &body[planes.block_bytes(block)]).collect();
    decode_blocks(planes, &parts, &(0..n_words), out)
}
