//! What brings the words back that levels stand for.

use super::levels::Levels;
use super::quantiser::{Quantiser, Span};
use crate::buffer::scratch;
use crate::codec::legacy::buckets::{self, BF16};
use crate::codec::legacy::category::{self, PRECISION};
use crate::codec::legacy::cursor::{Cursor, chunks};
use crate::codec::legacy::fp2::{rounded_sum, widened};
use crate::codec::legacy::range::{self, Range};
use crate::codec::legacy::short_rans::{self, Table};
use crate::codec::legacy::{check_count, damaged};
use crate::error::Result;
use crate::pool::Threads;

/// The levels, lowest first.
const LEVELS: std::ops::Range<i32> = -8..8;
/// Bits of the frequencies of the streams of [`decode_offsets_in_chunks`].
const BITS: u32 = 12;

/// Fills `words`, of which there are as many as levels.
pub fn decode(levels: &Levels, blob: &[u8], threads: Threads, words: &mut [[u8; 2]]) -> Result<()> {
    let mut blob = Cursor(blob);
    let scheme = blob.u8()?;
    check_count(blob.u32()?, levels.len())?;
    match scheme {
        1 => decode_sums(levels, blob, threads, words),
        3 => decode_rebased(levels, blob, threads, words),
        4 => decode_offsets(levels, blob, threads, words),
        5 => decode_offsets_in_chunks(levels, blob, threads, words),
        _ => Err(damaged("it is coded in no known way")),
    }
}

/// Indices of the elements of one level.
fn of_level(levels: &Levels, level: i32, range: std::ops::Range<usize>) -> impl Iterator<Item = usize> {
    range.filter(move |&i| levels.level(i) == level)
}

/// Scheme 1: what the words differ from their levels by, and what rounding leaves of that.
fn decode_sums(levels: &Levels, mut blob: Cursor<'_>, threads: Threads, words: &mut [[u8; 2]]) -> Result<()> {
    let mut residual = scratch(2 * words.len() as u64)?;
    buckets::decode::<Range>(&BF16, blob.prefixed()?, threads, &mut residual)?;
    buckets::decode::<Range>(&BF16, blob.prefixed()?, threads, words.as_flattened_mut())?;
    for (i, (word, residual)) in words.iter_mut().zip(chunks::<2>(&residual)).enumerate() {
        let sum = rounded_sum(widened(levels.word(i)), u16::from_le_bytes(*residual));
        *word = (sum ^ u16::from_le_bytes(*word)).to_le_bytes();
    }
    Ok(())
}

/// Scheme 3: the words of each level, exponents counted from that of their scale.
fn decode_rebased(levels: &Levels, mut blob: Cursor<'_>, threads: Threads, words: &mut [[u8; 2]]) -> Result<()> {
    LEVELS
        .into_iter()
        .try_for_each(|level| decode_level(levels, level, blob.prefixed()?, threads, words))
}

fn decode_level(levels: &Levels, level: i32, blob: &[u8], threads: Threads, words: &mut [[u8; 2]]) -> Result<()> {
    let n = of_level(levels, level, 0..levels.len()).count();
    let mut coded = scratch(2 * n as u64)?;
    buckets::decode::<Range>(&BF16, blob, threads, &mut coded)?;
    for (i, word) in of_level(levels, level, 0..levels.len()).zip(chunks::<2>(&coded)) {
        let word = u16::from_le_bytes(*word);
        let exponent = exponent_at(levels, i, (word >> 7) as u8);
        words[i] = (word & 0x807F | exponent << 7).to_le_bytes();
    }
    Ok(())
}

/// An exponent that is counted from that of the element's scale.
fn exponent_at(levels: &Levels, i: usize, rebased: u8) -> u16 {
    rebased.wrapping_add((levels.scale(i) >> 7) as u8) as u16
}

/// Scheme 4: exponents, and mantissas among those that round to the level.
fn decode_offsets(levels: &Levels, mut blob: Cursor<'_>, threads: Threads, words: &mut [[u8; 2]]) -> Result<()> {
    let mut quantiser = Quantiser::default();
    for level in LEVELS {
        if level == 0 {
            decode_level(levels, level, blob.prefixed()?, threads, words)?;
            continue;
        }
        let n_exponents = blob.u8()? as usize;
        if n_exponents == 0 {
            if of_level(levels, level, 0..levels.len()).next().is_some() {
                return Err(damaged("a level that occurs has no exponents"));
            }
            continue;
        }
        let exponents = blob.take(n_exponents)?;
        let counts = blob.u32s(n_exponents)?;
        let (mut indices, index_words) = Range::start(blob.prefixed()?)?;
        let (mut offsets, offset_words) = Range::start(blob.prefixed()?)?;
        let table = (n_exponents > 1).then(|| category::Table::new(&counts)).transpose()?;
        for i in of_level(levels, level, 0..levels.len()) {
            let index = match &table {
                Some(table) => indices.next(&index_words, |quantile| table.find(quantile)),
                None => 0,
            };
            let exponent = exponent_at(levels, i, exponents[index as usize]);
            let Span { first, n } = quantiser.span(level, exponent, levels.scale(i));
            let offset = if n >= 2 { uniform(&mut offsets, &offset_words, n) } else { 0 };
            words[i] = word(level < 0, exponent, first + offset);
        }
        indices.check()?;
        offsets.check()?;
    }
    Ok(())
}

/// A symbol of `n` that are equally probable; the last one takes what is left over.
fn uniform(state: &mut range::State, words: &[u32], n: u16) -> u16 {
    let (n, weight) = (n as u32, (1 << PRECISION) / n as u32);
    state.next(words, |quantile| {
        let symbol = (quantile / weight).min(n - 1);
        let start = symbol * weight;
        let end = if symbol == n - 1 { 1 << PRECISION } else { start + weight };
        (symbol as u16, start, end - start)
    })
}

fn word(is_negative: bool, exponent: u16, mantissa: u16) -> [u8; 2] {
    ((is_negative as u16) << 15 | exponent << 7 | mantissa & 0x7F).to_le_bytes()
}

/// The exponents that a level occurs with.
struct Exponents<'a> {
    values: &'a [u8],
    /// None if there is only one.
    table: Option<Table>,
}

/// What scheme 5 says of all chunks.
struct Tables<'a> {
    /// By level.
    exponents: Vec<Exponents<'a>>,
    zeros: Flag,
    signs: Flag,
}

/// A property of the elements of level 0.
enum Flag {
    Constant(u16),
    Coded(Table),
}

impl Flag {
    /// That of `n` elements of which `n_set` have it.
    fn new(n: u32, n_set: u32) -> Result<Flag> {
        if n_set == 0 || n_set >= n {
            return Ok(Flag::Constant((n > 0 && n_set == n) as u16));
        }
        Ok(Flag::Coded(Table::new(&frequencies(&[n - n_set, n_set]), BITS)?))
    }

    /// Of the next `n` elements.
    fn decode(&self, record: &mut Cursor<'_>, n: usize) -> Result<Vec<u16>> {
        match self {
            Flag::Constant(value) => Ok(vec![*value; n]),
            Flag::Coded(table) => symbols(record, table, n),
        }
    }
}

impl Exponents<'_> {
    /// Indices of those of the next `n` elements.
    fn decode(&self, record: &mut Cursor<'_>, n: usize) -> Result<Vec<u16>> {
        match &self.table {
            None if self.values.is_empty() => Err(damaged("a level that occurs has no exponents")),
            None => Ok(vec![0; n]),
            Some(table) => symbols(record, table, n),
        }
    }
}

/// Symbols of a codeword.
fn symbols(record: &mut Cursor<'_>, table: &Table, n: usize) -> Result<Vec<u16>> {
    let mut stream = short_rans::Stream::new(record.prefixed()?)?;
    Ok((0..n).map(|_| stream.symbol(table)).collect())
}

/// Scheme 5: as scheme 4, in chunks of elements that do not depend on each other, level 0 by zeros, signs and the rest.
fn decode_offsets_in_chunks(levels: &Levels, mut blob: Cursor<'_>, threads: Threads, words: &mut [[u8; 2]]) -> Result<()> {
    let chunk = blob.u32()? as usize;
    let n_chunks = blob.u32()? as usize;
    if chunk == 0 || n_chunks != words.len().div_ceil(chunk) {
        return Err(damaged("its chunks are of another number of elements"));
    }
    let mut tables = Tables {
        exponents: Vec::new(),
        zeros: Flag::Constant(0),
        signs: Flag::Constant(0),
    };
    for level in LEVELS {
        if level == 0 {
            let (n, n_zero, n_negative) = (blob.u32()?, blob.u32()?, blob.u32()?);
            tables.zeros = Flag::new(n, n_zero)?;
            tables.signs = Flag::new(n, n_negative)?;
        }
        let n_exponents = blob.u16()? as usize;
        if n_exponents > BF16.n_exponents() {
            return Err(damaged("a level has more exponents than there are"));
        }
        let values = blob.take(n_exponents)?;
        let counts = blob.u32s(n_exponents)?;
        let table = (n_exponents > 1).then(|| Table::new(&frequencies(&counts), BITS)).transpose()?;
        tables.exponents.push(Exponents { values, table });
    }
    let records = blob.parts(n_chunks)?;
    let chunks: Vec<_> = words.chunks_mut(chunk).zip(records).enumerate().collect();
    let decode = |(i, (words, record)): (usize, (&mut [[u8; 2]], &[u8]))| {
        let chunk = Chunk {
            levels,
            start: i * chunk,
            words,
            quantiser: Quantiser::default(),
        };
        chunk.decode(&tables, record)
    };
    threads.map(chunks, decode).into_iter().collect()
}

/// A chunk in the making.
struct Chunk<'a> {
    levels: &'a Levels,
    /// Its first element.
    start: usize,
    words: &'a mut [[u8; 2]],
    quantiser: Quantiser,
}

impl Chunk<'_> {
    fn decode(mut self, tables: &Tables<'_>, record: &[u8]) -> Result<()> {
        let mut record = Cursor(record);
        for (level, exponents) in LEVELS.zip(&tables.exponents) {
            let places: Vec<usize> = of_level(self.levels, level, self.start..self.start + self.words.len()).collect();
            if places.is_empty() {
                continue;
            }
            if level == 0 {
                self.decode_level_0(tables, exponents, &mut record, &places)?;
                continue;
            }
            let indices = exponents.decode(&mut record, places.len())?;
            let mut offsets = Offsets::new(record.prefixed()?)?;
            for (&i, &index) in places.iter().zip(&indices) {
                let exponent = exponent_at(self.levels, i, exponents.values[index as usize]);
                let Span { first, n } = self.quantiser.span(level, exponent, self.levels.scale(i));
                self.words[i - self.start] = word(level < 0, exponent, first + offsets.next(n));
            }
        }
        if record.0.is_empty() {
            Ok(())
        } else {
            Err(damaged("bytes follow what a chunk needs"))
        }
    }

    /// Decodes the elements of level 0, which are at these places.
    fn decode_level_0(&mut self, tables: &Tables<'_>, exponents: &Exponents<'_>, record: &mut Cursor<'_>, places: &[usize]) -> Result<()> {
        let zeros = tables.zeros.decode(record, places.len())?;
        let signs = tables.signs.decode(record, places.len())?;
        let mut others = Vec::new();
        for ((&i, &is_zero), &sign) in places.iter().zip(&zeros).zip(&signs) {
            self.words[i - self.start] = word(sign != 0, 0, 0);
            if is_zero == 0 {
                others.push((i, sign != 0));
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        let indices = exponents.decode(record, others.len())?;
        let mut offsets = Offsets::new(record.prefixed()?)?;
        for (&(i, is_negative), &index) in others.iter().zip(&indices) {
            let exponent = exponent_at(self.levels, i, exponents.values[index as usize]);
            let n = self.quantiser.span_of_0(is_negative, exponent, self.levels.scale(i));
            self.words[i - self.start] = word(is_negative, exponent, offsets.next(n));
        }
        Ok(())
    }
}

/// A codeword of numbers that are equally probable below a bound that changes; an empty one is of zeros.
struct Offsets(Option<short_rans::Stream>);

impl Offsets {
    fn new(codeword: &[u8]) -> Result<Offsets> {
        let stream = (!codeword.is_empty()).then(|| short_rans::Stream::new(codeword));
        Ok(Offsets(stream.transpose()?))
    }

    fn next(&mut self, n: u16) -> u16 {
        match &mut self.0 {
            Some(stream) if n > 1 => stream.uniform(n as u32, BITS) as u16,
            _ => 0,
        }
    }
}

/// Counts as frequencies that sum to 2^[`BITS`], by the rule of whoever made the file.
fn frequencies(counts: &[u32]) -> Vec<u32> {
    let total: u64 = counts.iter().map(|&count| count as u64).sum();
    let mut frequencies: Vec<u32> = counts
        .iter()
        .map(|&count| match (count, total) {
            (0, _) | (_, 0) => 0,
            _ => (((count as u64) << BITS) / total).max(1) as u32,
        })
        .collect();
    if total == 0 {
        if let Some(first) = frequencies.first_mut() {
            *first = 1 << BITS;
        }
        return frequencies;
    }
    let mut order: Vec<usize> = (0..frequencies.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(frequencies[i]));
    let mut missing = (1 << BITS) as i64 - frequencies.iter().map(|&frequency| frequency as i64).sum::<i64>();
    // Ends: at most 256 symbols have a frequency, so some are above 1 as long as too much is given.
    for &i in order.iter().cycle() {
        match missing {
            0 => break,
            1.. => {
                frequencies[i] += 1;
                missing -= 1;
            }
            _ if frequencies[i] > 1 => {
                frequencies[i] -= 1;
                missing += 1;
            }
            _ => (),
        }
    }
    frequencies
}
