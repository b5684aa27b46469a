//! Making a sidecar.

use super::check::check;
use super::header::Header;
use super::layout::{BLOCK_BYTES, Layout, PAGE_BYTES, PAGE_SPAN_BYTES, Section};
use crate::error::Result;
use crate::pool::Ticker;
use crate::sink::WriteAt;
use crate::source::ReadAt;
use rayon::prelude::*;
use reed_solomon_simd::ReedSolomonEncoder;
use xxhash_rust::xxh3::Xxh3;

/// Pages that are made between two reads.
pub const BATCH_PAGES: u64 = 1 << 10;
/// Groups that are coded together: their blocks at a position lie side by side, and so are read and written at once.
pub const LANE_GROUPS: u64 = 16;

/// Writes the sidecar of a file. Advances by the file's bytes twice.
pub fn write(file: &impl ReadAt, layout: Layout, out: &impl WriteAt, ticker: &Ticker) -> Result<()> {
    let mut digest = Xxh3::new();
    write_pages(&Part::new(file, layout, Section::Data), out, |bytes| {
        digest.update(bytes);
        ticker.advance(bytes.len() as u64)
    })?;
    write_parity(file, layout, out, ticker)?;
    write_pages(&Part::new(out, layout, Section::Parity), out, |_| ticker.advance(0))?;
    let header = Header {
        layout,
        digest: digest.digest128(),
    };
    for offset in layout.headers() {
        out.write_at(&header.to_bytes(), offset)?;
    }
    Ok(())
}

/// The blocks of a section: those of the file, or those of its sidecar.
pub struct Part<'a, S> {
    source: &'a S,
    pub layout: Layout,
    pub section: Section,
    /// Where they begin.
    start: u64,
    /// What there is of them, in bytes.
    n_bytes: u64,
}

impl<'a, S: ReadAt> Part<'a, S> {
    /// The section's blocks in a file or sidecar, which may end too early or too late.
    pub fn new(source: &'a S, layout: Layout, section: Section) -> Self {
        let start = match section {
            Section::Data => 0,
            Section::Parity => layout.parity().start,
        };
        Self {
            source,
            layout,
            section,
            start,
            n_bytes: source.n_bytes().saturating_sub(start).min(layout.bytes_of(section)),
        }
    }

    /// Fills `blocks` from an offset in the section on, with zeros where nothing is.
    pub fn read(&self, offset: u64, blocks: &mut [u8]) -> Result<()> {
        let n = self.n_bytes.saturating_sub(offset).min(blocks.len() as u64) as usize;
        let (there, beyond) = blocks.split_at_mut(n);
        beyond.fill(0);
        if there.is_empty() {
            return Ok(());
        }
        self.source.read_at(there, self.start + offset)
    }

    /// The blocks at a position of neighbouring groups.
    pub fn read_position(&self, position: u64, first_group: u64, blocks: &mut [u8]) -> Result<()> {
        self.read((position * self.layout.n_groups + first_group) * BLOCK_BYTES, blocks)
    }
}

/// The page with the checks of up to 30 blocks.
fn page(blocks: &[u8]) -> [u8; PAGE_BYTES as usize] {
    let mut page = [0; PAGE_BYTES as usize];
    let (checks, of_checks) = page.split_at_mut(PAGE_BYTES as usize - 8);
    for (block, stored) in blocks.chunks(BLOCK_BYTES as usize).zip(checks.as_chunks_mut::<8>().0) {
        *stored = to_stored(check(block));
    }
    of_checks.copy_from_slice(&to_stored(check(checks)));
    page
}

/// A check as it is stored: inverted, so that zeros, which is what lost sectors often read as, are no word of the code.
pub fn to_stored(check: u64) -> [u8; 8] {
    (!check).to_be_bytes()
}

/// The check that is stored so.
pub fn from_stored(stored: [u8; 8]) -> u64 {
    !u64::from_be_bytes(stored)
}

/// Writes the pages of a section, and hands on the bytes that were read for it.
fn write_pages<S: ReadAt>(part: &Part<'_, S>, out: &impl WriteAt, mut each: impl FnMut(&[u8]) -> Result<()> + Send) -> Result<()> {
    let n_bytes = part.layout.bytes_of(part.section);
    let pages_start = part.layout.pages(part.section).start;
    let mut blocks = Vec::new();
    for start in (0..n_bytes).step_by((BATCH_PAGES * PAGE_SPAN_BYTES) as usize) {
        let there = (n_bytes - start).min(BATCH_PAGES * PAGE_SPAN_BYTES) as usize;
        blocks.resize(there.next_multiple_of(BLOCK_BYTES as usize), 0);
        part.read(start, &mut blocks)?;
        let (pages, counted) = rayon::join(
            || blocks.par_chunks(PAGE_SPAN_BYTES as usize).flat_map_iter(page).collect::<Vec<u8>>(),
            || each(&blocks[..there]),
        );
        counted?;
        out.write_at(&pages, pages_start + start / PAGE_SPAN_BYTES * PAGE_BYTES)?;
    }
    Ok(())
}

/// The groups that are coded together.
pub fn lanes(layout: Layout) -> impl IndexedParallelIterator<Item = std::ops::Range<u64>> {
    (0..layout.n_groups.div_ceil(LANE_GROUPS) as usize)
        .into_par_iter()
        .map(move |lane| {
            let first = lane as u64 * LANE_GROUPS;
            first..layout.n_groups.min(first + LANE_GROUPS)
        })
}

fn write_parity(file: &impl ReadAt, layout: Layout, out: &impl WriteAt, ticker: &Ticker) -> Result<()> {
    let data = Part::new(file, layout, Section::Data);
    let start = layout.parity().start;
    let (n_positions, n_parity) = (layout.n_positions() as usize, layout.n_parity as usize);
    // Memory of an encoder serves the next lane of its thread.
    let init = || (None::<ReedSolomonEncoder>, Vec::new());
    lanes(layout).try_for_each_init(init, |(encoder, blocks), groups| {
        let lane_bytes = ((groups.end - groups.start) * BLOCK_BYTES) as usize;
        let fits = "the layout was checked";
        let encoder = match encoder {
            Some(encoder) => {
                encoder.reset(n_positions, n_parity, lane_bytes).expect(fits);
                encoder
            }
            None => encoder.insert(ReedSolomonEncoder::new(n_positions, n_parity, lane_bytes).expect(fits)),
        };
        blocks.resize(lane_bytes, 0);
        for position in 0..n_positions as u64 {
            data.read_position(position, groups.start, blocks)?;
            encoder.add_original_shard(&*blocks).expect(fits);
        }
        let parity = encoder.encode().expect("every shard was added");
        for (k, blocks) in parity.recovery_iter().enumerate() {
            out.write_at(blocks, start + (k as u64 * layout.n_groups + groups.start) * BLOCK_BYTES)?;
        }
        ticker.advance((n_positions * lane_bytes) as u64)
    })
}
