//! The range coder of `constriction`'s queue, with 24-bit probabilities.

use super::category::{PRECISION, Table};
use super::cursor::chunks;
use super::damaged;
use super::lanes::Coder;
use crate::error::Result;

/// Decodes codewords of a range coder with words of 32 and a state of 64 bits.
pub struct Range;

/// Where a decoder stands.
#[derive(Clone, Copy)]
pub struct State {
    range: u64,
    /// Of the codeword's point from the lower end of the range.
    distance: u64,
    /// Words taken.
    taken: usize,
    /// Highest of the quotients' bits that no valid codeword has.
    excess: u64,
}

impl State {
    /// The next symbol by its quantile, of which `find` tells symbol, start and weight.
    #[inline(always)]
    pub fn next(&mut self, words: &[u32], find: impl FnOnce(u32) -> (u16, u32, u32)) -> u16 {
        let scale = self.range >> PRECISION;
        let quantile = self.distance / scale;
        self.excess |= quantile >> PRECISION;
        let (symbol, start, weight) = find(quantile as u32 & ((1 << PRECISION) - 1));
        self.distance = self.distance.wrapping_sub(scale * start as u64);
        self.range = scale * weight as u64;
        let word = words.get(self.taken).copied().unwrap_or(0) as u64;
        let is_short = self.range < 1 << 32;
        self.distance = if is_short { self.distance << 32 | word } else { self.distance };
        self.range = if is_short { self.range << 32 } else { self.range };
        self.taken += is_short as usize;
        symbol
    }

    /// Refuses what no encoder makes.
    pub fn check(&self) -> Result<()> {
        if self.excess == 0 {
            Ok(())
        } else {
            Err(damaged("a codeword is not one of its table"))
        }
    }
}

impl Range {
    /// A decoder at the start of a codeword, and the codeword's words.
    pub fn start(codeword: &[u8]) -> Result<(State, Vec<u32>)> {
        let words = words(codeword)?;
        let word = |i: usize| words.get(i).copied().unwrap_or(0) as u64;
        let state = State {
            range: u64::MAX,
            distance: word(0) << 32 | word(1),
            taken: 2,
            excess: 0,
        };
        Ok((state, words))
    }
}

impl Coder for Range {
    type State = State;
    type Word = u32;
    type Table = Table;

    fn table(counts: &[u32], _bits: u32) -> Result<Table> {
        Table::new(counts)
    }

    fn start(codeword: &[u8]) -> Result<(State, Vec<u32>)> {
        Range::start(codeword)
    }

    #[inline(always)]
    fn next(state: &mut State, words: &[u32], table: &Table) -> u16 {
        state.next(words, |quantile| table.find(quantile))
    }

    fn finish(state: State) -> Result<()> {
        state.check()
    }
}

/// The 32-bit words of a codeword.
pub fn words(codeword: &[u8]) -> Result<Vec<u32>> {
    if !codeword.len().is_multiple_of(4) {
        return Err(damaged("a codeword is not of whole words"));
    }
    Ok(chunks(codeword).iter().map(|&word| u32::from_le_bytes(word)).collect())
}
