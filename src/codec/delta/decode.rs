//! Decoding a `delta` chunk, whole or in part.

use super::cut::raw_bytes;
use super::difference::restore;
use super::grouping::{Grouped, Grouping, SLACK_WORDS};
use super::head::{Head, Symbols};
use super::number::unzigzag;
use crate::codec::Damage;
use crate::codec::planes::decode::take_filled;
use crate::float::Layout;
use crate::rans::bits::{take, take_u32, take_varint};
use crate::rans::decode::{DecodeTable, Stream};
use crate::rans::{SEED_BYTES, STATES_BYTES, kernel as rans};
use crate::simd::Isa;
use std::ops::Range;

/// A chunk's head, with what is needed to decode any of its blocks.
pub struct Decoder {
    layout: Layout,
    isa: Isa,
    head: Head,
    n_words: usize,
    /// For each class, unless its symbols are all the same.
    tables: Vec<Option<Box<DecodeTable>>>,
    /// Byte offset of every block in the body, and of its end.
    offsets: Vec<usize>,
}

const CONTRADICTION: &str = "matches its checksum but contradicts itself";
const ENDS_WRONG: &str = "does not decode: a stream ends in a wrong state";

impl Decoder {
    /// Parses a head.
    pub fn new(isa: Isa, layout: Layout, head: &[u8], n_words: usize, body_bytes: usize) -> Result<Self, Damage> {
        let head = Head::parse(head, layout, n_words, body_bytes)?;
        let tables = (head.classes.iter())
            .map(|class| match &class.symbols {
                Symbols::Constant(_) => None,
                Symbols::Coded(table) => Some(DecodeTable::new(table)),
            })
            .collect();
        let mut offsets = vec![0];
        offsets.extend(head.blocks.iter().scan(0, |end, block| {
            *end += block.bytes as usize;
            Some(*end)
        }));
        Ok(Self {
            layout,
            isa,
            head,
            n_words,
            tables,
            offsets,
        })
    }

    /// Number of blocks.
    pub fn n_blocks(&self) -> usize {
        self.head.blocks.len()
    }

    /// Where a block lies in the body.
    pub fn block_bytes(&self, block: usize) -> Range<usize> {
        self.offsets[block]..self.offsets[block + 1]
    }

    /// Where the blocks lie in the body, with their checksums.
    pub fn checksums(&self) -> Vec<(Range<usize>, u32)> {
        (0..self.n_blocks())
            .map(|block| (self.block_bytes(block), self.head.blocks[block].crc))
            .collect()
    }

    /// The blocks that hold any of the words in `range`.
    pub fn blocks_of(&self, range: &Range<usize>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        range.start >> self.head.block_log2..((range.end - 1) >> self.head.block_log2) + 1
    }

    /// The base words that decoding the words in `range` needs.
    pub fn base_of(&self, range: &Range<usize>) -> Range<usize> {
        let blocks = self.blocks_of(range);
        if blocks.is_empty() {
            return 0..0;
        }
        self.head.words_of(blocks.start, self.n_words).start..self.head.words_of(blocks.end - 1, self.n_words).end
    }

    /// Decodes the words in `range` from the blocks that hold them and from their base words.
    pub fn decode(&self, parts: &[&[u8]], base: &[u8], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
        match self.layout.word_bytes() {
            1 => self.decode_words::<u8>(parts, base, range, out),
            2 => self.decode_words::<u16>(parts, base, range, out),
            4 => self.decode_words::<u32>(parts, base, range, out),
            _ => self.decode_words::<u64>(parts, base, range, out),
        }
    }

    fn decode_words<W: Grouped>(&self, parts: &[&[u8]], base: &[u8], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
        let width = self.layout.word_bytes();
        let blocks = self.blocks_of(range);
        let first = self.base_of(range).start;
        assert!(parts.len() == blocks.len() && base.len() == self.base_of(range).len() * width && out.len() == range.len() * width);
        let mut opened: [OpenBlock<'_, W>; SIDE_BY_SIDE] = std::array::from_fn(|_| OpenBlock::default());
        let mut edge = Vec::new();
        let all: Vec<(usize, &[u8])> = blocks.zip(parts.iter().copied()).collect();
        for group in all.chunks(SIDE_BY_SIDE) {
            let base_of = |block: usize| {
                let words = self.head.words_of(block, self.n_words);
                &base[(words.start - first) * width..(words.end - first) * width]
            };
            let opened = &mut opened[..group.len()];
            for (open, &(block, bytes)) in opened.iter_mut().zip(group) {
                let at_block = |damage: Damage| Damage {
                    block: Some(block),
                    ..damage
                };
                open.open(self, block, bytes, base_of(block)).map_err(at_block)?;
            }
            if !self.decode_symbols(opened) {
                return Err(Damage::at(group[0].0, ENDS_WRONG));
            }
            for (open, &(block, _)) in opened.iter_mut().zip(group) {
                let words = self.head.words_of(block, self.n_words);
                let (from, to) = (words.start.max(range.start), words.end.min(range.end));
                let is_whole = (from, to) == (words.start, words.end);
                let out = &mut out[(from - range.start) * width..(to - range.start) * width];
                let to = if is_whole {
                    &mut *out
                } else {
                    edge.resize(words.len() * width, 0);
                    &mut edge[..]
                };
                open.restore(self, base_of(block), to).ok_or(Damage::at(block, CONTRADICTION))?;
                if !is_whole {
                    let skipped = (from - words.start) * width;
                    out.copy_from_slice(&edge[skipped..skipped + out.len()]);
                }
            }
        }
        Ok(())
    }

    /// Decodes the symbols of all blocks, class by class. False if a stream has too few words.
    fn decode_symbols<W: Grouped>(&self, opened: &mut [OpenBlock<'_, W>]) -> bool {
        for (class, table) in self.tables.iter().enumerate() {
            let Some(table) = table.as_deref() else { continue };
            let streams: Vec<_> = (opened.iter_mut())
                .filter_map(|open| {
                    let range = open.grouping.of_class(class);
                    Some((table, open.stream.as_mut()?, &mut open.symbols[range]))
                })
                .collect();
            let is_whole = match <[_; SIDE_BY_SIDE]>::try_from(streams) {
                Ok(streams) => rans::decode_together(self.isa, streams),
                Err(streams) => streams.into_iter().all(|stream| rans::decode_together(self.isa, [stream])),
            };
            if !is_whole {
                return false;
            }
        }
        true
    }
}

/// Blocks that are decoded together, so that one waits less for the other.
const SIDE_BY_SIDE: usize = 4;

/// A block being decoded, in memory that the next one uses again.
struct OpenBlock<'b, W> {
    /// Whether the block consists of its base words.
    is_base: bool,
    grouping: Grouping,
    stream: Option<Stream<'b>>,
    /// The raw section, as far as it is stored, and whether the seed of the stream comes before it.
    raw: &'b [u8],
    is_seeded: bool,
    patches: &'b [u8],
    n_patches: usize,
    symbols: Vec<u8>,
    grouped: Vec<W>,
    natural: Vec<W>,
}

impl<W> Default for OpenBlock<'_, W> {
    fn default() -> Self {
        Self {
            is_base: true,
            grouping: Grouping::default(),
            stream: None,
            raw: &[],
            is_seeded: false,
            patches: &[],
            n_patches: 0,
            symbols: Vec::new(),
            grouped: Vec::new(),
            natural: Vec::new(),
        }
    }
}

impl<'b, W: Grouped> OpenBlock<'b, W> {
    /// Checks a block and finds its parts.
    fn open(&mut self, decoder: &Decoder, block: usize, bytes: &'b [u8], base: &[u8]) -> Result<(), Damage> {
        let entry = decoder.head.blocks[block];
        self.stream = None;
        if crc32fast::hash(base) != entry.base_crc {
            return Err(Damage::of_base());
        }
        if crc32fast::hash(bytes) != entry.crc && !bytes.is_empty() {
            return Err("does not match its checksum".into());
        }
        self.is_base = bytes.is_empty();
        if self.is_base {
            return Ok(());
        }
        self.grouping.set::<W>(decoder.isa, decoder.layout, &decoder.head.firsts, base);
        self.symbols.resize(self.grouping.n_words(), 0);
        self.take(decoder, bytes).ok_or(CONTRADICTION.into())
    }

    fn take(&mut self, decoder: &Decoder, bytes: &'b [u8]) -> Option<()> {
        let mut rest = bytes;
        let stream_bytes = usize::try_from(take_u32(&mut rest)?).ok()?.checked_mul(2)?;
        self.n_patches = take_u32(&mut rest)? as usize;
        let has_stream =
            (decoder.tables.iter().enumerate()).any(|(class, table)| table.is_some() && !self.grouping.of_class(class).is_empty());
        if has_stream {
            let states: &[u8; STATES_BYTES] = take(&mut rest, STATES_BYTES)?.try_into().ok()?;
            self.stream = Some(Stream::new(states, take_filled(&mut rest, stream_bytes)?)?);
        } else if stream_bytes > 0 {
            return None;
        }
        let cuts = decoder.head.classes.iter().map(|class| class.cut).enumerate();
        let n_raw: usize = cuts
            .map(|(class, cut)| raw_bytes(cut.raw_bits, self.grouping.of_class(class).len()))
            .sum();
        self.is_seeded = has_stream && n_raw >= SEED_BYTES;
        self.raw = take_filled(&mut rest, n_raw - if self.is_seeded { SEED_BYTES } else { 0 })?;
        self.patches = rest;
        Some(())
    }

    /// Puts the words together. None if what is stored is not what an encoder makes.
    fn restore(&mut self, decoder: &Decoder, base: &[u8], out: &mut [u8]) -> Option<()> {
        if self.is_base {
            out.copy_from_slice(base);
            return Some(());
        }
        let n = self.grouping.n_words();
        let mut seed = [0; SEED_BYTES];
        if let Some(stream) = self.stream.take() {
            seed = stream.finish()?;
            if !self.is_seeded && seed != [0; SEED_BYTES] {
                return None;
            }
        }
        self.grouped.resize(n + SLACK_WORDS, W::default());
        // The raw section comes in two pieces, of which only the seed is to be moved: the first class whose raw bits reach beyond it is copied.
        let mut section = Section {
            seed: if self.is_seeded { &seed } else { &[] },
            rest: self.raw,
            joined: Vec::new(),
        };
        for (class, of_class) in decoder.head.classes.iter().enumerate() {
            let range = self.grouping.of_class(class);
            if let Symbols::Constant(symbol) = of_class.symbols {
                self.symbols[range.clone()].fill(symbol);
            }
            let raw = section.take(raw_bytes(of_class.cut.raw_bits, range.len()));
            of_class
                .cut
                .join(decoder.isa, &self.symbols[range.clone()], raw, &mut self.grouped[range]);
        }
        self.patch(decoder)?;
        self.natural.resize(n, W::default());
        self.grouping.ungroup(decoder.isa, &self.grouped, &mut self.natural);
        restore(decoder.isa, decoder.layout.has_sign(), &self.natural, base, out);
        Some(())
    }

    /// Puts the patches in their places.
    fn patch(&mut self, decoder: &Decoder) -> Option<()> {
        let mut rest = self.patches;
        let mut at = 0;
        let mut class = 0;
        for _ in 0..self.n_patches {
            at = usize::try_from(take_varint(&mut rest)?).ok()?.checked_add(at)?;
            if at >= self.grouping.n_words() {
                return None;
            }
            while at >= self.grouping.of_class(class).end {
                class += 1;
            }
            let above = unzigzag(take_varint(&mut rest)?);
            decoder.head.classes[class].cut.set_above(&mut self.grouped[at], above);
            at += 1;
        }
        (rest.len() < 4
            && (self.patches.len() - rest.len()).next_multiple_of(4) == self.patches.len()
            && rest.iter().all(|byte| *byte == 0))
        .then_some(())
    }
}

/// The raw section, of which the stream carries the beginning.
struct Section<'s> {
    seed: &'s [u8],
    rest: &'s [u8],
    joined: Vec<u8>,
}

impl Section<'_> {
    /// The next `n` bytes, which there are.
    fn take(&mut self, n: usize) -> &[u8] {
        if self.seed.is_empty() {
            let (taken, rest) = self.rest.split_at(n);
            self.rest = rest;
            return taken;
        }
        let (from_seed, seed) = self.seed.split_at(n.min(self.seed.len()));
        let (from_rest, rest) = self.rest.split_at(n - from_seed.len());
        (self.seed, self.rest) = (seed, rest);
        self.joined.clear();
        self.joined.extend_from_slice(from_seed);
        self.joined.extend_from_slice(from_rest);
        &self.joined
    }
}
