//! Symbols under one table, as the range coder writes them.

use super::put_sized;
use crate::codec::legacy::category::{PRECISION, Table};
use crate::codec::legacy::width::Width;
use constriction::stream::Encode;
use constriction::stream::model::{EncoderModel, EntropyModel};
use constriction::stream::queue::DefaultRangeEncoder;
use std::borrow::Borrow;
use std::num::NonZeroU32;

/// How often each symbol occurs.
pub struct Counts<'a>(pub &'a [u32]);

impl Counts<'_> {
    /// Appends the number of symbols that occur, which they are, and how often each of them does.
    pub fn put(&self, out: &mut Vec<u8>, number: Width, symbol: Width) {
        let occurring = || self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        number.put(out, occurring().count());
        occurring().for_each(|(index, _)| symbol.put(out, index));
        occurring().for_each(|(_, count)| out.extend(count.to_le_bytes()));
    }

    /// Appends symbols, coded with the table of these counts, behind their number of bytes. None if that does not fit its field.
    pub fn put_codeword(&self, out: &mut Vec<u8>, symbols: impl Iterator<Item = u16>) -> Option<()> {
        let table = Table::new(self.0).expect("there are two symbols at least");
        let mut coder = DefaultRangeEncoder::new();
        coder
            .encode_iid_symbols(symbols, &Model(&table))
            .expect("memory takes all words, and the table has all symbols");
        let words = coder.into_compressed().expect("memory takes all words");
        put_sized(out, &words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
    }
}

/// A table as the coder asks for it.
#[derive(Clone, Copy)]
struct Model<'a>(&'a Table);

impl EntropyModel<{ PRECISION as usize }> for Model<'_> {
    type Symbol = u16;
    type Probability = u32;
}

impl EncoderModel<{ PRECISION as usize }> for Model<'_> {
    fn left_cumulative_and_probability(&self, symbol: impl Borrow<u16>) -> Option<(u32, NonZeroU32)> {
        let (start, weight) = self.0.place(*symbol.borrow())?;
        Some((start, NonZeroU32::new(weight)?))
    }
}
