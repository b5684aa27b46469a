//! A first look at a checkpoint: which tensors are trivial, tied or small, and which tables they could share.

mod ties;

pub(crate) use ties::masters;

use crate::base::BaseTensor;
use crate::codec::planes::{Pool, Pools, assign, units};
use crate::codec::select::{self, Choice, Words};
use crate::dtype::Dtype;
use crate::float::{Layout, kernel as float};
use crate::limits::{MAX_ORDERED_WORDS, MAX_PACK_WORDS};
use crate::options::Mode;
use crate::order::{self, Order};
use crate::rans::cost::ONE_BIT;
use crate::simd::Isa;
use rayon::prelude::*;
use std::collections::HashMap;

/// Tensors with fewer words are coded together, since states, tables and directory of their own would cost them more than a percent.
pub(crate) const SMALL_WORDS: usize = 1 << 16;
/// The same for floats in `storage` mode, whose contexts learn from one tensor for the next.
const SMALL_STORAGE_WORDS: usize = 1 << 22;
/// Words from which a tensor may be worth a codec or an order of its own.
const LEAST_UNUSUAL_WORDS: usize = 1 << 12;
/// Words up to which a tensor may be stored in another order.
const ORDERED_WORDS: usize = 1 << 18;
/// Bytes of all tensors that are.
const ORDERED_BYTES: usize = 64 << 20;
/// Words of a pack.
const PACK_WORDS: usize = 1 << 18;
/// Words of each layout that tables are trained on.
const TRAINING_WORDS: usize = 1 << 21;
/// Of these, one in so many tells where the window lies.
const WINDOW_STRIDE: usize = 7;

const _: () = assert!(
    ORDERED_WORDS as u64 <= MAX_ORDERED_WORDS
        && (PACK_WORDS + SMALL_WORDS) as u64 <= MAX_PACK_WORDS
        && SMALL_STORAGE_WORDS as u64 <= MAX_PACK_WORDS
);

/// A tensor to be surveyed.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Its element type.
    pub dtype: Dtype,
    /// Its words.
    pub words: Words<'a>,
    /// What they are stored as differences to, if they are.
    pub base: Option<BaseTensor<'a>>,
}

/// How a tensor is to be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handling {
    /// By its record alone.
    Trivial(Choice),
    /// As a copy of an earlier one.
    Tied(usize),
    /// As a member of a pack.
    Packed(usize),
    /// On its own.
    Alone,
}

/// What the survey found.
#[derive(Debug)]
pub struct Survey {
    /// For each tensor.
    pub handling: Vec<Handling>,
    /// The order of each tensor's words.
    pub orders: Vec<Order>,
    /// The words of tensors that are stored in another order than the source's.
    moved: Vec<Option<Vec<u8>>>,
    /// Members of each pack.
    pub packs: Vec<Vec<usize>>,
    /// Tables to share.
    pub pools: Pools,
}

impl Survey {
    /// The tensors with their words as they are stored.
    pub fn stored<'s>(&'s self, items: &[Item<'s>]) -> Vec<Item<'s>> {
        stored(items, &self.orders, &self.moved)
    }
}

/// Surveys a checkpoint.
pub fn survey(items: &[Item<'_>], mode: Mode, isa: Isa) -> Survey {
    let trivial: Vec<Option<Choice>> = items.par_iter().map(|item| select::trivial(item.words)).collect();
    let mut handling: Vec<Handling> = trivial
        .into_iter()
        .map(|choice| choice.map_or(Handling::Alone, Handling::Trivial))
        .collect();
    tie(items, &mut handling);
    let orders = order(items, &handling, mode, isa);
    let moved: Vec<Option<Vec<u8>>> = (items.par_iter().zip(&orders))
        .map(|(item, order)| {
            let sizes = item.sizes().filter(|_| *order != Order::Natural)?;
            Some(order.store(sizes, item.words.layout.word_bytes(), item.words.bytes))
        })
        .collect();
    let stored = stored(items, &orders, &moved);
    let packs = pack(&stored, &mut handling, mode, isa);
    let mut pools = Pools::default();
    for layout in Layout::ALL {
        let alone = |(item, handling): &(&Item, &Handling)| {
            item.words.layout == layout && item.base.is_none() && matches!(handling, Handling::Alone | Handling::Packed(_))
        };
        let members: Vec<Words> = (stored.iter().zip(&handling).filter(alone))
            .map(|(item, handling)| Words {
                row_words: if *handling == Handling::Alone { item.words.row_words } else { 0 },
                ..item.words
            })
            .collect();
        if !members.is_empty() {
            pools.set(train(layout, &members, mode, isa));
        }
    }
    Survey {
        handling,
        orders,
        moved,
        packs,
        pools,
    }
}

impl Item<'_> {
    fn n_words(&self) -> usize {
        self.words.bytes.len() / self.words.layout.word_bytes()
    }

    fn sizes(&self) -> Option<[usize; 3]> {
        order::sizes(self.words.matrix, self.n_words() as u64)
    }
}

fn stored<'s>(items: &[Item<'s>], orders: &[Order], moved: &'s [Option<Vec<u8>>]) -> Vec<Item<'s>> {
    let of = |((item, order), moved): ((&Item<'s>, &Order), &'s Option<Vec<u8>>)| match (moved, item.sizes()) {
        (Some(bytes), Some(sizes)) => Item {
            words: Words {
                bytes,
                row_words: order.row_words(sizes),
                ..item.words
            },
            ..*item
        },
        _ => *item,
    };
    items.iter().zip(orders).zip(moved).map(of).collect()
}

/// The order for the words of each tensor. Others than the source's are for small float tensors in `balanced` mode: they need a copy here and
/// another one in a reader.
fn order(items: &[Item<'_>], handling: &[Handling], mode: Mode, isa: Isa) -> Vec<Order> {
    let mut budget = ORDERED_BYTES;
    let may: Vec<bool> = (items.iter().zip(handling))
        .map(|(item, handling)| {
            let n_words = item.n_words();
            let suits = *handling == Handling::Alone
                && item.base.is_none()
                && mode == Mode::Balanced
                && item.words.layout.has_sign()
                && (LEAST_UNUSUAL_WORDS..=ORDERED_WORDS).contains(&n_words)
                && item.sizes().is_some_and(|sizes| sizes[0] > 1 && sizes[1] > 1)
                && budget >= item.words.bytes.len();
            budget -= if suits { item.words.bytes.len() } else { 0 };
            suits
        })
        .collect();
    let best = |(item, may): (&Item, &bool)| {
        item.sizes()
            .filter(|_| *may)
            .map_or(Order::Natural, |sizes| Order::cheapest(item.words, sizes, isa))
    };
    items.par_iter().zip(&may).map(best).collect()
}

fn tie(items: &[Item<'_>], handling: &mut [Handling]) {
    let alone = |(item, handling): (&Item<'_>, &Handling)| (*handling == Handling::Alone).then_some(item.dtype);
    let keys: Vec<Option<Dtype>> = items.iter().zip(&*handling).map(alone).collect();
    let masters = masters(&keys, |i| items[i].words.bytes);
    for (handling, master) in handling.iter_mut().zip(masters) {
        if let Some(master) = master {
            *handling = Handling::Tied(master);
        }
    }
}

fn pack(items: &[Item<'_>], handling: &mut [Handling], mode: Mode, isa: Isa) -> Vec<Vec<usize>> {
    let learns = |item: &Item| mode == Mode::Storage && item.words.layout.has_sign() && item.base.is_none();
    let may_pack: Vec<bool> = (items.par_iter().zip(&*handling))
        .map(|(item, handling)| {
            let is_float = item.words.layout.has_sign();
            let is_unusual = || item.base.is_none() && item.n_words() >= LEAST_UNUSUAL_WORDS && select::is_unusual(item.words, mode, isa);
            let most = if learns(item) { SMALL_STORAGE_WORDS } else { SMALL_WORDS - 1 };
            *handling == Handling::Alone && item.n_words() <= most && !(is_float && is_unusual())
        })
        .collect();
    let mut open: HashMap<(Dtype, bool), (Vec<usize>, usize)> = HashMap::new();
    let mut packs = Vec::new();
    for (i, item) in items.iter().enumerate().filter(|(i, _)| may_pack[*i]) {
        let most = if learns(item) {
            SMALL_STORAGE_WORDS
        } else {
            PACK_WORDS + SMALL_WORDS
        };
        let (members, n) = open.entry((item.dtype, item.base.is_some())).or_default();
        if *n + item.n_words() > most {
            packs.push(std::mem::take(members));
            *n = 0;
        }
        members.push(i);
        *n += item.n_words();
    }
    packs.extend(open.into_values().map(|(members, _)| members));
    packs.retain(|members| members.len() > 1);
    // Which packs are the last of their dtypes depends on no hash order.
    packs.sort();
    for (pack, members) in packs.iter().enumerate() {
        members.iter().for_each(|&i| handling[i] = Handling::Packed(pack));
    }
    packs
}

/// Window and tables for all tensors of a layout.
fn train(layout: Layout, members: &[Words<'_>], mode: Mode, isa: Isa) -> Pool {
    let width = layout.word_bytes();
    let n_words: usize = members.iter().map(|words| words.bytes.len() / width).sum();
    // Every `stride`th unit is looked at.
    let stride = n_words.div_ceil(TRAINING_WORDS);
    let samples = |words: &Words<'_>| -> Vec<u8> {
        let unit = units::unit_words(words.row_words) * width;
        let mut sample = Vec::with_capacity(words.bytes.len() / stride + unit);
        words
            .bytes
            .chunks(unit)
            .step_by(stride)
            .for_each(|unit| sample.extend_from_slice(unit));
        sample
    };
    let samples: Vec<(Vec<u8>, usize)> = members
        .par_iter()
        .map(|words| (samples(words), units::unit_words(words.row_words)))
        .collect();
    let base = if layout.is_windowed() {
        base(layout, samples.par_iter().map(|(sample, _)| key_counts(layout, sample)))
    } else {
        0
    };
    // Contexts need no tables, and few floats are not coded by them.
    let max_tables = if mode == Mode::Storage && layout.has_sign() {
        0
    } else {
        mode.max_tables()
    };
    if max_tables == 0 {
        return Pool::new(layout, base, Vec::new());
    }
    let counts: Vec<units::Counts> = (samples.par_iter())
        .flat_map_iter(|(sample, unit_words)| {
            let mut symbols = vec![0; sample.len() / width];
            float::symbols(isa, layout, base, sample, &mut symbols);
            units::count(&symbols, *unit_words)
        })
        .collect();
    // What a table saves on the sample must be a noticeable part of it, or the units are of one kind.
    let least = n_words.min(TRAINING_WORDS) as u64 * ONE_BIT / 300;
    Pool::new(layout, base, assign::train(isa, &counts, max_tables, least))
}

fn key_counts(layout: Layout, words: &[u8]) -> Vec<u32> {
    let mut counts = vec![0; 1 << layout.key_bits()];
    let n = words.len() / layout.word_bytes();
    (0..n)
        .step_by(WINDOW_STRIDE)
        .for_each(|i| counts[float::key(layout, words, i) as usize] += 1);
    counts
}

/// The window that ends with the highest key that is not an outlier.
fn base(layout: Layout, counts: impl ParallelIterator<Item = Vec<u32>>) -> u16 {
    let none = || vec![0u32; 1 << layout.key_bits()];
    let counts = counts.reduce(none, |mut sum, part| {
        sum.iter_mut().zip(part).for_each(|(sum, n)| *sum += n);
        sum
    });
    let n: u64 = counts.iter().map(|&n| n as u64).sum();
    let mut above = 0u64;
    let top = (0..counts.len()).rev().find(|&key| {
        above += counts[key] as u64;
        above * 20_000 > n
    });
    (top.unwrap_or(0).saturating_sub(255) as u16).min(layout.max_base())
}
