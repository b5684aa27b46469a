//! Levels of four bits and a scale for each group of elements.

use crate::buffer::scratch;
use crate::codec::legacy::cursor::{Cursor, chunks_mut};
use crate::codec::legacy::fp2::{narrowed, widened};
use crate::codec::legacy::lanes::{self, Job};
use crate::codec::legacy::short_rans::{ShortRans, Table};
use crate::codec::legacy::width::Width;
use crate::codec::legacy::{bytes, check_count, damaged};
use crate::error::Result;
use crate::pool::Threads;

/// The levels of a tensor.
pub struct Levels {
    /// Elements that share a scale.
    group: usize,
    /// BF16 words.
    scales: Vec<u16>,
    /// Each element's level, 8 above its value.
    raised: Vec<u8>,
}

/// Levels there are.
const N_LEVELS: usize = 16;

impl Levels {
    /// Parses a blob of `n` elements.
    pub fn parse(blob: &[u8], threads: Threads, n: usize) -> Result<Levels> {
        let mut blob = Cursor(blob);
        check_count(blob.u32()?, n)?;
        let group = blob.u16()? as usize;
        let n_groups = blob.u32()? as usize;
        if group == 0 || n_groups != n.div_ceil(group) {
            return Err(damaged("its groups are of another number of elements"));
        }
        let scales = blob.numbers(n_groups, Width::U16)?;
        let coding = blob.u8()?;
        let coded = blob.prefixed()?;
        let mut raised = scratch(n as u64)?;
        match coding {
            0 => unpack(coded, &mut raised)?,
            1 => bytes::f4_apart(coded, &mut raised)?,
            2 => decode_chunks(coded, threads, &mut raised)?,
            _ => return Err(damaged("its levels are coded in no known way")),
        }
        Ok(Levels { group, scales, raised })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.raised.len()
    }

    /// The level of an element, −8 to 7.
    pub fn level(&self, i: usize) -> i32 {
        self.raised[i] as i32 - 8
    }

    /// The scale of an element, a BF16 word.
    pub fn scale(&self, i: usize) -> u16 {
        self.scales[i / self.group]
    }

    /// The BF16 word that an element's level stands for.
    pub fn word(&self, i: usize) -> u16 {
        narrowed(self.level(i) as f32 * widened(self.scale(i)))
    }
}

/// Two levels a byte, the first in the low half.
fn unpack(coded: &[u8], out: &mut [u8]) -> Result<()> {
    if coded.len() != out.len().div_ceil(2) {
        return Err(damaged("its levels are of another number of elements"));
    }
    for (i, level) in out.iter_mut().enumerate() {
        *level = coded[i / 2] >> (4 * (i % 2)) & 15;
    }
    Ok(())
}

/// Codewords of chunks of elements, all with one table.
fn decode_chunks(coded: &[u8], threads: Threads, out: &mut [u8]) -> Result<()> {
    let mut coded = Cursor(coded);
    let bits = coded.u8()? as u32;
    let chunk = coded.u32()? as usize;
    let n_chunks = coded.u32()? as usize;
    if bits > 15 || chunk == 0 || n_chunks != out.len().div_ceil(chunk) {
        return Err(damaged("its chunks are of another number of elements"));
    }
    let table = Table::new(&coded.u32s(N_LEVELS)?, bits)?;
    let codewords = coded.parts(n_chunks)?;
    let mut symbols = scratch(2 * out.len() as u64)?;
    let jobs = codewords
        .into_iter()
        .zip(chunks_mut::<2>(&mut symbols).chunks_mut(chunk))
        .map(|(codeword, out)| Job::<ShortRans>::new(codeword, &table, out))
        .collect::<Result<_>>()?;
    lanes::run(jobs, threads)?;
    for (level, symbol) in out.iter_mut().zip(symbols.as_chunks::<2>().0) {
        *level = symbol[0];
    }
    Ok(())
}
