//! A file again as it was, from what is left of it and of its sidecar.

use super::examine::{State, examine, examine_all, is_enough, read_mended};
use super::header::{HEADER_BYTES, Header};
use super::layout::{BLOCK_BYTES, Layout, PAGE_SPAN_BYTES, Section};
use super::write::{BATCH_PAGES, Part};
use crate::error::{Error, Result};
use crate::pool::Ticker;
use crate::sink::WriteAt;
use crate::source::ReadAt;
use rayon::prelude::*;
use reed_solomon_simd::ReedSolomonDecoder;
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

/// Bytes that are read at a time where they are read once.
const READ_BYTES: u64 = 1 << 22;
/// States of blocks that groups are restored without: as many of them as parity allows. A block that is doubtful is hardly ever lost, and one
/// that is unproven is intact if it is the sidecar that was damaged there.
const LEFT_OUT: [&[State]; 4] = [
    &[State::Lost, State::Doubtful, State::Unproven],
    &[State::Lost, State::Unproven],
    &[State::Lost, State::Doubtful],
    &[State::Lost],
];

/// A plan for a file that is damaged, or whose sidecar is.
pub struct Plan {
    header: Header,
    /// Of the file's blocks, and of parity blocks.
    states: [Vec<State>; 2],
    /// For each group, which of `LEFT_OUT` applies.
    levels: Vec<u8>,
    /// Whether the file is as it was.
    pub file_intact: bool,
    /// Whether the sidecar is as it was.
    pub sidecar_intact: bool,
}

impl Plan {
    /// Looks for damage. Advances by the bytes of the file and of its parity.
    ///
    /// # Errors
    /// `Corrupt` if something cannot be mended, with what that is; `Format`, `Version`, `Io`.
    pub fn of(file: &impl ReadAt, sidecar: &impl ReadAt, ticker: &Ticker) -> Result<Self> {
        let header = Header::find(sidecar)?.ok_or_else(|| Error::format("this is no .ecc file, or none of its headers is left"))?;
        let layout = header.layout;
        if !is_enough(layout, file.n_bytes(), sidecar.n_bytes()) {
            let message = format!(
                "less is left of file and sidecar than the {} bytes that the file had",
                layout.file_bytes
            );
            return Err(Error::corrupt(message));
        }
        let file_intact = file.n_bytes() == layout.file_bytes && digest(file, ticker)? == header.digest;
        let (of_file, file_pages_intact) = examine_all(&Part::new(file, layout, Section::Data), sidecar, ticker)?;
        let (of_parity, parity_pages_intact) = examine_all(&Part::new(sidecar, layout, Section::Parity), sidecar, ticker)?;
        let headers = layout.headers().map(|offset| is_header(sidecar, offset, header));
        let sidecar_intact = file_pages_intact
            && parity_pages_intact
            && of_parity.iter().all(|state| *state == State::Intact)
            && sidecar.n_bytes() == layout.sidecar_bytes()
            && headers
                .into_iter()
                .collect::<Result<Vec<bool>>>()?
                .into_iter()
                .all(|is_there| is_there);
        let states = [of_file, of_parity].map(beside_lost);
        let levels = if file_intact { Vec::new() } else { levels(layout, &states)? };
        Ok(Self {
            header,
            states,
            levels,
            file_intact,
            sidecar_intact,
        })
    }

    /// Sizes of the file and its sidecar.
    pub fn layout(&self) -> Layout {
        self.header.layout
    }

    /// Writes the file, which is damaged, as it was. Advances by its bytes.
    ///
    /// # Errors
    /// `Corrupt` if what was made is not what the sidecar was made of; `Io`.
    pub fn restore(&self, file: &impl ReadAt, sidecar: &impl ReadAt, out: &impl WriteAt, ticker: &Ticker) -> Result<()> {
        let layout = self.layout();
        let data = Part::new(file, layout, Section::Data);
        for batch in 0.. {
            let Some(mut found) = examine(&data, sidecar, batch)? else { break };
            let start = batch * BATCH_PAGES * PAGE_SPAN_BYTES;
            found
                .blocks
                .truncate((layout.file_bytes - start).min(found.blocks.len() as u64) as usize);
            out.write_at(&found.blocks, start)?;
            ticker.advance(found.blocks.len() as u64)?;
        }
        let parity = Part::new(sidecar, layout, Section::Parity);
        (0..layout.n_groups as usize)
            .into_par_iter()
            .try_for_each(|group| self.restore_group(group as u64, &parity, sidecar, out))?;
        if digest(out, ticker)? != self.header.digest {
            return Err(Error::corrupt("what can be restored is not the file that the sidecar was made of"));
        }
        Ok(())
    }

    /// Whether a block takes no part in restoring its group.
    fn is_left_out(&self, section: Section, group: u64, position: u64) -> bool {
        let state = self.states[section as usize].get((position * self.layout().n_groups + group) as usize);
        state.is_some_and(|state| LEFT_OUT[self.levels[group as usize] as usize].contains(state))
    }

    /// Restores the blocks of a group that are left out.
    fn restore_group<S: ReadAt>(&self, group: u64, parity: &Part<'_, S>, sidecar: &impl ReadAt, out: &impl WriteAt) -> Result<()> {
        let layout = self.layout();
        let mut missing = (0..layout.n_positions())
            .filter(|&position| self.is_left_out(Section::Data, group, position))
            .count();
        if missing == 0 {
            return Ok(());
        }
        let fits = "the layout was checked, and no shard is added twice";
        let (n_positions, n_parity) = (layout.n_positions() as usize, layout.n_parity as usize);
        let mut decoder = ReedSolomonDecoder::new(n_positions, n_parity, BLOCK_BYTES as usize).expect(fits);
        let data = Part::new(out, layout, Section::Data);
        let mut block = [0; BLOCK_BYTES as usize];
        for position in 0..layout.n_positions() {
            if !self.is_left_out(Section::Data, group, position) {
                data.read_position(position, group, &mut block)?;
                decoder.add_original_shard(position as usize, block).expect(fits);
            }
        }
        for position in 0..layout.n_parity {
            if missing > 0 && !self.is_left_out(Section::Parity, group, position) {
                let block = read_mended(parity, sidecar, group, position)?;
                decoder.add_recovery_shard(position as usize, block).expect(fits);
                missing -= 1;
            }
        }
        let restored = decoder.decode().expect("there are as many parity blocks as others are missing");
        for (position, block) in restored.restored_original_iter() {
            let start = (position as u64 * layout.n_groups + group) * BLOCK_BYTES;
            let n = layout.file_bytes.saturating_sub(start).min(BLOCK_BYTES) as usize;
            out.write_at(&block[..n], start)?;
        }
        Ok(())
    }
}

/// Takes unproven blocks beside lost ones for lost: what is lost seldom begins and ends where blocks do.
fn beside_lost(states: Vec<State>) -> Vec<State> {
    let is_lost = |i: usize| states.get(i) == Some(&State::Lost);
    let of = |(i, &state): (usize, &State)| match state {
        State::Unproven if is_lost(i + 1) || is_lost(i.wrapping_sub(1)) => State::Lost,
        _ => state,
    };
    states.iter().enumerate().map(of).collect()
}

/// For each group, which of `LEFT_OUT` applies: the first that leaves out nothing of the file, or no more than there is parity for.
fn levels(layout: Layout, states: &[Vec<State>; 2]) -> Result<Vec<u8>> {
    let n_groups = layout.n_groups as usize;
    let [of_file, of_parity] = states.each_ref().map(|states| {
        let mut counts = vec![[0u64; LEFT_OUT.len()]; n_groups];
        for (i, state) in states.iter().enumerate() {
            for (count, left_out) in counts[i % n_groups].iter_mut().zip(LEFT_OUT) {
                *count += left_out.contains(state) as u64;
            }
        }
        counts
    });
    let levels: Vec<Option<u8>> = (of_file.iter().zip(&of_parity))
        .map(|(of_file, of_parity)| {
            let is_enough = |(&of_file, &of_parity)| of_file == 0 || of_file + of_parity <= layout.n_parity;
            of_file.iter().zip(of_parity).position(is_enough).map(|level| level as u8)
        })
        .collect();
    if levels.iter().all(Option::is_some) {
        return Ok(levels.into_iter().flatten().collect());
    }
    let lost = states[0]
        .iter()
        .enumerate()
        .filter(|(i, state)| **state == State::Lost && levels[i % n_groups].is_none());
    let (n_lost, first, last) = lost.fold((0, u64::MAX, 0), |(n, first, last), (i, _)| {
        (n + 1, first.min(i as u64), last.max(i as u64))
    });
    let message = if n_lost == 0 {
        "too much of the sidecar is lost to prove what the file was".into()
    } else {
        let Range { start, end } = first * BLOCK_BYTES..layout.file_bytes.min((last + 1) * BLOCK_BYTES);
        format!(
            "cannot be mended: {n_lost} blocks of {BLOCK_BYTES} bytes are lost for good, between bytes {start} and {end}; \
             of {} in a group, {} lost ones can be restored",
            layout.n_positions() + layout.n_parity,
            layout.n_parity
        )
    };
    Err(Error::corrupt(message))
}

fn is_header(sidecar: &impl ReadAt, offset: u64, header: Header) -> Result<bool> {
    let expected = header.to_bytes();
    let mut stored = [0; HEADER_BYTES as usize];
    if offset + stored.len() as u64 > sidecar.n_bytes() {
        return Ok(false);
    }
    sidecar.read_at(&mut stored, offset)?;
    Ok(stored == expected)
}

/// XXH3-128 of all of a file.
fn digest(file: &impl ReadAt, ticker: &Ticker) -> Result<u128> {
    let mut digest = Xxh3::new();
    let mut part = Vec::new();
    let n_bytes = file.n_bytes();
    for start in (0..n_bytes).step_by(READ_BYTES as usize) {
        part.resize((n_bytes - start).min(READ_BYTES) as usize, 0);
        file.read_at(&mut part, start)?;
        digest.update(&part);
        ticker.advance(0)?;
    }
    Ok(digest.digest128())
}
