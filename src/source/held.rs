//! Parts of a source that are kept in memory.

use super::ReadAt;
use crate::buffer::Buffer;
use crate::error::Result;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// A source of which some ranges are held in memory, until they are let go. What lies in one of them is read from there.
pub struct Held<S> {
    source: S,
    /// By where they begin.
    ranges: RwLock<BTreeMap<u64, Arc<Buffer>>>,
}

impl<S: ReadAt> Held<S> {
    /// Nothing of it is held at first.
    pub fn new(source: S) -> Self {
        Self {
            source,
            ranges: RwLock::default(),
        }
    }

    /// Reads a range, in one piece, and holds it. Returns the bytes that this takes; none if it is held.
    ///
    /// # Errors
    /// Those of reading; `Io` of kind `OutOfMemory`.
    pub fn hold(&self, range: Range<u64>) -> Result<u64> {
        if range.is_empty() || self.find(&range).is_some() {
            return Ok(0);
        }
        let n_bytes = range.end - range.start;
        let mut buffer = Buffer::new(n_bytes)?;
        self.source.read_at(&mut buffer, range.start)?;
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        ranges.insert(range.start, Arc::new(buffer));
        Ok(n_bytes)
    }

    /// Lets go of all that begins within a range.
    pub fn release(&self, range: Range<u64>) {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        ranges.retain(|start, _| !range.contains(start));
    }

    fn find(&self, range: &Range<u64>) -> Option<(u64, Arc<Buffer>)> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (start, buffer) = ranges.range(..=range.start).next_back()?;
        (range.end <= start + buffer.len() as u64).then(|| (*start, buffer.clone()))
    }
}

impl<S: ReadAt> ReadAt for Held<S> {
    fn n_bytes(&self) -> u64 {
        self.source.n_bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match self.find(&(offset..offset.saturating_add(buffer.len() as u64))) {
            Some((start, held)) => {
                buffer.copy_from_slice(&held[(offset - start) as usize..][..buffer.len()]);
                Ok(())
            }
            None => self.source.read_at(buffer, offset),
        }
    }

    fn path(&self) -> Option<&Path> {
        self.source.path()
    }

    fn beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.source.beside(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts what is read of it.
    struct Counted<'a>(&'a [u8], AtomicU64);

    impl ReadAt for Counted<'_> {
        fn n_bytes(&self) -> u64 {
            self.0.n_bytes()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
            self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            self.0.read_at(buffer, offset)
        }
    }

    #[test]
    fn what_is_held_is_not_read_again() {
        let bytes: Vec<u8> = (0..=255).collect();
        let held = Held::new(Counted(&bytes, AtomicU64::new(0)));
        let n_read = || held.source.1.load(Ordering::Relaxed);
        assert_eq!(held.hold(10..50).unwrap(), 40);
        assert_eq!(held.hold(20..30).unwrap(), 0);
        assert_eq!(held.hold(100..100).unwrap(), 0);
        assert_eq!(n_read(), 40);
        for (start, end, more) in [(10, 50, 0), (12, 13, 0), (49, 50, 0), (9, 11, 2), (49, 51, 2), (200, 256, 56)] {
            let before = n_read();
            let mut out = vec![0; end - start];
            held.read_at(&mut out, start as u64).unwrap();
            assert_eq!(out, bytes[start..end], "{start}..{end}");
            assert_eq!(n_read() - before, more, "{start}..{end}");
        }
        held.release(0..10);
        assert_eq!(held.hold(10..50).unwrap(), 0);
        held.release(10..11);
        assert_eq!(held.hold(10..50).unwrap(), 40);
        assert!(held.hold(250..300).is_err());
    }
}
