//! Which unit is of which class: clustering of units by the tables that code them cheapest.
//!
//! This is entropy-constrained vector quantisation (Chou, Lookabaugh and Gray, 1989) with code lengths as the distortion: tables are
//! fitted to the units of a class, units go to the table that codes them and their class number in the fewest bits. All in integers.
#![allow(unsafe_code)]

use super::units::{self, Counts};
use crate::rans::FreqTable;
use crate::rans::cost::{ONE_BIT, symbol_costs};
use crate::simd::Isa;
#[cfg(target_arch = "x86_64")]
use crate::simd::Level;

/// Costs here are counted in 1/512 bit, so that they fit 16 bits with a sign.
const BIT: u32 = 512;

/// What a class more costs a chunk: directory, states and the halves of bytes and words that its blocks leave empty.
const CLASS_COST: u64 = 720 * BIT as u64;

/// The cost of every unit under every table: `costs[unit * n_tables + table]`.
pub struct Costs {
    costs: Vec<u32>,
    n_tables: usize,
}

impl Costs {
    /// Multiplies counts by code lengths.
    pub fn new(isa: Isa, units: &[Counts], tables: &[FreqTable]) -> Costs {
        let lengths: Vec<Counts> = tables
            .iter()
            .map(|table| symbol_costs(table).map(|cost| (cost as u32 * BIT / ONE_BIT as u32) as i16))
            .collect();
        let mut costs = vec![0; units.len() * tables.len()];
        match isa.level() {
            // SAFETY: holding an `Isa` of that level proves that the machine has its instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { multiply_avx2(units, &lengths, &mut costs) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { multiply_avx512(units, &lengths, &mut costs) },
            _ => multiply(units, &lengths, &mut costs),
        }
        Costs {
            costs,
            n_tables: tables.len(),
        }
    }

    fn of_unit(&self, unit: usize) -> &[u32] {
        &self.costs[unit * self.n_tables..][..self.n_tables]
    }

    fn n_units(&self) -> usize {
        self.costs.len() / self.n_tables.max(1)
    }

    /// The cheapest tables for the units, using few tables: those whose use saves less than they cost are dropped.
    pub fn assign(&self, table_cost: u64) -> Vec<u8> {
        let mut is_open = vec![true; self.n_tables];
        let mut number_cost = vec![0u32; self.n_tables];
        loop {
            let mut classes = vec![0u8; self.n_units()];
            let mut n_of = vec![0u32; self.n_tables];
            // What each class saves over the next best ones.
            let mut saved = vec![0u64; self.n_tables];
            for (unit, class) in classes.iter_mut().enumerate() {
                let (mut best, mut second) = ((u32::MAX, 0), u32::MAX);
                for (table, cost) in self.of_unit(unit).iter().enumerate().filter(|(table, _)| is_open[*table]) {
                    let cost = cost.saturating_add(number_cost[table]);
                    if cost < best.0 {
                        second = best.0;
                        best = (cost, table);
                    } else {
                        second = second.min(cost);
                    }
                }
                *class = best.1 as u8;
                n_of[best.1] += 1;
                saved[best.1] += (second - best.0) as u64;
            }
            let n_open = is_open.iter().filter(|open| **open).count();
            let Some(worst) = (0..self.n_tables).filter(|&t| is_open[t]).min_by_key(|&t| saved[t]) else {
                return classes;
            };
            if n_open <= 1 || saved[worst] >= table_cost {
                return classes;
            }
            // All unused ones go at once; of those in use the least useful.
            let mut any_unused = false;
            for table in 0..self.n_tables {
                if is_open[table] && n_of[table] == 0 {
                    is_open[table] = false;
                    any_unused = true;
                }
            }
            if !any_unused {
                is_open[worst] = false;
            }
            let n_units = self.n_units() as u32;
            for (cost, &n) in number_cost.iter_mut().zip(&n_of) {
                *cost = (n_units / n.max(1)).max(1).ilog2() * BIT;
            }
        }
    }
}

#[inline(always)]
fn multiply(units: &[Counts], lengths: &[Counts], costs: &mut [u32]) {
    for (unit, costs) in units.iter().zip(costs.chunks_exact_mut(lengths.len().max(1))) {
        for (cost, lengths) in costs.iter_mut().zip(lengths) {
            *cost = unit.iter().zip(lengths).map(|(&n, &length)| n as i32 * length as i32).sum::<i32>() as u32;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn multiply_avx2(units: &[Counts], lengths: &[Counts], costs: &mut [u32]) {
    multiply(units, lengths, costs);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn multiply_avx512(units: &[Counts], lengths: &[Counts], costs: &mut [u32]) {
    multiply(units, lengths, costs);
}

/// Classes for the units of a chunk, given the tables of the pool.
pub fn classes(isa: Isa, units: &[Counts], tables: &[FreqTable]) -> Vec<u8> {
    if tables.len() < 2 || units.len() < 2 {
        return vec![0; units.len()];
    }
    Costs::new(isa, units, tables).assign(CLASS_COST)
}

/// Up to `max_tables` tables that code the units well, each of which saves its own size and `least_saving` (in 1/1024 bit).
pub fn train(isa: Isa, units: &[Counts], max_tables: usize, least_saving: u64) -> Vec<FreqTable> {
    const ROUNDS: usize = 6;
    let mut classes = by_mean(units, max_tables);
    let mut tables = Vec::new();
    for _ in 0..ROUNDS {
        tables = fit(units, &classes);
        if tables.len() < 2 {
            break;
        }
        let stored_bits = tables.iter().map(|table| table.to_bytes().len() as u64).sum::<u64>() * 8 / tables.len() as u64;
        let next = Costs::new(isa, units, &tables).assign(stored_bits * BIT as u64 + least_saving * BIT as u64 / ONE_BIT);
        if next == classes {
            break;
        }
        classes = next;
    }
    tables
}

/// What the units cost, their class numbers included, with up to `max_tables` tables made for them; in 1/512 bit, tables not counted.
pub fn least_cost(isa: Isa, units: &[Counts], max_tables: usize) -> u64 {
    let tables = train(isa, units, max_tables.min(units.len()), 0);
    let costs = Costs::new(isa, units, &tables);
    let number_cost = units.len() as u64 * (2 * tables.len().max(1) as u64 - 1).ilog2() as u64 * BIT as u64;
    let cheapest = |unit| costs.of_unit(unit).iter().copied().min().unwrap_or(0) as u64;
    (0..costs.n_units()).map(cheapest).sum::<u64>() + number_cost
}

/// A table for each class that has units enough for one; classes without one are left out.
fn fit(units: &[Counts], classes: &[u8]) -> Vec<FreqTable> {
    let n_classes = classes.iter().max().map_or(0, |&class| class as usize + 1);
    let mut sums = vec![[0u32; 256]; n_classes];
    for (unit, &class) in units.iter().zip(classes) {
        units::add(&mut sums[class as usize], unit);
    }
    sums.iter().filter_map(|sum| FreqTable::fit(sum).map(|(table, _)| table)).collect()
}

/// A first guess: units ranked by their mean symbol, which stands for their scale, and cut into equal parts.
fn by_mean(units: &[Counts], n_classes: usize) -> Vec<u8> {
    let mean = |unit: &Counts| {
        let (n, sum) = unit
            .iter()
            .enumerate()
            .fold((0u64, 0u64), |(n, sum), (s, &c)| (n + c as u64, sum + s as u64 * c as u64));
        sum * 1024 / n.max(1)
    };
    let mut order: Vec<(u64, usize)> = units.iter().enumerate().map(|(i, unit)| (mean(unit), i)).collect();
    order.sort_unstable();
    let mut classes = vec![0; units.len()];
    for (rank, (_, unit)) in order.into_iter().enumerate() {
        classes[unit] = (rank * n_classes / units.len()) as u8;
    }
    classes
}
