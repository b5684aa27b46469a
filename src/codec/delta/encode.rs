//! Encoding a `delta` chunk.

use super::cut::{Cut, raw_bytes};
use super::difference::{common_zeros, differences};
use super::fit::{Fit, Sample};
use super::grouping::{Grouped, Grouping, MAX_CLASSES, SLACK_WORDS};
use super::head::{BlockEntry, Class, Head, Symbols};
use super::number::{Word, context_of, zigzag};
use crate::codec::planes::encode::{fill, put_words};
use crate::codec::{Coded, Spare};
use crate::float::Layout;
use crate::rans::bits::put_varint;
use crate::rans::cost::ONE_BIT;
use crate::rans::encode::{EncodeTable, Encoder};
use crate::rans::{FreqTable, SEED_BYTES, histogram, kernel as rans};
use crate::simd::Isa;

/// Words of a chunk that its classes are told from.
const SAMPLE_WORDS: usize = 1 << 17;
/// Words of a stretch of the sample.
const STRETCH_WORDS: usize = 128;
/// Words of a block, binary logarithm: of one whose states are little beside its code, and of one that has hardly any code.
const USUAL_LOG2: u8 = 16;
const SPARSE_LOG2: u8 = 18;
/// Cost of a word up to which a chunk has blocks of the second kind.
const SPARSE_COST: u64 = ONE_BIT * 3 / 2;

/// How a chunk is encoded.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The layout of the words.
    pub layout: Layout,
    /// Instruction set.
    pub isa: Isa,
    /// Memory for bodies.
    pub spare: &'a Spare,
}

/// Encodes the words of a chunk as differences to as many base words.
pub fn encode(plan: Plan<'_>, words: &[u8], base: &[u8]) -> Coded {
    assert_eq!(words.len(), base.len());
    match plan.layout.word_bytes() {
        1 => encode_words::<u8>(plan, words, base),
        2 => encode_words::<u16>(plan, words, base),
        4 => encode_words::<u32>(plan, words, base),
        _ => encode_words::<u64>(plan, words, base),
    }
}

fn encode_words<W: Grouped>(plan: Plan<'_>, words: &[u8], base: &[u8]) -> Coded {
    let Plan { layout, isa, spare } = plan;
    let Fit { firsts, cuts, word_cost } = fit::<W>(plan, words, base);
    let block_log2 = if word_cost < SPARSE_COST { SPARSE_LOG2 } else { USUAL_LOG2 };
    let block_bytes = layout.word_bytes() << block_log2;

    let mut counts = [[0u32; 256]; MAX_CLASSES];
    let mut scratch = Scratch::<W>::default();
    let mut blocks: Vec<Block> = (words.chunks(block_bytes).zip(base.chunks(block_bytes)))
        .map(|(words, base)| {
            let base_crc = crc32fast::hash(base);
            let parts = (words != base).then(|| scratch.split(plan, &firsts, &cuts, words, base, &mut counts));
            Block { base_crc, parts }
        })
        .collect();
    let classes: Vec<Class> = (cuts.iter().zip(&counts))
        .map(|(&cut, counts)| Class {
            cut,
            symbols: choose(counts),
        })
        .collect();
    let tables: Vec<Option<Box<EncodeTable>>> = (classes.iter())
        .map(|class| match &class.symbols {
            Symbols::Constant(_) => None,
            Symbols::Coded(table) => Some(EncodeTable::new(table)),
        })
        .collect();

    let mut body = spare.take(words.len() / 2);
    let mut entries = Vec::with_capacity(blocks.len());
    let mut encoders = [Encoder::default(), Encoder::default()];
    for pair in blocks.chunks_mut(2) {
        let mut jobs: Vec<(&mut Parts, &mut Encoder)> = (pair.iter_mut().zip(&mut encoders))
            .filter_map(|(block, encoder)| Some((block.parts.as_mut()?, encoder)))
            .collect();
        for (parts, encoder) in &mut jobs {
            parts.patch(&classes, &counts);
            encoder.begin(parts.symbols.len(), &parts.seed(&tables));
        }
        for (class, table) in tables.iter().enumerate().rev() {
            let Some(table) = table.as_deref() else { continue };
            let streams: Vec<_> = (jobs.iter_mut())
                .map(|(parts, encoder)| (table, parts.of_class(class), &mut **encoder))
                .collect();
            match <[_; 2]>::try_from(streams) {
                Ok(streams) => rans::encode_together(isa, streams),
                Err(streams) => streams.into_iter().for_each(|stream| rans::encode_together(isa, [stream])),
            }
        }
        for (block, encoder) in pair.iter().zip(&encoders) {
            let start = body.len();
            if let Some(parts) = &block.parts {
                parts.finish(&tables, encoder, &mut body);
            }
            entries.push(BlockEntry {
                bytes: (body.len() - start) as u32,
                crc: crc32fast::hash(&body[start..]),
                base_crc: block.base_crc,
            });
        }
    }
    let head = Head {
        block_log2,
        firsts,
        classes,
        blocks: entries,
    };
    Coded {
        head: head.to_bytes(),
        body,
    }
}

/// Classes and cuts, from a sample.
fn fit<W: Word>(plan: Plan<'_>, words: &[u8], base: &[u8]) -> Fit {
    let sign = plan.layout.has_sign();
    // Words of two bytes and fewer have no room for zeros.
    let zeros = if W::BITS > 16 {
        common_zeros::<W>(plan.isa, sign, words, base)
    } else {
        0
    };
    let (words, base) = (W::all(words), W::all(base));
    let stride = words.len().div_ceil(SAMPLE_WORDS).max(1);
    let stretches = words.chunks(STRETCH_WORDS).zip(base.chunks(STRETCH_WORDS)).step_by(stride);
    let mut sample = Sample::new(words.len(), stretches.clone().map(|(words, _)| words.len()).sum());
    let (by, mask) = context_of(plan.layout);
    for (word, base) in stretches.flat_map(|(words, base)| words.iter().zip(base)) {
        let (word, base) = (W::get(*word), W::get(*base));
        let difference = if sign {
            word.difference::<true>(base)
        } else {
            word.difference::<false>(base)
        };
        sample.add(base.context(by, mask), difference.signed());
    }
    sample.fit(W::BITS, zeros)
}

/// The cheapest coding of the symbols of a class.
fn choose(counts: &[u32; 256]) -> Symbols {
    let likeliest = (0..256).rev().max_by_key(|&s| counts[s]).unwrap_or(0);
    let is_single = counts.iter().enumerate().all(|(s, &n)| n == 0 || s == likeliest);
    match FreqTable::fit(counts).filter(|_| !is_single) {
        Some((table, _)) => Symbols::Coded(table),
        None => Symbols::Constant(likeliest as u8),
    }
}

/// Memory for the differences of a block.
#[derive(Default)]
struct Scratch<W> {
    grouping: Grouping,
    natural: Vec<W>,
    grouped: Vec<W>,
}

impl<W: Grouped> Scratch<W> {
    /// Takes a block apart, and counts the symbols of each class.
    fn split(
        &mut self,
        plan: Plan<'_>,
        firsts: &[u8],
        cuts: &[Cut],
        words: &[u8],
        base: &[u8],
        counts: &mut [[u32; 256]; MAX_CLASSES],
    ) -> Parts {
        let Plan { layout, isa, .. } = plan;
        self.grouping.set::<W>(isa, layout, firsts, base);
        let n = self.grouping.n_words();
        self.natural.resize(n, W::default());
        self.grouped.resize(n + SLACK_WORDS, W::default());
        differences(isa, layout.has_sign(), words, base, &mut self.natural);
        self.grouping.group(isa, &self.natural, &mut self.grouped);
        let mut parts = Parts {
            symbols: vec![0; n],
            ..Parts::default()
        };
        for ((class, cut), counts) in cuts.iter().enumerate().zip(counts) {
            let range = self.grouping.of_class(class);
            let differences = &self.grouped[range.clone()];
            let start = parts.raw.len();
            parts.raw.resize(start + raw_bytes(cut.raw_bits, differences.len()), 0);
            let symbols = &mut parts.symbols[range.clone()];
            let is_missed = cut.split(isa, differences, symbols, &mut parts.raw[start..]);
            histogram::count(symbols, counts);
            if is_missed {
                for (at, difference) in differences.iter().enumerate().filter(|(_, difference)| !cut.shows(**difference)) {
                    parts.patches.push((range.start + at, cut.above(*difference)));
                    counts[symbols[at] as usize] -= 1;
                }
            }
            parts.ends.push(range.end);
        }
        parts
    }
}

/// A block in the making.
struct Block {
    base_crc: u32,
    /// None if it consists of its base words.
    parts: Option<Parts>,
}

/// A block that was taken apart: everything class by class.
#[derive(Default)]
struct Parts {
    symbols: Vec<u8>,
    /// The raw section.
    raw: Vec<u8>,
    /// Where symbols do not tell what is above the raw bits, and what it is.
    patches: Vec<(usize, i64)>,
    /// Where the words of each class end.
    ends: Vec<usize>,
}

impl Parts {
    fn range_of(&self, class: usize) -> std::ops::Range<usize> {
        class.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[class]
    }

    fn of_class(&self, class: usize) -> &[u8] {
        &self.symbols[self.range_of(class)]
    }

    /// Makes patches of symbols that have no place in their tables.
    fn patch(&mut self, classes: &[Class], counts: &[[u32; 256]; MAX_CLASSES]) {
        let mut rare = Vec::new();
        for (class, (Class { cut, symbols }, counts)) in classes.iter().zip(counts).enumerate() {
            let (is_coded, filler): ([bool; 256], u8) = match symbols {
                Symbols::Constant(only) => (std::array::from_fn(|s| s == *only as usize), *only),
                Symbols::Coded(table) => (std::array::from_fn(|s| table.freq(s as u8) > 0), table.likeliest()),
            };
            let range = self.range_of(class);
            let first = self.patches.partition_point(|(at, _)| *at < range.start);
            for (at, _) in self.patches[first..].iter().take_while(|(at, _)| *at < range.end) {
                self.symbols[*at] = filler;
            }
            if (0..256).all(|s| counts[s] == 0 || is_coded[s]) {
                continue;
            }
            for (at, symbol) in self.symbols[range.clone()].iter_mut().enumerate() {
                if !is_coded[*symbol as usize] {
                    rare.push((range.start + at, cut.lo + *symbol as i64));
                    *symbol = filler;
                }
            }
        }
        if !rare.is_empty() {
            self.patches.extend(rare);
            self.patches.sort_unstable_by_key(|(at, _)| *at);
        }
    }

    fn has_stream(&self, tables: &[Option<Box<EncodeTable>>]) -> bool {
        (tables.iter().enumerate()).any(|(class, table)| table.is_some() && !self.range_of(class).is_empty())
    }

    /// What the states of the stream carry, if anything.
    fn seed(&self, tables: &[Option<Box<EncodeTable>>]) -> [u8; SEED_BYTES] {
        let first = self.raw.first_chunk().filter(|_| self.has_stream(tables));
        first.copied().unwrap_or([0; SEED_BYTES])
    }

    /// Appends the stored form.
    fn finish(&self, tables: &[Option<Box<EncodeTable>>], encoder: &Encoder, out: &mut Vec<u8>) {
        let start = out.len();
        let (states, words) = encoder.finish();
        out.extend((words.len() as u32).to_le_bytes());
        out.extend((self.patches.len() as u32).to_le_bytes());
        let mut raw = &self.raw[..];
        if self.has_stream(tables) {
            out.extend(states);
            put_words(out, words);
            fill(out, start);
            raw = raw.get(SEED_BYTES..).unwrap_or(raw);
        }
        out.extend_from_slice(raw);
        fill(out, start);
        let mut next = 0;
        for (at, above) in &self.patches {
            put_varint(out, (at - next) as u64);
            put_varint(out, zigzag(*above));
            next = at + 1;
        }
        fill(out, start);
    }
}
