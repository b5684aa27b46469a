//! Which contexts form a class, and how its differences are cut: told from a sample.

use super::cut::Cut;
use super::grouping::MAX_CLASSES;
use crate::rans::cost::{self, ONE_BIT};

/// Differences of a class that are looked at for its cut.
const LOOK: usize = 1 << 12;
/// Values of a bucket's number, which holds its sign too.
const BUCKETS: usize = 512;
/// What an entry of a table takes.
const ENTRY_COST: u64 = 6 * ONE_BIT;
/// What a class takes besides its table's entries.
const CLASS_COST: u64 = 120 * ONE_BIT;
/// What a patch takes: its place, its value, and the symbol that stands there.
const PATCH_COST: u64 = 26 * ONE_BIT;
/// What entropy is told too low by for each value that occurs: 1 / (2 ln 2) bits (Miller, 1955).
const BIAS: u64 = 739;

/// Differences of some of the words of a chunk, by context.
pub struct Sample {
    by_context: Vec<Vec<i64>>,
    /// Words of the chunk for each of the sample, rounded down.
    scale: u64,
}

/// What a chunk's words are sorted by, and how their differences are cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Fit {
    /// The first contexts of all classes but the first.
    pub firsts: Vec<u8>,
    /// For each class.
    pub cuts: Vec<Cut>,
    /// What all words take, in 1/1024 bit for each of them.
    pub word_cost: u64,
}

impl Sample {
    /// Of a chunk of `n_words`, of which `n_sampled` will follow.
    pub fn new(n_words: usize, n_sampled: usize) -> Self {
        Self {
            by_context: vec![Vec::new(); 256],
            scale: (n_words / n_sampled.max(1)).max(1) as u64,
        }
    }

    /// Adds a word.
    pub fn add(&mut self, context: u8, difference: i64) {
        self.by_context[context as usize].push(difference);
    }

    /// The classes and cuts for differences of `word_bits` bits whose low `zeros` bits are zero.
    pub fn fit(self, word_bits: u32, zeros: u32) -> Fit {
        let mut groups: Vec<Group> = (self.by_context.iter().enumerate())
            .filter(|(_, values)| !values.is_empty())
            .map(|(context, values)| Group::new(context as u8, values, zeros, self.scale))
            .collect();
        merge(&mut groups, self.scale);
        let n_words: u64 = groups.iter().map(|group| group.n).sum();
        let ends = groups.iter().skip(1).map(|group| group.first as usize).chain([256]);
        let mut start = 0;
        let mut total = 0;
        let mut cuts = Vec::with_capacity(groups.len().max(1));
        for end in ends {
            let (cut, cost) = cut(&self.by_context[start..end], word_bits, zeros, self.scale);
            cuts.push(cut);
            total += cost;
            start = end;
        }
        Fit {
            firsts: groups.iter().skip(1).map(|group| group.first).collect(),
            cuts,
            word_cost: total / n_words.max(1),
        }
    }
}

/// Neighbouring contexts.
struct Group {
    first: u8,
    n: u64,
    counts: Vec<u32>,
    cost: u64,
}

impl Group {
    fn new(first: u8, values: &[i64], zeros: u32, scale: u64) -> Self {
        let mut counts = vec![0; BUCKETS];
        values.iter().for_each(|value| counts[bucket(value >> zeros)] += 1);
        Self {
            first,
            n: values.len() as u64,
            cost: bucket_cost(&counts, scale),
            counts,
        }
    }

    fn with(&self, next: &Group, scale: u64) -> Group {
        let counts: Vec<u32> = self.counts.iter().zip(&next.counts).map(|(a, b)| a + b).collect();
        Group {
            first: self.first,
            n: self.n + next.n,
            cost: bucket_cost(&counts, scale),
            counts,
        }
    }
}

/// Merges neighbours as long as that saves something, or there are too many.
fn merge(groups: &mut Vec<Group>, scale: u64) {
    let saving = |groups: &[Group], at: usize| {
        let merged = groups[at].with(&groups[at + 1], scale);
        (groups[at].cost + groups[at + 1].cost) as i64 - merged.cost as i64
    };
    let mut savings: Vec<i64> = (1..groups.len()).map(|at| saving(groups, at - 1)).collect();
    while let Some((at, &most)) = savings
        .iter()
        .enumerate()
        .max_by_key(|(at, saving)| (**saving, std::cmp::Reverse(*at)))
    {
        if most < 0 && groups.len() <= MAX_CLASSES {
            break;
        }
        groups[at] = groups[at].with(&groups[at + 1], scale);
        groups.remove(at + 1);
        savings.remove(at);
        for changed in at.saturating_sub(1)..(at + 1).min(savings.len()) {
            savings[changed] = saving(groups, changed);
        }
    }
}

/// A number for values of like size: their sign, and of the magnitude the top three bits and how many there are.
fn bucket(value: i64) -> usize {
    let magnitude = value.unsigned_abs();
    let number = match magnitude.checked_ilog2() {
        Some(log2 @ 3..) => 8 + 4 * (log2 as usize - 3) + (magnitude >> (log2 - 2) & 3) as usize,
        _ => magnitude as usize,
    };
    2 * number.min(BUCKETS / 2 - 1) + (value < 0) as usize
}

/// What words take whose buckets are counted, their table included.
fn bucket_cost(counts: &[u32], scale: u64) -> u64 {
    let below: u64 = (counts.iter().enumerate())
        .map(|(at, &n)| n as u64 * (at as u64 / 2).saturating_sub(8).div_euclid(4) * ONE_BIT + n as u64 * (at >= 16) as u64 * ONE_BIT)
        .sum();
    let n_used = counts.iter().filter(|n| **n > 0).count() as u64;
    cost::entropy(counts) + below + n_used * BIAS + (CLASS_COST + n_used * ENTRY_COST) / scale
}

/// The cheapest cut for the differences of a class, and what they then cost.
fn cut(values: &[Vec<i64>], word_bits: u32, zeros: u32, scale: u64) -> (Cut, u64) {
    let n: usize = values.iter().map(Vec::len).sum();
    let step = n.div_ceil(LOOK).max(1);
    let mut look: Vec<i64> = values.iter().flatten().step_by(step).map(|value| value >> zeros).collect();
    look.sort_unstable();
    let spread = |part: usize| {
        let at = look.len() / part;
        look.last().map_or(0, |_| look[look.len() - 1 - at].abs_diff(look[at]))
    };
    let bits_above = |range: u64, n_symbols: u64| {
        let too_many = (range / n_symbols).checked_ilog2();
        too_many.map_or(0, |log2| log2 + 1)
    };
    // From as many symbols as a class can use to as few as show its shape.
    let (finest, coarsest) = (
        bits_above(spread(16), 128),
        bits_above(spread(64), 16).max(bits_above(spread(16), 128)),
    );
    let best = (finest..=coarsest)
        .map(|raw_bits| {
            let (lo, counts, n_missed) = window(&look, raw_bits, -1 << (word_bits - 1));
            let n_used = counts.iter().filter(|n| **n > 0).count() as u64;
            let cost = cost::entropy(&counts) + look.len() as u64 * raw_bits as u64 * ONE_BIT + n_missed * PATCH_COST + n_used * BIAS;
            (cost * step as u64 + n_used * ENTRY_COST / scale, raw_bits, lo)
        })
        .min()
        .unwrap_or((0, 0, 0));
    let (cost, raw_bits, lo) = best;
    (Cut { lo, raw_bits, zeros }, cost)
}

/// The window of 256 symbols, from `least` on, that most of the sorted values lie in: its first one, the counts, and how many values lie outside.
fn window(sorted: &[i64], raw_bits: u32, least: i64) -> (i64, [u32; 256], u64) {
    let (mut best, mut best_n) = (0, 0);
    let mut end = 0;
    for (start, value) in sorted.iter().enumerate() {
        if start > 0 && sorted[start - 1] >> raw_bits == value >> raw_bits {
            continue;
        }
        while end < sorted.len() && (sorted[end] >> raw_bits).abs_diff(value >> raw_bits) < 256 {
            end += 1;
        }
        if end - start > best_n {
            (best, best_n) = (start, end - start);
        }
        if end == sorted.len() {
            break;
        }
    }
    let inside = &sorted[best..best + best_n];
    let lo = inside.first().map_or(0, |value| value >> raw_bits);
    let hi = inside.last().map_or(0, |value| value >> raw_bits);
    // What the sample has not shown may lie on either side of it.
    let lo = lo.saturating_sub((255 - (hi - lo)) / 2).max(least);
    let mut counts = [0; 256];
    inside.iter().for_each(|value| counts[((value >> raw_bits) - lo) as usize] += 1);
    (lo, counts, (sorted.len() - best_n) as u64)
}
