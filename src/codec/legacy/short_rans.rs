//! rANS with a state of 32 bits and words of 16, whose frequencies the file stores.

use super::cursor::{Cursor, chunks};
use super::damaged;
use super::lanes::Coder;
use crate::error::Result;

/// Decodes codewords that begin with their state.
pub struct ShortRans;

/// Where a decoder stands.
#[derive(Clone, Copy)]
pub struct State {
    state: u32,
    /// Words taken.
    taken: usize,
}

/// What each slot of the state stands for.
pub struct Table {
    slots: Vec<Slot>,
    bits: u32,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    symbol: u16,
    frequency: u16,
    /// From the symbol's first slot.
    offset: u16,
}

impl Table {
    /// The table of frequencies that sum to 2^`bits`.
    pub fn new(frequencies: &[u32], bits: u32) -> Result<Table> {
        let sum: u64 = frequencies.iter().map(|&frequency| frequency as u64).sum();
        if sum != 1 << bits {
            return Err(damaged("the frequencies of a table have another sum"));
        }
        let slots = (frequencies.iter().enumerate())
            .flat_map(|(symbol, &frequency)| {
                (0..frequency).map(move |offset| Slot {
                    symbol: symbol as u16,
                    frequency: frequency as u16,
                    offset: offset as u16,
                })
            })
            .collect();
        Ok(Table { slots, bits })
    }
}

impl State {
    /// A decoder with that state, before all its words.
    pub fn new(state: u32) -> State {
        State { state, taken: 0 }
    }

    /// The slot of the next symbol.
    #[inline(always)]
    pub fn slot(&self, bits: u32) -> u32 {
        self.state & ((1 << bits) - 1)
    }

    /// Goes on behind a symbol of that frequency, `offset` slots from whose first the state is.
    #[inline(always)]
    pub fn advance(&mut self, words: &[u16], bits: u32, frequency: u32, offset: u32) {
        self.state = frequency.wrapping_mul(self.state >> bits).wrapping_add(offset);
        let next = words.get(self.taken);
        let is_short = self.state < 1 << 16 && next.is_some();
        let word = next.copied().unwrap_or(0) as u32;
        self.state = if is_short { self.state << 16 | word } else { self.state };
        self.taken += is_short as usize;
    }
}

/// One codeword, decoded symbol by symbol.
pub struct Stream {
    state: State,
    words: Vec<u16>,
}

impl Stream {
    /// The start of a codeword.
    pub fn new(codeword: &[u8]) -> Result<Stream> {
        let (state, words) = ShortRans::start(codeword)?;
        Ok(Stream { state, words })
    }

    /// The next symbol of a table.
    pub fn symbol(&mut self, table: &Table) -> u16 {
        ShortRans::next(&mut self.state, &self.words, table)
    }

    /// The next of `n` numbers that are equally probable but for the first ones, which take what is left over. `n` is at most 2^`bits`.
    pub fn uniform(&mut self, n: u32, bits: u32) -> u32 {
        let (base, rest) = ((1 << bits) / n, (1 << bits) % n);
        let slot = self.state.slot(bits);
        let wide = rest * (base + 1);
        let number = if slot < wide { slot / (base + 1) } else { (slot - rest) / base };
        let frequency = base + (number < rest) as u32;
        let offset = slot - (number * base + number.min(rest));
        self.state.advance(&self.words, bits, frequency, offset);
        number
    }
}

impl Coder for ShortRans {
    type State = State;
    type Word = u16;
    type Table = Table;

    fn table(frequencies: &[u32], bits: u32) -> Result<Table> {
        Table::new(frequencies, bits)
    }

    fn start(codeword: &[u8]) -> Result<(State, Vec<u16>)> {
        let mut codeword = Cursor(codeword);
        let state = State::new(codeword.u32()?);
        Ok((state, words(codeword.0)))
    }

    #[inline(always)]
    fn next(state: &mut State, words: &[u16], table: &Table) -> u16 {
        let slot = table.slots[state.slot(table.bits) as usize];
        state.advance(words, table.bits, slot.frequency as u32, slot.offset as u32);
        slot.symbol
    }

    fn finish(state: State) -> Result<()> {
        if state.state == 1 << 16 {
            Ok(())
        } else {
            Err(damaged("a codeword does not end with its symbols"))
        }
    }
}

/// The 16-bit words of a codeword; an odd byte at its end is none.
pub fn words(bytes: &[u8]) -> Vec<u16> {
    chunks(bytes).iter().map(|&word| u16::from_le_bytes(word)).collect()
}
