//! Codewords decoded side by side.
//!
//! A decoder's next step waits for its last one: for a table, and in the range coder for a division. Codewords do not wait for each other,
//! so a thread decodes [`N_LANES`] of them in turns.

use crate::error::Result;
use crate::pool::Threads;

/// Codewords that a thread decodes in turns. More of them have more state than there are registers.
pub const N_LANES: usize = 4;
/// Symbols from which the threads of a pool share the codewords of a blob: below, other blobs keep them busy.
const SHARED_SYMBOLS: usize = 1 << 22;

/// An entropy decoder.
pub trait Coder {
    /// Where it stands in a codeword.
    type State: Copy + Send;
    /// What it takes from a codeword at a time.
    type Word: Copy + Send;
    /// What tells symbols.
    type Table: Sync + Send;

    /// The table of these counts, or of these frequencies that sum to 2^`bits`.
    fn table(counts: &[u32], bits: u32) -> Result<Self::Table>;
    /// The start of a codeword, and its words in the order in which they are taken.
    fn start(codeword: &[u8]) -> Result<(Self::State, Vec<Self::Word>)>;
    /// The next symbol.
    fn next(state: &mut Self::State, words: &[Self::Word], table: &Self::Table) -> u16;
    /// Refuses a codeword that no encoder makes.
    fn finish(state: Self::State) -> Result<()>;
}

/// A codeword to be decoded.
pub struct Job<'a, C: Coder> {
    state: C::State,
    words: Vec<C::Word>,
    table: &'a C::Table,
    out: &'a mut [[u8; 2]],
}

impl<'a, C: Coder> Job<'a, C> {
    /// A codeword of as many symbols as `out` has room for.
    pub fn new(codeword: &[u8], table: &'a C::Table, out: &'a mut [[u8; 2]]) -> Result<Self> {
        let (state, words) = C::start(codeword)?;
        Ok(Self { state, words, table, out })
    }

    /// One whose state is apart from its words.
    pub fn from_parts(state: C::State, words: Vec<C::Word>, table: &'a C::Table, out: &'a mut [[u8; 2]]) -> Self {
        Self { state, words, table, out }
    }
}

/// Decodes all jobs.
pub fn run<C: Coder>(mut jobs: Vec<Job<'_, C>>, threads: Threads) -> Result<()> {
    // Long ones first, so that short ones fill what is left beside them.
    jobs.sort_by_key(|job| std::cmp::Reverse(job.out.len()));
    let n_symbols: usize = jobs.iter().map(|job| job.out.len()).sum();
    if n_symbols < SHARED_SYMBOLS {
        return run_in_turns(jobs);
    }
    let mut shares: Vec<(usize, Vec<Job<'_, C>>)> = (0..threads.count()).map(|_| (0, Vec::new())).collect();
    for job in jobs {
        let share = shares.iter_mut().min_by_key(|share| share.0).expect("there is a thread");
        share.0 += job.out.len();
        share.1.push(job);
    }
    threads.map(shares, |(_, jobs)| run_in_turns(jobs)).into_iter().collect()
}

fn run_in_turns<C: Coder>(jobs: Vec<Job<'_, C>>) -> Result<()> {
    let mut waiting = jobs.into_iter();
    let mut lanes: Vec<Job<'_, C>> = Vec::with_capacity(N_LANES);
    loop {
        let mut i = 0;
        while i < lanes.len() {
            if lanes[i].out.is_empty() {
                C::finish(lanes.swap_remove(i).state)?;
            } else {
                i += 1;
            }
        }
        lanes.extend(waiting.by_ref().take(N_LANES - lanes.len()));
        let n = lanes.iter().map(|lane| lane.out.len()).min().unwrap_or(0);
        match &mut lanes[..] {
            [] => return Ok(()),
            [a] => step([a], n),
            [a, b] => step([a, b], n),
            [a, b, c] => step([a, b, c], n),
            [a, b, c, d, ..] => step([a, b, c, d], n),
        }
    }
}

/// Decodes `n` symbols of each lane.
fn step<C: Coder, const N: usize>(mut lanes: [&mut Job<'_, C>; N], n: usize) {
    let mut states = lanes.each_ref().map(|lane| lane.state);
    let tables = lanes.each_ref().map(|lane| lane.table);
    let mut outs = lanes
        .each_mut()
        .map(|lane| lane.out.split_off_mut(..n).expect("a lane has as many symbols left"));
    let words = lanes.each_ref().map(|lane| &lane.words[..]);
    for i in 0..n {
        for (lane, out) in outs.iter_mut().enumerate() {
            out[i] = C::next(&mut states[lane], words[lane], tables[lane]).to_le_bytes();
        }
    }
    for (lane, state) in lanes.into_iter().zip(states) {
        lane.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::super::ans::Ans;
    use super::super::category::probabilities;
    use super::super::range::Range;
    use super::*;
    use constriction::stream::Encode;
    use constriction::stream::model::DefaultContiguousCategoricalEntropyModel as Model;
    use constriction::stream::queue::DefaultRangeEncoder;
    use constriction::stream::stack::DefaultAnsCoder;
    use proptest::prelude::*;

    fn bytes(words: Vec<u32>) -> Vec<u8> {
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn counts(symbols: &[u16], alphabet: usize) -> Vec<u32> {
        let mut counts = vec![0; alphabet];
        symbols.iter().for_each(|&symbol| counts[symbol as usize] += 1);
        counts
    }

    fn model(counts: &[u32]) -> Model {
        Model::from_floating_point_probabilities_perfect(&probabilities(counts)).unwrap()
    }

    fn check<C: Coder>(messages: &[Vec<u16>], alphabet: usize, encode: impl Fn(&[u16], &Model) -> Vec<u32>) {
        let tables: Vec<Vec<u32>> = messages.iter().map(|message| counts(message, alphabet)).collect();
        let codewords: Vec<Vec<u8>> = messages
            .iter()
            .zip(&tables)
            .map(|(message, counts)| bytes(encode(message, &model(counts))))
            .collect();
        let tables: Vec<C::Table> = tables.iter().map(|counts| C::table(counts, 0).unwrap()).collect();
        let mut outs: Vec<Vec<[u8; 2]>> = messages.iter().map(|message| vec![[0; 2]; message.len()]).collect();
        let jobs = (codewords.iter().zip(&tables).zip(&mut outs))
            .map(|((codeword, table), out)| Job::<C>::new(codeword, table, out).unwrap())
            .collect();
        run(jobs, Threads::One).unwrap();
        for (message, out) in messages.iter().zip(outs) {
            let symbols: Vec<u16> = out.into_iter().map(u16::from_le_bytes).collect();
            assert!(symbols == *message);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn messages_of_constriction_come_back(
            messages in prop::collection::vec(prop::collection::vec(0u16..1000, 0..400), 1..9),
            alphabet in prop::sample::select(vec![2usize, 16, 128, 512, 1024]),
        ) {
            // Squared, so that some symbols are frequent.
            let skewed = |symbol: &u16| (*symbol as usize * *symbol as usize * alphabet / 1_000_000) as u16;
            let messages: Vec<Vec<u16>> = messages.iter().map(|message| message.iter().map(skewed).collect()).collect();
            check::<Range>(&messages, alphabet, |message, model| {
                let mut encoder = DefaultRangeEncoder::new();
                encoder.encode_iid_symbols(message.iter().map(|&symbol| symbol as usize), model).unwrap();
                encoder.into_compressed().unwrap()
            });
            check::<Ans>(&messages, alphabet, |message, model| {
                let mut coder = DefaultAnsCoder::new();
                coder.encode_iid_symbols_reverse(message.iter().map(|&symbol| symbol as usize), model).unwrap();
                coder.into_compressed().unwrap()
            });
        }
    }
}
