//! Frequencies of symbols, made of counts of those that came before.

/// 22 exponents around the expected one with 8 mantissas each, and symbol 0 for all else.
pub const SYMBOLS: usize = 177;

/// Counts, and the frequencies made of them when they were last looked at. Frequencies sum to 2^16.
pub struct Table {
    counts: [u32; SYMBOLS],
    /// Sums of the frequencies below each symbol.
    starts: [u32; SYMBOLS + 1],
    /// For each 256th of the sum, the symbol there.
    guess: [u8; 256],
    is_stale: bool,
}

impl Table {
    /// Nothing counted; symbol 0 always has a frequency.
    pub fn new() -> Self {
        let mut counts = [0; SYMBOLS];
        counts[0] = 1;
        Self {
            counts,
            starts: [0; SYMBOLS + 1],
            guess: [0; 256],
            is_stale: true,
        }
    }

    /// Counts a symbol.
    #[inline(always)]
    pub fn count(&mut self, symbol: usize) {
        self.counts[symbol] += 1;
        self.is_stale = true;
    }

    /// Makes frequencies of the counts.
    pub fn build(&mut self) {
        if !self.is_stale {
            return;
        }
        self.is_stale = false;
        let total: u64 = self.counts.iter().map(|&count| count as u64).sum();
        let used = self.counts.iter().filter(|&&count| count > 0).count() as u64;
        let mut frequencies = self.counts.map(|count| {
            if count == 0 {
                0
            } else {
                (count as u64 * ((1 << 16) - used) / total).max(1) as u32
            }
        });
        let most = (0..SYMBOLS)
            .rev()
            .max_by_key(|&symbol| self.counts[symbol])
            .expect("there are symbols");
        frequencies[most] += (1 << 16) - frequencies.iter().sum::<u32>();
        let mut sum = 0;
        for (start, frequency) in self.starts.iter_mut().zip(frequencies) {
            *start = sum;
            sum += frequency;
        }
        self.starts[SYMBOLS] = sum;
        let mut symbol = 0;
        for (i, guess) in self.guess.iter_mut().enumerate() {
            while self.starts[symbol + 1] <= (i as u32) << 8 {
                symbol += 1;
            }
            *guess = symbol as u8;
        }
    }

    /// Whether the symbol has a frequency.
    #[inline(always)]
    pub fn has(&self, symbol: usize) -> bool {
        self.share(symbol).1 > 0
    }

    /// Sum of the frequencies below the symbol, and its own.
    #[inline(always)]
    pub fn share(&self, symbol: usize) -> (u32, u32) {
        (self.starts[symbol], self.starts[symbol + 1] - self.starts[symbol])
    }

    /// The symbol at `slot` < 2^16 of the sum.
    #[inline(always)]
    pub fn find(&self, slot: u32) -> usize {
        let mut symbol = self.guess[(slot >> 8) as usize & 255] as usize;
        while self.starts[symbol + 1] <= slot {
            symbol += 1;
        }
        symbol
    }
}

/// Tables that take over after a number of words and are made anew from time to time.
pub struct Tables {
    tables: Vec<Table>,
    n_words: usize,
    next_build: usize,
    are_built: bool,
}

impl Tables {
    /// `n` tables that take over after `n_mixed` words.
    pub fn new(n: usize, n_mixed: usize) -> Self {
        Self {
            tables: std::iter::repeat_with(Table::new).take(n).collect(),
            n_words: 0,
            next_build: n_mixed,
            are_built: false,
        }
    }

    /// Comes before each word.
    #[inline(always)]
    pub fn start_word(&mut self) {
        if self.n_words == self.next_build {
            self.are_built = true;
            self.tables.iter_mut().for_each(Table::build);
            self.next_build += (self.next_build / 8).max(1 << 14);
        }
        self.n_words += 1;
    }

    /// A table, and whether it has frequencies.
    #[inline(always)]
    pub fn get(&mut self, i: usize) -> (&mut Table, bool) {
        (&mut self.tables[i], self.are_built)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counted_symbol_has_its_share_and_is_found_in_it() {
        let mut table = Table::new();
        for i in 0..100_000usize {
            table.count(20 + (i % 7) * (i % 11) % 90 + (i % 997 == 0) as usize * 60);
        }
        table.build();
        assert_eq!(table.starts[SYMBOLS], 1 << 16);
        for symbol in 0..SYMBOLS {
            let (start, frequency) = table.share(symbol);
            assert_eq!(frequency == 0, table.counts[symbol] == 0);
            for slot in [start, start + frequency / 2, (start + frequency).max(1) - 1] {
                assert!(frequency == 0 || table.find(slot) == symbol);
            }
        }
    }

    #[test]
    fn the_remainder_goes_to_the_first_of_the_most_frequent() {
        let mut table = Table::new();
        for symbol in [5, 5, 9, 9] {
            table.count(symbol);
        }
        table.build();
        assert_eq!([0, 5, 9].map(|symbol| table.share(symbol).1), [13_106, 26_217, 26_213]);
    }
}
