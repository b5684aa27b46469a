//! What is intact, what can be mended by itself, and what is lost.

use super::check::correct;
use super::layout::{BLOCK_BYTES, Layout, PAGE_BYTES, PAGE_CHECKS, PAGE_SPAN_BYTES, Section};
use super::write::{BATCH_PAGES, Part, from_stored};
use crate::error::Result;
use crate::pool::Ticker;
use crate::source::ReadAt;
use rayon::prelude::*;

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Block and check are as they were written.
    Intact,
    /// Its check mends block or check, certainly.
    Mended,
    /// It can be mended, or is lost and looks so by chance.
    Doubtful,
    /// Its check is lost, and with it the proof that the block is intact.
    Unproven,
    /// It is not what was written.
    Lost,
}

/// Blocks and their checks, as they are read.
pub struct Examined {
    /// Blocks of whole pages, mended where that is possible.
    pub blocks: Vec<u8>,
    /// What became of them.
    pub states: Vec<State>,
    /// Whether all their pages are as they were written.
    pub pages_intact: bool,
}

/// Examines the blocks of a batch of pages; `None` where the section ends.
pub fn examine<S: ReadAt>(part: &Part<'_, S>, sidecar: &impl ReadAt, batch: u64) -> Result<Option<Examined>> {
    let layout = part.layout;
    let span = BATCH_PAGES * PAGE_SPAN_BYTES;
    let n_bytes = (layout.n_blocks_of(part.section) * BLOCK_BYTES)
        .saturating_sub(batch * span)
        .min(span);
    if n_bytes == 0 {
        return Ok(None);
    }
    let mut blocks = vec![0; n_bytes as usize];
    part.read(batch * span, &mut blocks)?;
    let pages_at = layout.pages(part.section).start + batch * BATCH_PAGES * PAGE_BYTES;
    let mut pages = vec![0; (n_bytes.div_ceil(PAGE_SPAN_BYTES) * PAGE_BYTES) as usize];
    let there = sidecar.n_bytes().saturating_sub(pages_at).min(pages.len() as u64) as usize;
    if there > 0 {
        sidecar.read_at(&mut pages[..there], pages_at)?;
    }
    let examined: Vec<(Vec<State>, bool)> = (blocks.par_chunks_mut(PAGE_SPAN_BYTES as usize))
        .zip(pages.par_chunks_mut(PAGE_BYTES as usize))
        .map(|(blocks, page)| examine_page(blocks, page))
        .collect();
    let pages_intact = examined.iter().all(|(_, intact)| *intact);
    let states = examined.into_iter().flat_map(|(states, _)| states).collect();
    Ok(Some(Examined {
        blocks,
        states,
        pages_intact,
    }))
}

/// A block at a position of a group, mended if that is possible.
pub fn read_mended<S: ReadAt>(part: &Part<'_, S>, sidecar: &impl ReadAt, group: u64, position: u64) -> Result<[u8; BLOCK_BYTES as usize]> {
    let layout = part.layout;
    let number = position * layout.n_groups + group;
    let mut block = [0; BLOCK_BYTES as usize];
    part.read(number * BLOCK_BYTES, &mut block)?;
    let mut page = [0; PAGE_BYTES as usize];
    sidecar.read_at(&mut page, layout.pages(part.section).start + number / PAGE_CHECKS * PAGE_BYTES)?;
    let (checks, of_checks) = page.split_at_mut(PAGE_BYTES as usize - 8);
    let mut stored = from_stored((&*of_checks).try_into().expect("a page ends in eight bytes"));
    correct(checks, &mut stored);
    correct(
        &mut block,
        &mut from_stored(checks.as_chunks::<8>().0[(number % PAGE_CHECKS) as usize]),
    );
    Ok(block)
}

/// Mends what can be mended of a page and its blocks.
fn examine_page(blocks: &mut [u8], page: &mut [u8]) -> (Vec<State>, bool) {
    let (checks, of_checks) = page.split_at_mut(PAGE_BYTES as usize - 8);
    let mut stored = from_stored((&*of_checks).try_into().expect("a page ends in eight bytes"));
    let page_errors = correct(checks, &mut stored);
    let mut pages_intact = page_errors == Some(0);
    let states = (blocks.chunks_mut(BLOCK_BYTES as usize))
        .zip(checks.as_chunks::<8>().0)
        .map(|(block, stored)| {
            let mut stored = from_stored(*stored);
            let before = stored;
            let errors = correct(block, &mut stored);
            pages_intact &= before == stored;
            match errors {
                Some(0) => State::Intact,
                Some(1 | 2) => State::Mended,
                Some(_) => State::Doubtful,
                // Without a check that can be trusted, it is the look of a lost sector that tells.
                None if page_errors.is_some() || block.iter().all(|&byte| byte == block[0]) => State::Lost,
                None => State::Unproven,
            }
        })
        .collect();
    (states, pages_intact)
}

/// The states of all blocks of a section, and whether all pages are as they were written. Advances by the section's bytes.
pub fn examine_all<S: ReadAt>(part: &Part<'_, S>, sidecar: &impl ReadAt, ticker: &Ticker) -> Result<(Vec<State>, bool)> {
    let (mut states, mut pages_intact) = (Vec::new(), true);
    for batch in 0.. {
        let Some(found) = examine(part, sidecar, batch)? else { break };
        ticker.advance(found.blocks.len() as u64)?;
        states.extend(found.states);
        pages_intact &= found.pages_intact;
    }
    Ok((states, pages_intact))
}

/// Bounds the memory that states of a layout take by what is there of file and sidecar: what is lost of either has to be made of the other.
pub fn is_enough(layout: Layout, file_bytes: u64, sidecar_bytes: u64) -> bool {
    let parity = sidecar_bytes
        .saturating_sub(layout.parity().start)
        .min(layout.bytes_of(Section::Parity));
    file_bytes.saturating_add(parity) >= layout.file_bytes
}
