//! The md5 of every tensor, made beside the encoding.

use crate::digest::{Md5, Md5Writer};
use crate::survey::{Handling, Item};
use rayon::prelude::*;
use std::ops::Range;

/// Digests of tensors in the making.
pub struct Digests {
    writers: Vec<Md5Writer>,
    /// Bytes of each tensor that are to be digested next.
    due: Vec<Range<usize>>,
    /// For each tensor the one whose digest it has: itself, unless it is tied.
    masters: Vec<usize>,
}

impl Digests {
    /// Tensors that are not encoded on their own are due at once.
    pub fn new(items: &[Item<'_>], handling: &[Handling]) -> Self {
        let due = |(handling, item): (&Handling, &Item)| match handling {
            Handling::Trivial(_) | Handling::Packed(_) => 0..item.words.bytes.len(),
            Handling::Tied(_) | Handling::Alone => 0..0,
        };
        let master = |(i, handling): (usize, &Handling)| if let Handling::Tied(master) = handling { *master } else { i };
        Self {
            writers: vec![Md5Writer::default(); items.len()],
            due: handling.iter().zip(items).map(due).collect(),
            masters: handling.iter().enumerate().map(master).collect(),
        }
    }

    /// Makes the bytes of a tensor due, up to the byte at `end`.
    pub fn extend(&mut self, tensor: usize, end: usize) {
        self.due[tensor].end = end;
    }

    /// Digests what is due.
    pub fn update(&mut self, items: &[Item<'_>]) {
        let update = |((writer, due), item): ((&mut Md5Writer, &mut Range<usize>), &Item)| {
            writer.update(&item.words.bytes[due.clone()]);
            due.start = due.end;
        };
        self.writers.par_iter_mut().zip(&mut self.due).zip(items).for_each(update);
    }

    /// The digest of every tensor.
    pub fn finish(self) -> Vec<Md5> {
        let digests: Vec<Md5> = self.writers.into_iter().map(Md5Writer::finish).collect();
        self.masters.iter().map(|&master| digests[master]).collect()
    }
}
