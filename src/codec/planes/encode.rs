//! Encoding a `planes` chunk.

use super::head::{BlockEntry, Class, Coding, Head, Piece, allows_raw_keys};
use super::pool::Pool;
use super::{assign, units};
use crate::codec::{Coded, Spare};
use crate::float::{Layout, kernel as float, layout, planes};
use crate::limits::{BLOCK_WORDS, MAX_CLASSES};
use crate::rans::cost::{self, ONE_BIT};
use crate::rans::encode::{EncodeTable, Encoder};
use crate::rans::{FreqTable, SEED_BYTES, STATES_BYTES, histogram, kernel as rans};
use crate::simd::Isa;
use std::borrow::Cow;
use std::cell::Cell;

/// Words looked at before the low bytes of a class are counted at all.
const LOW_SAMPLE_WORDS: usize = 1 << 13;

/// How a tensor is encoded.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Window and shared tables.
    pub pool: &'a Pool,
    /// Words of a row, 0 where there are no rows.
    pub row_words: usize,
    /// Whether rows may be sorted into classes by table, which decoding has to undo; by precision they always are.
    pub may_sort: bool,
    /// Instruction set.
    pub isa: Isa,
    /// Memory for bodies.
    pub spare: &'a Spare,
}

/// Encodes the words of a chunk.
pub fn encode(plan: &Plan<'_>, words: &[u8]) -> Coded {
    let pool = plan.pool;
    let layout = pool.layout;
    let n_words = words.len() / layout.word_bytes();
    let Scratch { mut symbols, mut blocks } = SCRATCH.take().unwrap_or_default();
    symbols.resize(n_words, 0);
    let has_missed = float::symbols(plan.isa, layout, pool.base, words, &mut symbols);

    let unit_words = units::unit_words(plan.row_words);
    let has_kinds = pool.tables.len() > 1 || units::n_precisions(layout) > 1;
    let sorted = (has_kinds && n_words > unit_words).then(|| sort(plan, words, &symbols, unit_words));
    let (numbers, counts) = sorted
        .flatten()
        .filter(|(_, counts)| counts.len() <= MAX_CLASSES)
        .unwrap_or_else(|| {
            let mut counts = [0; 256];
            histogram::count(&symbols, &mut counts);
            (Vec::new(), vec![(None, counts)])
        });
    let is_single = counts.len() == 1;
    let mut head = Head {
        n_words,
        classes: Vec::new(),
        unit_words: if is_single { n_words } else { unit_words },
        unit_classes: if is_single { Vec::new() } else { numbers },
        blocks: Vec::new(),
    };
    // Placing needs the number of classes only.
    head.classes = vec![
        Class {
            key: Coding::Raw,
            low: Vec::new()
        };
        counts.len()
    ];
    let places = head.places();
    head.classes = counts
        .iter()
        .enumerate()
        .map(|(class, (pooled, counts))| {
            let key = choose_key(pool, *pooled, counts, has_missed);
            let runs = places.iter().filter(|place| place.0 == class);
            Class {
                key,
                low: choose_low(plan.isa, layout, words, runs.map(|place| &place.1[..])),
            }
        })
        .collect();

    let mut body = plan.spare.take(words.len());
    let tables: Vec<Vec<Option<Box<EncodeTable>>>> = head
        .classes
        .iter()
        .map(|class| class.codings().map(|coding| table_of(coding, pool).map(EncodeTable::new)).collect())
        .collect();
    for pair in places.chunks(2) {
        for (block, (class, pieces)) in blocks.iter_mut().zip(pair) {
            block.prepare(plan, &head.classes[*class], words, &symbols, pieces, has_missed);
        }
        #[allow(clippy::needless_range_loop, reason = "ranks count the streams of several classes")]
        for rank in 0..=layout.low_bytes() {
            let jobs: Vec<_> = (blocks.iter_mut().zip(pair))
                .filter_map(|(block, (class, _))| block.job(tables[*class][rank].as_deref()?))
                .collect();
            match <[_; 2]>::try_from(jobs) {
                Ok(jobs) => rans::encode_together(plan.isa, jobs),
                Err(jobs) => jobs.into_iter().for_each(|job| rans::encode_together(plan.isa, [job])),
            }
        }
        for (block, (class, _)) in blocks.iter_mut().zip(pair) {
            let start = body.len();
            block.finish(&head.classes[*class], &mut body);
            head.blocks.push(BlockEntry {
                bytes: (body.len() - start) as u32,
                crc: crc32fast::hash(&body[start..]),
            });
        }
    }
    SCRATCH.set(Some(Scratch { symbols, blocks }));
    Coded {
        head: head.to_bytes(),
        body,
    }
}

/// What encoding a chunk needs besides its result, kept by each thread for the next one: taking fresh pages costs as much as coding does.
#[derive(Default)]
struct Scratch {
    symbols: Vec<u8>,
    blocks: [Block; 2],
}

thread_local! {
    static SCRATCH: Cell<Option<Scratch>> = const { Cell::new(None) };
}

/// The table of a coding, if it is an rANS one.
fn table_of<'a>(coding: &'a Coding, pool: &'a Pool) -> Option<&'a FreqTable> {
    match coding {
        Coding::Pooled(index) => Some(&pool.tables[*index as usize]),
        Coding::Own(table) => Some(table),
        _ => None,
    }
}

/// The class number of every unit, and of every class the index of its table in the pool and the counts of its symbols.
type Sorted = (Vec<u8>, Vec<(Option<u8>, [u32; 256])>);

/// Sorts units by precision and, where rows may be sorted, by table. None if there is nothing to sort by.
fn sort(plan: &Plan<'_>, words: &[u8], symbols: &[u8], unit_words: usize) -> Option<Sorted> {
    let layout = plan.pool.layout;
    let precisions = units::precisions(layout, words, unit_words);
    if !plan.may_sort && precisions.iter().all(|precision| *precision == precisions[0]) {
        return None;
    }
    let units = units::count(symbols, unit_words);
    let tables = if plan.may_sort {
        assign::classes(plan.isa, &units, &plan.pool.tables)
    } else {
        vec![0; units.len()]
    };
    // Classes are numbered in the order of (precision, table), those without units left out.
    let n_tables = plan.pool.tables.len().max(1);
    let mut counts = vec![None; units::n_precisions(layout) * n_tables];
    let index = |unit: usize| precisions[unit] as usize * n_tables + tables[unit] as usize;
    for (unit, unit_counts) in units.iter().enumerate() {
        units::add(counts[index(unit)].get_or_insert([0; 256]), unit_counts);
    }
    let mut number = 0;
    let numbers: Vec<u8> = counts
        .iter()
        .map(|counts| {
            let now = number;
            number += counts.is_some() as u8;
            now
        })
        .collect();
    let classes = (0..units.len()).map(|unit| numbers[index(unit)]).collect();
    let pooled = |i: usize| (!plan.pool.tables.is_empty()).then_some((i % n_tables) as u8);
    let counts = counts.iter().enumerate();
    Some((
        classes,
        counts.filter_map(|(i, counts)| counts.map(|counts| (pooled(i), counts))).collect(),
    ))
}

/// The cheapest coding of a key stream.
fn choose_key(pool: &Pool, pooled: Option<u8>, counts: &[u32; 256], has_missed: bool) -> Coding {
    let n: u64 = counts.iter().map(|&n| n as u64).sum();
    if let Some(only) = single(counts).filter(|_| !has_missed) {
        return Coding::Constant(only);
    }
    let mut best = pooled.map(|index| {
        let table = &pool.tables[index as usize];
        (cost::total(counts, &cost::symbol_costs(table)), Coding::Pooled(index))
    });
    if let Some((table, cost)) = FreqTable::fit(counts)
        && best.as_ref().is_none_or(|(least, _)| cost < *least)
    {
        best = Some((cost, Coding::Own(table)));
    }
    match best {
        Some((cost, _)) if allows_raw_keys(pool.layout) && cost + STREAM_COST > n * 8 * ONE_BIT => Coding::Raw,
        Some((_, coding)) => coding,
        None if allows_raw_keys(pool.layout) => Coding::Raw,
        // Too few words for any table: the likeliest symbol, and patches for the others.
        None => Coding::Own(FreqTable::of_two(likeliest(counts))),
    }
}

/// Length field, states and padding of an rANS stream without a seed.
const STREAM_COST: u64 = (STATES_BYTES as u64 / 2 + 6) * 8 * ONE_BIT;

fn single(counts: &[u32; 256]) -> Option<u8> {
    let mut used = (0..256).filter(|&s| counts[s] > 0);
    let only = used.next().unwrap_or(0);
    used.next().is_none().then_some(only as u8)
}

fn likeliest(counts: &[u32; 256]) -> u8 {
    (0..256).rev().max_by_key(|&s| counts[s]).unwrap_or(0) as u8
}

/// The cheapest codings of the low bytes of a class, whose blocks lie at `places`.
fn choose_low<'a>(isa: Isa, layout: Layout, words: &[u8], places: impl Iterator<Item = &'a [Piece]> + Clone) -> Vec<Coding> {
    let width = layout.word_bytes();
    (0..layout.low_bytes())
        .map(|place| {
            let mut buffer = vec![0; BLOCK_WORDS];
            let mut counts = [0; 256];
            let mut n = 0;
            for &Piece { start, len, .. } in places.clone().flatten() {
                for words in words[start * width..][..len * width].chunks(LOW_SAMPLE_WORDS * width) {
                    let buffer = &mut buffer[..words.len() / width];
                    float::low_bytes(isa, layout, place, words, buffer);
                    histogram::count(buffer, &mut counts);
                    n += buffer.len() as u64;
                    // The bias of the estimate is some 255 / (2 ln 2) bits in all.
                    if n >= LOW_SAMPLE_WORDS as u64 && cost::entropy(&counts) + 184 * ONE_BIT > n * (8 * ONE_BIT - 20) {
                        return Coding::Raw;
                    }
                }
            }
            if let Some(only) = single(&counts) {
                return Coding::Constant(only);
            }
            match FreqTable::fit(&counts) {
                Some((table, cost))
                    if cost + 2 * STREAM_COST < n * 8 * ONE_BIT
                        && counts.iter().enumerate().all(|(s, &n)| n == 0 || table.freq(s as u8) > 0) =>
                {
                    Coding::Own(table)
                }
                _ => Coding::Raw,
            }
        })
        .collect()
}

/// The parts of a block, in memory that the next one uses again.
#[derive(Default)]
struct Block {
    symbols: Vec<u8>,
    /// The raw section.
    raw: Vec<u8>,
    /// Low bytes that are coded, highest first.
    low: Vec<Vec<u8>>,
    patches: Vec<(u16, u16)>,
    /// Whether the first 64 bytes of the raw section are a seed.
    is_seeded: bool,
    /// One for each rANS stream.
    encoders: Vec<Encoder>,
    n_streams: usize,
    /// Streams that `job` has handed out: the key's, if it has one, then those of low bytes.
    n_begun: usize,
    has_key_stream: bool,
}

impl Block {
    /// Takes the block apart: all but the coding of its streams.
    fn prepare(&mut self, plan: &Plan<'_>, class: &Class, words: &[u8], symbols: &[u8], pieces: &[Piece], has_missed: bool) {
        let layout = plan.pool.layout;
        let width = layout.word_bytes();
        self.symbols.clear();
        pieces
            .iter()
            .for_each(|piece| self.symbols.extend_from_slice(&symbols[piece.start..][..piece.len]));
        let n = self.symbols.len();
        let words_of = |piece: &Piece| &words[piece.start * width..][..piece.len * width];
        let words = match pieces {
            [piece] => Cow::Borrowed(words_of(piece)),
            _ => {
                let mut gathered = Vec::with_capacity(n * width);
                pieces.iter().for_each(|piece| gathered.extend_from_slice(words_of(piece)));
                Cow::Owned(gathered)
            }
        };
        self.patches = if class.key == Coding::Raw {
            Vec::new()
        } else {
            self.patches(plan.pool, &class.key, has_missed, &words)
        };

        self.raw.resize(planes::raw_bytes(layout.raw_bits(), n), 0);
        float::raw_planes(plan.isa, layout, &words, &mut self.raw);
        if class.key == Coding::Raw {
            self.raw.extend_from_slice(&self.symbols);
        }
        let mut n_low = 0;
        for place in (0..layout.low_bytes()).rev() {
            match &class.low[place] {
                Coding::Constant(_) => {}
                Coding::Raw => {
                    let start = self.raw.len();
                    self.raw.resize(start + n, 0);
                    float::low_bytes(plan.isa, layout, place, &words, &mut self.raw[start..]);
                }
                _ => {
                    if self.low.len() == n_low {
                        self.low.push(Vec::new());
                    }
                    self.low[n_low].resize(n, 0);
                    float::low_bytes(plan.isa, layout, place, &words, &mut self.low[n_low]);
                    n_low += 1;
                }
            }
        }

        self.n_streams = class.codings().filter(|coding| coding.is_rans()).count();
        self.n_begun = 0;
        self.is_seeded = self.n_streams > 0 && self.raw.len() >= SEED_BYTES;
        self.encoders.resize_with(self.n_streams.max(self.encoders.len()), Encoder::default);
        let mut seed = [0; SEED_BYTES];
        if self.is_seeded {
            seed.copy_from_slice(&self.raw[..SEED_BYTES]);
        }
        for encoder in &mut self.encoders[..self.n_streams] {
            encoder.begin(n, &seed);
            seed = [0; SEED_BYTES];
        }
        self.has_key_stream = class.key.is_rans();
    }

    /// The next stream to be coded, with its table.
    fn job<'b>(&'b mut self, table: &'b EncodeTable) -> Option<rans::Encoding<'b, 'b>> {
        let at = self.n_begun;
        self.n_begun += 1;
        let symbols = match (self.has_key_stream, at) {
            (true, 0) => &self.symbols,
            (true, _) => &self.low[at - 1],
            (false, _) => &self.low[at],
        };
        Some((table, symbols, &mut self.encoders[at]))
    }

    /// Appends the stored form.
    fn finish(&self, class: &Class, out: &mut Vec<u8>) {
        let encoders = &self.encoders[..self.n_streams];
        let start = out.len();
        encoders
            .iter()
            .for_each(|encoder| out.extend((encoder.finish().1.len() as u32).to_le_bytes()));
        if class.key != Coding::Raw {
            out.extend((self.patches.len() as u32).to_le_bytes());
        }
        encoders.iter().for_each(|encoder| out.extend(encoder.finish().0));
        for encoder in encoders {
            put_words(out, encoder.finish().1);
            fill(out, start);
        }
        out.extend_from_slice(&self.raw[if self.is_seeded { SEED_BYTES } else { 0 }..]);
        fill(out, start);
        out.extend(self.patches.iter().flat_map(|(at, _)| at.to_le_bytes()));
        out.extend(self.patches.iter().flat_map(|(_, key)| key.to_le_bytes()));
    }

    /// Lists the keys that the stream cannot hold, and puts the likeliest symbol in their place.
    fn patches(&mut self, pool: &Pool, key: &Coding, has_missed: bool, words: &[u8]) -> Vec<(u16, u16)> {
        let (layout, base) = (pool.layout, pool.base);
        let (is_coded, filler): ([bool; 256], u8) = match (key, table_of(key, pool)) {
            (Coding::Constant(only), _) => (std::array::from_fn(|s| s == *only as usize), *only),
            (_, Some(table)) => (std::array::from_fn(|s| table.freq(s as u8) > 0), table.likeliest()),
            _ => return Vec::new(),
        };
        // Most runs of symbols lie within a span all of which is coded, which is quick to see.
        let lo = (0..filler).rev().find(|&s| !is_coded[s as usize]).map_or(0, |s| s + 1);
        let hi = (filler..=255).find(|&s| !is_coded[s as usize]).map_or(255, |s| s - 1);
        let mut patches = Vec::new();
        for (run, symbols) in self.symbols.chunks_mut(PATCH_RUN).enumerate() {
            let is_outside = symbols.iter().fold(false, |any, s| any | (s.wrapping_sub(lo) > hi - lo));
            // What the window missed looks like zero.
            let may_miss = has_missed && symbols.iter().fold(false, |any, s| any | (*s == 0));
            if !is_outside && !may_miss {
                continue;
            }
            for (i, symbol) in symbols.iter_mut().enumerate() {
                let at = run * PATCH_RUN + i;
                if is_coded[*symbol as usize] && !(has_missed && *symbol == 0) {
                    continue;
                }
                let key = float::key(layout, words, at);
                let shown = if layout.is_windowed() {
                    layout::key_of(*symbol, base)
                } else {
                    *symbol as u16
                };
                if shown != key || !is_coded[*symbol as usize] {
                    patches.push((at as u16, key));
                    *symbol = filler;
                }
            }
        }
        patches
    }
}

/// Symbols that are looked at together.
const PATCH_RUN: usize = 64;

/// Appends words, lowest byte first.
pub(in crate::codec) fn put_words(out: &mut Vec<u8>, words: &[u16]) {
    let start = out.len();
    out.resize(start + 2 * words.len(), 0);
    for (bytes, word) in out[start..].as_chunks_mut::<2>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
}

/// Fills with zeros to a multiple of four bytes from `start`.
pub(in crate::codec) fn fill(out: &mut Vec<u8>, start: usize) {
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
}
