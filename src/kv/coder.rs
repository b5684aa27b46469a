//! Signed indices ⇄ bytes, by rANS with a table for each component.

use crate::error::{Error, Result};
use crate::kv::table::IndexTable;
use crate::rans::bits::{BitReader, BitWriter, take, take_u8, take_u32};
use crate::rans::{SCALE, SCALE_BITS};
use rayon::prelude::*;
use std::ops::Range;

const LANES: usize = 4;
/// Where states begin, and end.
const STATE_MIN: u32 = 1 << 16;
/// Indices for which another stream is worth its head.
const STREAM_INDICES: usize = 1 << 18;
const MAX_STREAMS: usize = 8;
/// Bytes of a stream's head.
const HEAD_BYTES: usize = 24;
/// The slots of a table that share an entry of the first look: 2^4 of them.
const LOOK_BITS: u32 = 4;
const N_LOOKS: usize = 1 << (SCALE_BITS - LOOK_BITS);

/// A table made ready for both directions.
#[derive(Debug)]
struct Ready {
    radius: i32,
    freqs: Vec<u16>,
    starts: Vec<u16>,
    /// The symbol of the first slot of each look.
    looks: Box<[u8; N_LOOKS]>,
}

impl Ready {
    fn new(table: &IndexTable) -> Self {
        let freqs = table.freqs().to_vec();
        let mut starts = Vec::with_capacity(freqs.len() + 1);
        let mut looks = Box::new([0; N_LOOKS]);
        let mut start = 0u32;
        for (s, &f) in freqs.iter().enumerate() {
            starts.push(start as u16);
            let looked_at = start.div_ceil(1 << LOOK_BITS)..(start + f as u32).div_ceil(1 << LOOK_BITS);
            looks[looked_at.start as usize..looked_at.end as usize].fill(s as u8);
            start += f as u32;
        }
        // What lies behind the last symbol, so that the search ends there.
        starts.push(SCALE as u16);
        Self {
            radius: table.radius() as i32,
            freqs,
            starts,
            looks,
        }
    }

    fn escape(&self) -> usize {
        self.freqs.len() - 1
    }
}

/// Codes stretches of the components of one group.
#[derive(Debug)]
pub struct IndexCoder {
    tables: Vec<Ready>,
}

impl IndexCoder {
    /// A coder for components with these tables.
    pub fn new(tables: &[IndexTable]) -> Self {
        Self {
            tables: tables.iter().map(Ready::new).collect(),
        }
    }

    /// Number of components.
    pub fn n_components(&self) -> usize {
        self.tables.len()
    }

    fn n_streams(&self, n_rows: usize) -> usize {
        (1 + self.tables.len().saturating_mul(n_rows) / STREAM_INDICES).min(MAX_STREAMS)
    }

    /// The components of each stream.
    fn streams(&self, n_streams: usize) -> Vec<Range<usize>> {
        let n = self.tables.len();
        (0..n_streams).map(|s| s * n / n_streams..(s + 1) * n / n_streams).collect()
    }

    /// Encodes `[components, rows]` indices.
    ///
    /// # Errors
    /// `Option` if there are not as many indices as components and rows say, or one is −32768.
    pub fn encode(&self, indices: &[i16], n_rows: usize) -> Result<Vec<u8>> {
        if indices.len() != self.tables.len() * n_rows {
            return Err(Error::option("there are not as many indices as components and rows say"));
        }
        if indices.contains(&i16::MIN) {
            return Err(Error::option("an index is below -32767"));
        }
        let streams = self.streams(self.n_streams(n_rows));
        let coded: Vec<Stream> = streams
            .into_par_iter()
            .map(|range| {
                encode_stream(
                    &self.tables[range.clone()],
                    &indices[range.start * n_rows..range.end * n_rows],
                    n_rows,
                )
            })
            .collect();
        let n_bytes = coded
            .iter()
            .map(|stream| HEAD_BYTES + 2 * stream.words.len() + stream.escapes.len())
            .sum::<usize>();
        let mut out = Vec::with_capacity(1 + n_bytes);
        out.push(coded.len() as u8);
        for stream in &coded {
            out.extend((stream.words.len() as u32).to_le_bytes());
            out.extend((stream.escapes.len() as u32).to_le_bytes());
            stream.states.iter().for_each(|state| out.extend(state.to_le_bytes()));
        }
        for stream in &coded {
            stream.words.iter().for_each(|word| out.extend(word.to_le_bytes()));
        }
        coded.iter().for_each(|stream| out.extend(&stream.escapes));
        Ok(out)
    }

    /// Decodes `[components, rows]` indices.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not what the encoder makes.
    pub fn decode(&self, coded: &[u8], n_rows: usize, out: &mut [i16]) -> Result<()> {
        assert_eq!(out.len(), self.tables.len() * n_rows);
        let damaged = || Error::corrupt("coded indices are damaged");
        let mut rest = coded;
        let n_streams = take_u8(&mut rest).ok_or_else(damaged)? as usize;
        if n_streams != self.n_streams(n_rows) {
            return Err(damaged());
        }
        let mut heads = Vec::with_capacity(n_streams);
        for _ in 0..n_streams {
            let mut field = || take_u32(&mut rest).ok_or_else(damaged);
            let sizes = (field()? as usize, field()? as usize);
            heads.push((sizes, [field()?, field()?, field()?, field()?]));
        }
        let words = heads
            .iter()
            .map(|((n_words, _), _)| take(&mut rest, 2 * n_words).ok_or_else(damaged))
            .collect::<Result<Vec<_>>>()?;
        let escapes = heads
            .iter()
            .map(|((_, n_bytes), _)| take(&mut rest, *n_bytes).ok_or_else(damaged))
            .collect::<Result<Vec<_>>>()?;
        if !rest.is_empty() {
            return Err(damaged());
        }
        let mut jobs = Vec::with_capacity(n_streams);
        let mut out = out;
        for (range, ((words, escapes), (_, states))) in self.streams(n_streams).into_iter().zip(words.into_iter().zip(escapes).zip(heads)) {
            let (part, next) = out.split_at_mut(range.len() * n_rows);
            out = next;
            jobs.push((&self.tables[range], words, escapes, states, part));
        }
        jobs.into_par_iter().try_for_each(|(tables, words, escapes, states, out)| {
            decode_stream(tables, words.as_chunks::<2>().0, escapes, states, n_rows, out).ok_or_else(damaged)
        })
    }
}

struct Stream {
    states: [u32; LANES],
    words: Vec<u16>,
    escapes: Vec<u8>,
}

fn encode_stream(tables: &[Ready], indices: &[i16], n_rows: usize) -> Stream {
    let mut escapes = BitWriter::default();
    for (table, rows) in tables.iter().zip(indices.chunks_exact(n_rows.max(1))) {
        for &q in rows.iter().filter(|q| q.unsigned_abs() as i32 > table.radius) {
            put_escape(&mut escapes, q, table.radius);
        }
    }
    // From the last symbol to the first; words come out in the same order.
    let mut words = Vec::with_capacity(indices.len() / 4);
    let mut states = [STATE_MIN; LANES];
    for (table, rows) in tables.iter().zip(indices.chunks_exact(n_rows.max(1))).rev() {
        for (i, &q) in rows.iter().enumerate().rev() {
            let symbol = if q.unsigned_abs() as i32 > table.radius {
                table.escape()
            } else {
                (q as i32 + table.radius) as usize
            };
            let (f, start) = (table.freqs[symbol] as u32, table.starts[symbol] as u32);
            let mut x = states[i % LANES];
            if x >> (32 - SCALE_BITS) >= f {
                words.push(x as u16);
                x >>= 16;
            }
            states[i % LANES] = (x / f) * SCALE + start + x % f;
        }
    }
    words.reverse();
    Stream {
        states,
        words,
        escapes: escapes.finish(),
    }
}

fn decode_stream(
    tables: &[Ready],
    words: &[[u8; 2]],
    escapes: &[u8],
    mut states: [u32; LANES],
    n_rows: usize,
    out: &mut [i16],
) -> Option<()> {
    if states.iter().any(|&x| x < STATE_MIN) {
        return None;
    }
    let mut at = 0;
    let mut bits = BitReader::new(escapes);
    for (table, rows) in tables.iter().zip(out.chunks_exact_mut(n_rows.max(1))) {
        let mut has_escapes = false;
        for four in rows.chunks_mut(LANES) {
            for (q, state) in four.iter_mut().zip(&mut states) {
                let slot = *state & (SCALE - 1);
                let mut symbol = table.looks[(slot >> LOOK_BITS) as usize] as usize;
                while table.starts[symbol + 1] as u32 <= slot {
                    symbol += 1;
                }
                has_escapes |= symbol == table.escape();
                *q = (symbol as i32 - table.radius) as i16;
                let mut x = table.freqs[symbol] as u32 * (*state >> SCALE_BITS) + slot - table.starts[symbol] as u32;
                if x < STATE_MIN {
                    x = x << 16 | u16::from_le_bytes(*words.get(at)?) as u32;
                    at += 1;
                }
                *state = x;
            }
        }
        if has_escapes {
            for q in rows.iter_mut().filter(|q| **q as i32 > table.radius) {
                *q = take_escape(&mut bits, table.radius)?;
            }
        }
    }
    let is_whole = at == words.len() && states == [STATE_MIN; LANES] && bits.finish() == Some(escapes.len());
    is_whole.then_some(())
}

/// Magnitude beyond the radius as an Elias gamma code, then the sign.
fn put_escape(bits: &mut BitWriter, index: i16, radius: i32) {
    let v = index.unsigned_abs() as u32 - radius as u32;
    for _ in 0..v.ilog2() {
        bits.bit(false);
    }
    for i in (0..=v.ilog2()).rev() {
        bits.bit(v >> i & 1 != 0);
    }
    bits.bit(index < 0);
}

fn take_escape(bits: &mut BitReader<'_>, radius: i32) -> Option<i16> {
    let mut n_more = 0;
    while !bits.bit()? {
        n_more += 1;
        if n_more > 14 {
            return None;
        }
    }
    let mut v = 1i32;
    for _ in 0..n_more {
        v = v << 1 | bits.bit()? as i32;
    }
    let magnitude = v + radius;
    let index = if bits.bit()? { -magnitude } else { magnitude };
    i16::try_from(index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tables(n: usize, spread: u64) -> Vec<IndexTable> {
        (0..n as u64)
            .map(|i| IndexTable::fit(&[1 + i, 5 + spread * i, 30 * spread, 100, 30, 6, i]))
            .collect()
    }

    proptest! {
        #[test]
        fn indices_come_back(n_components in 0usize..9, n_rows in 0usize..70, largest in 1i16..600, seed in any::<u64>()) {
            let mut state = seed | 1;
            let indices: Vec<i16> = (0..n_components * n_rows).map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let wide = (state >> 33) as i16 % largest;
                if state >> 60 == 0 { wide } else { wide % 3 }
            }).collect();
            let coder = IndexCoder::new(&tables(n_components, 1));
            let coded = coder.encode(&indices, n_rows).unwrap();
            let mut out = vec![77; indices.len()];
            coder.decode(&coded, n_rows, &mut out).unwrap();
            prop_assert_eq!(out, indices);
        }

        #[test]
        fn damage_is_an_error_or_other_indices(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
            let indices: Vec<i16> = (0..40 * 5).map(|i| (i * i % 7 - 3) as i16 * if i % 31 == 0 { 50 } else { 1 }).collect();
            let coder = IndexCoder::new(&tables(5, 2));
            let mut coded = coder.encode(&indices, 40).unwrap();
            let mut out = vec![0; indices.len()];
            prop_assert!(coder.decode(&coded[..cut.index(coded.len())], 40, &mut out).is_err());
            let at = at.index(coded.len());
            coded[at] ^= flip;
            let _ = coder.decode(&coded, 40, &mut out);
        }
    }

    #[test]
    fn extremes_are_coded_and_what_has_no_code_is_refused() {
        let coder = IndexCoder::new(&tables(1, 1));
        let indices = [32767, -32767, 0];
        let coded = coder.encode(&indices, 3).unwrap();
        let mut out = [0; 3];
        coder.decode(&coded, 3, &mut out).unwrap();
        assert_eq!(out, indices);
        assert!(coder.encode(&[i16::MIN; 3], 3).is_err());
        assert!(coder.encode(&[0; 2], 3).is_err());
    }

    #[test]
    fn many_indices_make_several_streams() {
        let n_rows = 1 << 17;
        let coder = IndexCoder::new(&tables(5, 1));
        let indices: Vec<i16> = (0..5 * n_rows).map(|i| (i % 5) as i16 - 2).collect();
        let coded = coder.encode(&indices, n_rows).unwrap();
        assert_eq!(coded[0], 3);
        let mut out = vec![0; indices.len()];
        coder.decode(&coded, n_rows, &mut out).unwrap();
        assert_eq!(out, indices);
    }

    #[test]
    fn coded_bytes_are_close_to_the_code_lengths() {
        let tables = tables(4, 1);
        let coder = IndexCoder::new(&tables);
        let n_rows = 4096;
        let indices: Vec<i16> = (0..4 * n_rows).map(|i| ((i * 7919 % 101) / 40) as i16 - 1).collect();
        let mut counts = vec![[0u64; 63]; 4];
        indices
            .iter()
            .enumerate()
            .for_each(|(i, &q)| counts[i / n_rows][(q + 31) as usize] += 1);
        let ideal: f64 = tables.iter().zip(&counts).map(|(table, counts)| table.cost_bits(counts)).sum();
        let coded = coder.encode(&indices, n_rows).unwrap().len() as f64;
        assert!(coded <= 1.01 * ideal / 8.0 + 64.0, "{coded} {ideal}");
    }
}
