//! Decoding a `planes` chunk, whole or in part.

use super::head::{Class, Coding, Head, Piece};
use super::pool::Pool;
use crate::float::kernel::{self as float, LowBytes};
use crate::float::planes;
use crate::rans::bits::{take, take_u32};
use crate::rans::decode::{DecodeTable, Stream};
use crate::rans::{SEED_BYTES, STATES_BYTES, kernel as rans};
use crate::simd::Isa;
use std::borrow::Cow;
use std::ops::Range;

/// A chunk's head, with what is needed to decode any of its blocks.
pub struct Decoder<'a> {
    pool: &'a Pool,
    isa: Isa,
    head: Head,
    /// For each class, for each of its streams in stored order, the table if it is an own one.
    own: Vec<Vec<Option<Box<DecodeTable>>>>,
    places: Vec<(usize, Vec<Piece>)>,
    /// Byte offset of every block in the body, and of its end.
    offsets: Vec<usize>,
}

/// What is wrong with a block.
pub type Damage = (usize, &'static str);

impl<'a> Decoder<'a> {
    /// Parses a head.
    pub fn new(isa: Isa, pool: &'a Pool, head: &[u8], n_words: usize, body_bytes: usize) -> Result<Self, &'static str> {
        let head = Head::parse(head, pool, n_words, body_bytes)?;
        let own_table = |coding: &Coding| match coding {
            Coding::Own(table) => Some(DecodeTable::new(table)),
            _ => None,
        };
        let own = head.classes.iter().map(|class| class.codings().map(own_table).collect()).collect();
        let places = head.places();
        let mut offsets = vec![0];
        offsets.extend(head.blocks.iter().scan(0, |end, block| {
            *end += block.bytes as usize;
            Some(*end)
        }));
        Ok(Self {
            pool,
            isa,
            head,
            own,
            places,
            offsets,
        })
    }

    /// Number of blocks.
    pub fn n_blocks(&self) -> usize {
        self.places.len()
    }

    /// Where a block lies in the body.
    pub fn block_bytes(&self, block: usize) -> Range<usize> {
        self.offsets[block]..self.offsets[block + 1]
    }

    /// Where the blocks of a body that begins at `start` lie, with their checksums.
    pub fn checksums(&self, start: usize) -> Vec<(Range<usize>, u32)> {
        let of = |block: usize| {
            let Range { start: first, end } = self.block_bytes(block);
            (start + first..start + end, self.head.blocks[block].crc)
        };
        (0..self.n_blocks()).map(of).collect()
    }

    /// The blocks that hold any of the words in `range`.
    pub fn blocks_of(&self, range: &Range<usize>) -> Vec<usize> {
        let overlaps = |piece: &Piece| piece.start < range.end && piece.start + piece.len > range.start;
        (0..self.n_blocks())
            .filter(|&block| self.places[block].1.iter().any(overlaps))
            .collect()
    }

    /// Decodes the given blocks into the parts of `out` that they cover. `out` holds the words in `range`.
    pub fn decode(&self, blocks: &[(usize, &[u8])], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
        let mut scratch = Scratch::default();
        let (fours, rest) = blocks.as_chunks::<4>();
        for four in fours {
            self.decode_side_by_side(*four, &mut scratch, range, out)?;
        }
        let (pairs, rest) = rest.as_chunks::<2>();
        for pair in pairs {
            self.decode_side_by_side(*pair, &mut scratch, range, out)?;
        }
        for block in rest {
            self.decode_side_by_side([*block], &mut scratch, range, out)?;
        }
        Ok(())
    }

    /// Decodes `N` blocks in steps of [`STEP_WORDS`], so that symbols stay in the nearest cache and the words of one step drain to memory while
    /// the symbols of the next are decoded. The first words of a block wait for the seed, which appears with the last.
    fn decode_side_by_side<const N: usize>(
        &self,
        blocks: [(usize, &[u8]); N],
        scratch: &mut Scratch,
        range: &Range<usize>,
        out: &mut [u8],
    ) -> Result<(), Damage> {
        let n_streams = self.pool.layout.low_bytes() + 1;
        scratch.symbols.resize(2 * N * n_streams, Vec::new());
        scratch.symbols.iter_mut().for_each(|symbols| symbols.resize(STEP_WORDS, 0));
        let (first_symbols, step_symbols) = scratch.symbols.split_at_mut(N * n_streams);

        let mut opened = Vec::with_capacity(N);
        for (block, bytes) in blocks {
            if crc32fast::hash(bytes) != self.head.blocks[block].crc {
                return Err((block, "does not match its checksum"));
            }
            let (class, pieces) = &self.places[block];
            opened.push(OpenBlock::new(&self.head.classes[*class], pieces, self.pool, bytes).ok_or((block, CONTRADICTION))?);
        }
        let n_max = opened.iter().map(|block| block.n).max().unwrap_or(0);
        for start in (0..n_max).step_by(STEP_WORDS) {
            let symbols = if start == 0 { &mut *first_symbols } else { &mut *step_symbols };
            for rank in 0..n_streams {
                let jobs: Vec<_> = opened
                    .iter_mut()
                    .zip(&mut symbols[rank * N..][..N])
                    .zip(&blocks)
                    .filter_map(|((open, symbols), block)| {
                        let n = open.n.saturating_sub(start).min(STEP_WORDS);
                        let stream = open.streams[rank].as_mut()?;
                        Some((self.table(self.places[block.0].0, rank), stream, &mut symbols[..n]))
                    })
                    .collect();
                let is_whole = match <[_; N]>::try_from(jobs) {
                    Ok(jobs) => rans::decode_together(self.isa, jobs),
                    Err(jobs) => jobs.into_iter().all(|job| rans::decode_together(self.isa, [job])),
                };
                if !is_whole {
                    return Err((blocks[0].0, ENDS_WRONG));
                }
            }
            if start > 0 {
                for (k, block) in opened.iter_mut().enumerate() {
                    let stream = |rank: usize| &step_symbols[rank * N + k][..];
                    block.join(self.pool, self.isa, start, None, stream, range, &mut scratch.words, out);
                }
            }
        }
        for (k, block) in opened.iter_mut().enumerate() {
            let mut seed = None;
            for (rank, stream) in std::mem::take(&mut block.streams).into_iter().enumerate() {
                let Some(stream) = stream else { continue };
                let end = stream.finish().ok_or((blocks[k].0, ENDS_WRONG))?;
                if block.seeded == Some(rank) {
                    seed = Some(end);
                } else if end != [0; SEED_BYTES] {
                    return Err((blocks[k].0, CONTRADICTION));
                }
            }
            let stream = |rank: usize| &first_symbols[rank * N + k][..];
            block.join(self.pool, self.isa, 0, seed, stream, range, &mut scratch.words, out);
        }
        Ok(())
    }

    fn table(&self, class: usize, rank: usize) -> &DecodeTable {
        match (&self.own[class][rank], &self.head.classes[class].key) {
            (Some(table), _) => table,
            (None, Coding::Pooled(index)) => self.pool.slots(*index),
            _ => unreachable!("only rANS streams are opened"),
        }
    }
}

const CONTRADICTION: &str = "matches its checksum but contradicts itself";
const ENDS_WRONG: &str = "does not decode: a stream ends in a wrong state";

/// Words that are decoded and joined at a time: a multiple of the words of any group of a plane.
const STEP_WORDS: usize = 1 << 12;
/// Planes and low bytes of the layouts that have most of them.
const MAX_PLANES: usize = 2;
const MAX_LOW_BYTES: usize = 7;
const NOTHING: Cow<[u8]> = Cow::Borrowed(&[]);

#[derive(Default)]
struct Scratch {
    symbols: Vec<Vec<u8>>,
    words: Vec<u8>,
}

/// A block being decoded.
struct OpenBlock<'b> {
    class: &'b Class,
    pieces: &'b [Piece],
    n: usize,
    /// By rank: key first, then low bytes, highest first; None if not an rANS stream.
    streams: Vec<Option<Stream<'b>>>,
    /// The rank of the stream whose seed opens the raw section.
    seeded: Option<usize>,
    /// The raw section, as far as it is stored.
    raw: &'b [u8],
    /// Positions and keys.
    patches: Vec<(u16, u16)>,
}

impl<'b> OpenBlock<'b> {
    fn new(class: &'b Class, pieces: &'b [Piece], pool: &Pool, block: &'b [u8]) -> Option<Self> {
        let layout = pool.layout;
        let n = pieces.iter().map(|piece| piece.len).sum();
        let mut rest = block;
        let is_rans: Vec<bool> = class.codings().map(Coding::is_rans).collect();
        let mut n_words = Vec::new();
        for _ in is_rans.iter().filter(|is| **is) {
            n_words.push(usize::try_from(take_u32(&mut rest)?).ok()?.checked_mul(2)?);
        }
        let has_raw_keys = class.key == Coding::Raw;
        let n_patches = if has_raw_keys { 0 } else { take_u32(&mut rest)? as usize };
        let states: Vec<&[u8; STATES_BYTES]> = n_words
            .iter()
            .map(|_| take(&mut rest, STATES_BYTES)?.try_into().ok())
            .collect::<Option<_>>()?;
        let mut stored = states.into_iter().zip(n_words);
        let mut streams = Vec::new();
        for &is in &is_rans {
            streams.push(match is {
                true => {
                    let (states, bytes) = stored.next()?;
                    Some(Stream::new(states, take_filled(&mut rest, bytes)?)?)
                }
                false => None,
            });
        }
        let n_raw_low = class.low.iter().filter(|coding| **coding == Coding::Raw).count();
        let raw_bytes = planes::raw_bytes(layout.raw_bits(), n) + n * (has_raw_keys as usize + n_raw_low);
        let seeded = is_rans.iter().position(|is| *is).filter(|_| raw_bytes >= SEED_BYTES);
        let raw = take_filled(&mut rest, raw_bytes - seeded.map_or(0, |_| SEED_BYTES))?;
        let positions = take(&mut rest, n_patches.checked_mul(2)?)?.as_chunks::<2>().0;
        let keys = take(&mut rest, n_patches * 2)?.as_chunks::<2>().0;
        let patches: Vec<_> = positions
            .iter()
            .zip(keys)
            .map(|(at, key)| (u16::from_le_bytes(*at), u16::from_le_bytes(*key)))
            .collect();
        let is_valid =
            patches.iter().all(|(at, key)| (*at as usize) < n && key >> layout.key_bits() == 0) && patches.is_sorted_by(|a, b| a.0 < b.0);
        (rest.is_empty() && is_valid).then_some(Self {
            class,
            pieces,
            n,
            streams,
            seeded,
            raw,
            patches,
        })
    }

    /// Bytes of the raw section, whose first ones are `seed` if the block has one.
    fn section(&self, range: Range<usize>, seed: Option<[u8; SEED_BYTES]>) -> Cow<'b, [u8]> {
        let before = self.seeded.map_or(0, |_| SEED_BYTES);
        if range.start >= before {
            return Cow::Borrowed(&self.raw[range.start - before..range.end - before]);
        }
        let mut bytes = seed.unwrap_or([0; SEED_BYTES])[range.start..range.end.min(before)].to_vec();
        bytes.extend_from_slice(&self.raw[..range.end.saturating_sub(before)]);
        Cow::Owned(bytes)
    }

    /// Puts the words of the step at `start` together and copies those in `range` to their places in `out`.
    #[allow(clippy::too_many_arguments)]
    fn join<'s>(
        &mut self,
        pool: &Pool,
        isa: Isa,
        start: usize,
        seed: Option<[u8; SEED_BYTES]>,
        stream: impl Fn(usize) -> &'s [u8],
        range: &Range<usize>,
        scratch: &mut Vec<u8>,
        out: &mut [u8],
    ) {
        let layout = pool.layout;
        let width = layout.word_bytes();
        let Some(n) = self.n.checked_sub(start).map(|n| n.min(STEP_WORDS)).filter(|n| *n > 0) else {
            return;
        };
        let mut at = 0;
        let mut part = |before: usize, n: usize, whole: usize| {
            at += whole;
            self.section(at - whole + before..at - whole + before + n, seed)
        };
        let mut planes = [const { NOTHING }; MAX_PLANES];
        for (plane, width) in planes.iter_mut().zip(planes::widths(layout.raw_bits())) {
            *plane = part(
                planes::plane_bytes(width, start),
                planes::plane_bytes(width, n),
                planes::plane_bytes(width, self.n),
            );
        }
        let planes = planes.each_ref().map(|plane| &plane[..]);
        let planes = &planes[..planes::widths(layout.raw_bits()).count()];
        let symbols = match &self.class.key {
            Coding::Raw => part(start, n, self.n),
            Coding::Constant(symbol) => Cow::Owned(vec![*symbol; n]),
            _ => Cow::Borrowed(&stream(0)[..n]),
        };
        let mut low_bytes = [const { NOTHING }; MAX_LOW_BYTES];
        for (place, coding) in self.class.low.iter().enumerate().rev() {
            low_bytes[place] = match coding {
                Coding::Raw => part(start, n, self.n),
                Coding::Constant(_) => continue,
                _ => Cow::Borrowed(&stream(layout.low_bytes() - place)[..n]),
            };
        }
        let mut low = [LowBytes::Constant(0); MAX_LOW_BYTES];
        for ((low, bytes), coding) in low.iter_mut().zip(&low_bytes).zip(&self.class.low) {
            *low = match coding {
                Coding::Constant(byte) => LowBytes::Constant(*byte),
                _ => LowBytes::Each(bytes),
            };
        }
        let low = &low[..layout.low_bytes()];

        let step = start..start + n;
        let first = self.pieces.partition_point(|piece| piece.from + piece.len <= start);
        let pieces = self.pieces[first..].iter().take_while(|piece| piece.from < step.end).map(|piece| {
            let (from, end) = (piece.from.max(start), (piece.from + piece.len).min(step.end));
            (from - start, piece.start + from - piece.from, end - from)
        });
        let mut patches = self
            .patches
            .iter()
            .map(|&(at, key)| (at as usize, key))
            .filter(|(at, _)| step.contains(at))
            .peekable();
        let mut join = |words: &mut [u8]| {
            float::join(isa, layout, pool.base, &symbols, planes, low, words);
            patches
                .by_ref()
                .for_each(|(at, key)| float::set_key(layout, words, at - start, key));
        };
        // Words that lie together in the output are joined there.
        let mut pieces = pieces.peekable();
        match pieces.peek() {
            Some(&(0, to, len)) if len == n && to >= range.start && to + len <= range.end => {
                join(&mut out[(to - range.start) * width..][..n * width]);
            }
            _ => {
                scratch.resize(STEP_WORDS * width, 0);
                join(&mut scratch[..n * width]);
                for (from, to, len) in pieces {
                    let (first, last) = (to.max(range.start), (to + len).min(range.end));
                    if first < last {
                        let bytes = &scratch[(from + first - to) * width..][..(last - first) * width];
                        out[(first - range.start) * width..][..bytes.len()].copy_from_slice(bytes);
                    }
                }
            }
        }
    }
}

/// Takes `n` bytes and the zeros that fill them up to a multiple of four.
pub(in crate::codec) fn take_filled<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let part = take(bytes, n)?;
    take(bytes, n.next_multiple_of(4) - n)?
        .iter()
        .all(|byte| *byte == 0)
        .then_some(part)
}
