//! Decoding a `planes` chunk, whole or in part.

use super::encode::table_of;
use super::head::{Class, Coding, Head};
use super::pool::Pool;
use crate::float::kernel::{self as float, LowBytes};
use crate::float::planes;
use crate::limits::BLOCK_WORDS;
use crate::rans::bits::{take, take_u32};
use crate::rans::decode::{DecodeTable, Stream};
use crate::rans::{SEED_BYTES, STATES_BYTES, kernel as rans};
use crate::simd::Isa;
use std::ops::Range;

/// A chunk's head, with what is needed to decode any of its blocks.
pub struct Decoder<'a> {
    pool: &'a Pool,
    isa: Isa,
    head: Head,
    /// For each class, for each of its streams in stored order, the table if it is an own one.
    own: Vec<Vec<Option<Box<DecodeTable>>>>,
    places: Vec<(usize, Vec<(usize, usize)>)>,
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
        Ok(Self { pool, isa, head, own, places, offsets })
    }

    /// Number of blocks.
    pub fn n_blocks(&self) -> usize {
        self.places.len()
    }

    /// Where a block lies in the body.
    pub fn block_bytes(&self, block: usize) -> Range<usize> {
        self.offsets[block]..self.offsets[block + 1]
    }

    /// The blocks that hold any of the words in `range`.
    pub fn blocks_of(&self, range: &Range<usize>) -> Vec<usize> {
        let overlaps = |&(start, len): &(usize, usize)| start < range.end && start + len > range.start;
        (0..self.n_blocks()).filter(|&block| self.places[block].1.iter().any(overlaps)).collect()
    }

    /// Decodes the given blocks, whose stored bytes may be overwritten, into the parts of `out` that they cover. `out` holds the words in `range`.
    pub fn decode(&self, blocks: &mut [(usize, &mut [u8])], range: &Range<usize>, out: &mut [u8]) -> Result<(), Damage> {
        let mut scratch = Scratch::default();
        let mut pairs = blocks.chunks_exact_mut(2);
        for pair in &mut pairs {
            let [(a, bytes_a), (b, bytes_b)] = pair else { unreachable!("chunks of two") };
            self.decode_side_by_side([*a, *b], [bytes_a, bytes_b], &mut scratch, range, out)?;
        }
        for (block, bytes) in pairs.into_remainder() {
            self.decode_side_by_side([*block], [bytes], &mut scratch, range, out)?;
        }
        Ok(())
    }

    fn decode_side_by_side<const N: usize>(
        &self,
        blocks: [usize; N],
        bytes: [&mut [u8]; N],
        scratch: &mut Scratch,
        range: &Range<usize>,
        out: &mut [u8],
    ) -> Result<(), Damage> {
        let layout = self.pool.layout;
        let mut parts = Vec::with_capacity(N);
        for (k, block) in blocks.into_iter().enumerate() {
            if crc32fast::hash(bytes[k]) != self.head.blocks[block].crc {
                return Err((block, "does not match its checksum"));
            }
            let (class, pieces) = &self.places[block];
            let n = pieces.iter().map(|piece| piece.1).sum();
            parts.push(Parts::parse(&self.head.classes[*class], self.pool, n, bytes[k]).ok_or((block, CONTRADICTION))?);
        }

        // Streams of the same rank are decoded together; blocks of other classes may lack one.
        let n_streams = layout.low_bytes() + 1;
        scratch.symbols.resize(N * n_streams, Vec::new());
        let mut seeds = [[0; SEED_BYTES]; N];
        for rank in 0..n_streams {
            let mut jobs = Vec::with_capacity(N);
            for (k, symbols) in scratch.symbols[rank * N..][..N].iter_mut().enumerate() {
                symbols.resize(parts[k].n, 0);
                if let Some(stored) = &parts[k].streams[rank] {
                    let stream = stored.open(bytes[k]).ok_or((blocks[k], CONTRADICTION))?;
                    jobs.push((k, self.table(self.places[blocks[k]].0, rank), stream, &mut symbols[..]));
                }
            }
            let is_whole = match &mut jobs[..] {
                [(_, table_a, a, out_a), (_, table_b, b, out_b)] => rans::decode_pair(self.isa, [table_a, table_b], [a, b], [out_a, out_b]),
                jobs => jobs.iter_mut().all(|(_, table, stream, out)| rans::decode(self.isa, table, stream, out)),
            };
            for (k, _, stream, _) in jobs {
                let seed = stream.finish().filter(|_| is_whole).ok_or((blocks[k], "does not decode: its stream ends in a wrong state"))?;
                if parts[k].seeded == Some(rank) {
                    seeds[k] = seed;
                } else if seed != [0; SEED_BYTES] {
                    return Err((blocks[k], CONTRADICTION));
                }
            }
        }

        for k in 0..N {
            let (class, pieces) = &self.places[blocks[k]];
            let class = &self.head.classes[*class];
            let symbols = &scratch.symbols;
            let stream = |rank: usize| &symbols[rank * N + k][..parts[k].n];
            parts[k].join(self.pool, self.isa, class, stream, seeds[k], bytes[k], pieces, range, &mut scratch.words, out).ok_or((blocks[k], CONTRADICTION))?;
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

#[derive(Default)]
struct Scratch {
    symbols: Vec<Vec<u8>>,
    words: Vec<u8>,
}

/// Where a stream lies in its block.
struct StoredStream {
    states: usize,
    words: Range<usize>,
}

impl StoredStream {
    fn open<'b>(&self, block: &'b [u8]) -> Option<Stream<'b>> {
        Stream::new(block[self.states..][..STATES_BYTES].try_into().ok()?, &block[self.words.clone()])
    }
}

/// Where the parts of a block lie in it.
struct Parts {
    n: usize,
    /// By rank: key first, then low bytes, highest first; None if not an rANS stream.
    streams: Vec<Option<StoredStream>>,
    /// The rank of the stream whose seed opens the raw section.
    seeded: Option<usize>,
    raw: Range<usize>,
    raw_keys: bool,
    patches: Range<usize>,
}

impl Parts {
    fn parse(class: &Class, pool: &Pool, n: usize, block: &[u8]) -> Option<Parts> {
        let layout = pool.layout;
        let mut rest = block;
        let is_rans: Vec<bool> = class.codings().map(Coding::is_rans).collect();
        debug_assert!(class.codings().filter(|c| c.is_rans()).all(|c| table_of(c, pool).is_some()));
        let mut n_words = Vec::new();
        for _ in is_rans.iter().filter(|is| **is) {
            n_words.push(usize::try_from(take_u32(&mut rest)?).ok()?.checked_mul(2)?);
        }
        let raw_keys = class.key == Coding::Raw;
        let n_patches = if raw_keys { 0 } else { take_u32(&mut rest)? as usize };
        let mut at = block.len() - rest.len();
        let mut advance = |n: usize| {
            let start = at;
            at = at.checked_add(n)?;
            (at <= block.len()).then_some(start..at)
        };
        let filled = |range: Range<usize>, n: usize| block[range.start + n..range.end].iter().all(|b| *b == 0).then_some(range.start..range.start + n);
        let mut states = Vec::new();
        for _ in &n_words {
            states.push(advance(STATES_BYTES)?.start);
        }
        let mut streams = Vec::new();
        let mut stored = states.into_iter().zip(n_words);
        for &is in &is_rans {
            streams.push(if is {
                let (states, bytes) = stored.next()?;
                Some(StoredStream { states, words: filled(advance(bytes.next_multiple_of(4))?, bytes)? })
            } else {
                None
            });
        }
        let n_raw_low = class.low.iter().filter(|coding| **coding == Coding::Raw).count();
        let raw_bytes = planes::raw_bytes(layout.raw_bits(), n) + n * (raw_keys as usize + n_raw_low);
        let seeded = is_rans.iter().position(|is| *is).filter(|_| raw_bytes >= SEED_BYTES);
        let stored_bytes = raw_bytes - seeded.map_or(0, |_| SEED_BYTES);
        let raw = filled(advance(stored_bytes.next_multiple_of(4))?, stored_bytes)?;
        let patch_bytes = n_patches.checked_mul(4)?;
        let patches = advance(patch_bytes)?;
        (at == block.len()).then_some(Parts { n, streams, seeded, raw, raw_keys, patches })
    }

    /// Puts the words together and copies those in `range` to their places. None if a patch lies outside the block.
    #[allow(clippy::too_many_arguments)]
    fn join<'s>(
        &self,
        pool: &Pool,
        isa: Isa,
        class: &Class,
        stream: impl Fn(usize) -> &'s [u8],
        seed: [u8; SEED_BYTES],
        block: &mut [u8],
        pieces: &[(usize, usize)],
        range: &Range<usize>,
        scratch: &mut Vec<u8>,
        out: &mut [u8],
    ) -> Option<()> {
        let layout = pool.layout;
        let width = layout.word_bytes();
        let n = self.n;
        let mut raw = self.raw.clone();
        if self.seeded.is_some() {
            // States and words, which have done their work, lie in front of the raw section: the seed takes their place.
            raw.start -= SEED_BYTES;
            block[raw.start..][..SEED_BYTES].copy_from_slice(&seed);
        }
        let mut rest = &block[raw];
        let raw_planes = take(&mut rest, planes::raw_bytes(layout.raw_bits(), n))?;
        let constant;
        let symbols = match &class.key {
            Coding::Raw => take(&mut rest, n)?,
            Coding::Constant(symbol) => {
                constant = vec![*symbol; n];
                &constant
            }
            _ => stream(0),
        };
        let mut low = Vec::with_capacity(class.low.len());
        for (rank, coding) in class.codings().enumerate().skip(1) {
            low.push(match coding {
                Coding::Raw => LowBytes::Each(take(&mut rest, n)?),
                Coding::Constant(byte) => LowBytes::Constant(*byte),
                _ => LowBytes::Each(stream(rank)),
            });
        }
        low.reverse();
        debug_assert!(!self.raw_keys || class.key == Coding::Raw);

        // A block whose words lie together in the output is joined there.
        let direct = match pieces {
            [(start, len)] if *start >= range.start && start + len <= range.end => Some((start - range.start) * width),
            _ => None,
        };
        let words = match direct {
            Some(at) => &mut out[at..][..n * width],
            None => {
                scratch.resize(BLOCK_WORDS * width, 0);
                &mut scratch[..n * width]
            }
        };
        float::join(isa, layout, pool.base, symbols, raw_planes, &low, words);
        let (positions, keys) = block[self.patches.clone()].split_at(self.patches.len() / 2);
        let mut before = None;
        for (at, key) in positions.as_chunks::<2>().0.iter().zip(keys.as_chunks::<2>().0) {
            let (at, key) = (u16::from_le_bytes(*at) as usize, u16::from_le_bytes(*key));
            if at >= n || before >= Some(at) || key >> layout.key_bits() != 0 {
                return None;
            }
            before = Some(at);
            float::set_key(layout, words, at, key);
        }
        if direct.is_none() {
            let mut from = 0;
            for &(start, len) in pieces {
                let (first, last) = (start.max(range.start), (start + len).min(range.end));
                if first < last {
                    let bytes = &scratch[(from + first - start) * width..][..(last - first) * width];
                    out[(first - range.start) * width..][..bytes.len()].copy_from_slice(bytes);
                }
                from += len;
            }
        }
        Some(())
    }
}
