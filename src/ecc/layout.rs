//! Where everything lies: blocks of the file and their groups, and the parts of the sidecar.

use super::check::CHECK_BYTES;
use super::header::HEADER_BYTES;
use crate::error::{Error, Result};
use reed_solomon_simd::ReedSolomonEncoder;
use std::ops::Range;

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 192;
/// Checks of a page.
pub const PAGE_CHECKS: u64 = 30;
/// Bytes of a page: checks, and the check of these.
pub const PAGE_BYTES: u64 = (PAGE_CHECKS + 1) * CHECK_BYTES as u64;
/// Bytes of the file that a page's checks are for.
pub const PAGE_SPAN_BYTES: u64 = PAGE_CHECKS * BLOCK_BYTES;
/// Parity blocks of a group of a large file: so many that what is lost at random is about the same share of every group.
const PARITY: u64 = 128;
/// Parity blocks that a group has at least: those of a sector of 4096 bytes, which need not begin where a block does.
const MIN_PARITY: u64 = 24;
/// Percents of a file that its sidecar may be asked to take.
const PERCENTS: std::ops::RangeInclusive<f64> = 5.0..=100.0;

/// Number and sizes of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the file, at least one.
    pub file_bytes: u64,
    /// Groups, from one to the number of blocks.
    pub n_groups: u64,
    /// Parity blocks of a group, at least one.
    pub n_parity: u64,
}

/// Whose check it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Blocks of the file.
    Data,
    /// Parity blocks.
    Parity,
}

impl Layout {
    /// The layout for a file, of which the sidecar is to take `percent`.
    ///
    /// # Errors
    /// `Option` for percents that cannot be met, and for an empty file.
    pub fn new(file_bytes: u64, percent: f64) -> Result<Self> {
        if !PERCENTS.contains(&percent) {
            let (least, most) = PERCENTS.into_inner();
            return Err(Error::option(format!(
                "parity of {percent} % is not to be had: {least} to {most} are possible"
            )));
        }
        if file_bytes == 0 {
            return Err(Error::option("an empty file has nothing to protect"));
        }
        let n_blocks = file_bytes.div_ceil(BLOCK_BYTES);
        // A block of data or parity needs its share of a page besides.
        let check = PAGE_BYTES as f64 / (PAGE_SPAN_BYTES as f64);
        let parity = (percent / 100.0 - check) / (1.0 + check);
        let most = (PARITY as f64 / parity) as u64;
        let n_groups = n_blocks.div_ceil(most);
        let n_parity = (n_blocks.div_ceil(n_groups) as f64 * parity) as u64;
        Self {
            file_bytes,
            n_groups,
            n_parity: n_parity.max(MIN_PARITY),
        }
        .checked()
        .ok_or_else(|| Error::option("the file is too long to protect"))
    }

    /// Itself, if there can be such a sidecar.
    pub fn checked(self) -> Option<Self> {
        let Self {
            file_bytes,
            n_groups,
            n_parity,
        } = self;
        // Then no sum or product below overflows.
        let is_small = file_bytes < 1 << 62 && n_parity <= 1 << 16;
        let is_whole = is_small && file_bytes > 0 && n_parity > 0 && n_groups > 0 && n_groups <= self.n_blocks();
        (is_whole
            && ReedSolomonEncoder::supports(self.n_positions() as usize, n_parity as usize)
            && n_groups.checked_mul(n_parity * BLOCK_BYTES).is_some_and(|bytes| bytes < 1 << 62))
        .then_some(self)
    }

    /// Blocks of the file.
    pub fn n_blocks(&self) -> u64 {
        self.file_bytes.div_ceil(BLOCK_BYTES)
    }

    /// Positions of a group.
    pub fn n_positions(&self) -> u64 {
        self.n_blocks().div_ceil(self.n_groups)
    }

    /// Parity blocks of all groups.
    pub fn n_parity_blocks(&self) -> u64 {
        self.n_groups * self.n_parity
    }

    /// Number of blocks of a section.
    pub fn n_blocks_of(&self, section: Section) -> u64 {
        match section {
            Section::Data => self.n_blocks(),
            Section::Parity => self.n_parity_blocks(),
        }
    }

    /// Bytes of the section's blocks.
    pub fn bytes_of(&self, section: Section) -> u64 {
        match section {
            Section::Data => self.file_bytes,
            Section::Parity => self.n_parity_blocks() * BLOCK_BYTES,
        }
    }

    /// Where the pages with the checks of a section lie in the sidecar.
    pub fn pages(&self, section: Section) -> Range<u64> {
        let start = match section {
            Section::Data => HEADER_BYTES,
            Section::Parity => self.pages(Section::Data).end,
        };
        start..start + self.n_blocks_of(section).div_ceil(PAGE_CHECKS) * PAGE_BYTES
    }

    /// Where the parity blocks lie in the sidecar.
    pub fn parity(&self) -> Range<u64> {
        let start = self.pages(Section::Parity).end + HEADER_BYTES;
        start..start + self.bytes_of(Section::Parity)
    }

    /// Where the headers lie in the sidecar.
    pub fn headers(&self) -> [u64; 3] {
        [0, self.parity().start - HEADER_BYTES, self.parity().end]
    }

    /// Bytes of the sidecar.
    pub fn sidecar_bytes(&self) -> u64 {
        self.parity().end + HEADER_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_the_one_asked_for() {
        for percent in [5.0, 8.0, 14.0, 25.0, 100.0] {
            for file_bytes in [1_000_000u64, 100_000_001, 123_456_789_012] {
                let layout = Layout::new(file_bytes, percent).unwrap();
                let found = 100.0 * layout.sidecar_bytes() as f64 / file_bytes as f64;
                assert!(
                    found <= percent + 0.6 && found > percent - 0.6,
                    "{percent}: {found} of {file_bytes}"
                );
                assert!(layout.sidecar_bytes() as f64 <= (percent + 0.01) / 100.0 * file_bytes as f64 || file_bytes < 10_000_000);
            }
        }
    }

    #[test]
    fn impossible_layouts_are_refused() {
        for percent in [f64::NAN, f64::INFINITY, -1.0, 4.9, 101.0] {
            assert!(Layout::new(1000, percent).is_err());
        }
        assert!(Layout::new(0, 14.0).is_err());
        let layout = |file_bytes, n_groups, n_parity| {
            Layout {
                file_bytes,
                n_groups,
                n_parity,
            }
            .checked()
        };
        assert!(layout(1000, 1, 1).is_some());
        assert!(layout(1000, 7, 1).is_none());
        assert!(layout(1000, 0, 1).is_none());
        assert!(layout(1000, 1, 0).is_none());
        assert!(layout(1000, 1, 1 << 16).is_none());
        assert!(layout(u64::MAX, 1, 1).is_none());
        assert!(layout(1 << 40, 1, 1).is_none());
        assert!(layout((1 << 62) - 1, 1 << 54, 1 << 15).is_none());
    }
}
