//! The ANS coder of `constriction`'s stack, with 24-bit probabilities.

use super::category::{PRECISION, Table};
use super::damaged;
use super::lanes::Coder;
use super::range::words;
use crate::error::Result;

/// Decodes codewords of an ANS coder with words of 32 and a state of 64 bits, taken from the end.
pub struct Ans;

/// Where a decoder stands.
#[derive(Clone, Copy)]
pub struct State {
    state: u64,
    /// Words taken.
    taken: usize,
}

impl Coder for Ans {
    type State = State;
    type Word = u32;
    type Table = Table;

    fn table(counts: &[u32], _bits: u32) -> Result<Table> {
        Table::new(counts)
    }

    fn start(codeword: &[u8]) -> Result<(State, Vec<u32>)> {
        let mut words = words(codeword)?;
        words.reverse();
        if words.first() == Some(&0) {
            return Err(damaged("a codeword ends in an empty word"));
        }
        let mut state = State { state: 0, taken: 0 };
        while let Some(&word) = words.get(state.taken)
            && state.state < 1 << 32
        {
            state.state = state.state << 32 | word as u64;
            state.taken += 1;
        }
        Ok((state, words))
    }

    #[inline(always)]
    fn next(state: &mut State, words: &[u32], table: &Table) -> u16 {
        let quantile = state.state as u32 & ((1 << PRECISION) - 1);
        let (symbol, start, weight) = table.find(quantile);
        state.state = (state.state >> PRECISION) * weight as u64 + (quantile - start) as u64;
        let next = words.get(state.taken);
        let is_short = state.state < 1 << 32 && next.is_some();
        let word = next.copied().unwrap_or(0) as u64;
        state.state = if is_short { state.state << 32 | word } else { state.state };
        state.taken += is_short as usize;
        symbol
    }

    fn finish(state: State) -> Result<()> {
        if state.state == 0 {
            Ok(())
        } else {
            Err(damaged("a codeword does not end with its symbols"))
        }
    }
}
