//! Symbols under one table, as the range coder writes them.

use super::put_sized;
use crate::codec::legacy::category::probabilities;
use crate::codec::legacy::width::Width;
use constriction::stream::Encode;
use constriction::stream::model::DefaultContiguousCategoricalEntropyModel;
use constriction::stream::queue::DefaultRangeEncoder;

/// How often each symbol occurs.
pub struct Table<'a>(pub &'a [u32]);

impl Table<'_> {
    /// Appends the number of symbols that occur, which they are, and how often each of them does.
    pub fn put(&self, out: &mut Vec<u8>, number: Width, symbol: Width) {
        let occurring = || self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        number.put(out, occurring().count());
        occurring().for_each(|(index, _)| symbol.put(out, index));
        occurring().for_each(|(_, count)| out.extend(count.to_le_bytes()));
    }

    /// Appends the coded symbols behind their number of bytes, or nothing but a None if that does not fit its field.
    pub fn put_codeword(&self, out: &mut Vec<u8>, symbols: impl Iterator<Item = usize>) -> Option<()> {
        let model = DefaultContiguousCategoricalEntropyModel::from_floating_point_probabilities_perfect(&probabilities(self.0))
            .expect("there are two symbols at least, and every one has a probability");
        let mut coder = DefaultRangeEncoder::new();
        coder
            .encode_iid_symbols(symbols, &model)
            .expect("memory takes all words, and the model has all symbols");
        let words = coder.into_compressed().expect("memory takes all words");
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        put_sized(out, &bytes)
    }
}
