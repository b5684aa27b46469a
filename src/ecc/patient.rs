//! Files on disks that fail.

use crate::error::{Error, Kind, Result};
use crate::source::ReadAt;
use std::path::Path;

/// Bytes that are given up together: the smallest part that disks of today lose.
const SECTOR_BYTES: u64 = 512;
/// The system's error for what cannot be read.
const EIO: i32 = 5;

/// A file of which sectors may be unreadable, which read as zeros.
pub struct Patient<S>(pub S);

impl<S: ReadAt> ReadAt for Patient<S> {
    fn n_bytes(&self) -> u64 {
        self.0.n_bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match self.0.read_at(buffer, offset) {
            Err(error) if is_unreadable(&error) => {}
            result => return result,
        }
        let end = offset + buffer.len() as u64;
        let mut at = offset;
        while at < end {
            let next = end.min((at / SECTOR_BYTES + 1) * SECTOR_BYTES);
            let sector = &mut buffer[(at - offset) as usize..(next - offset) as usize];
            match self.0.read_at(sector, at) {
                Err(error) if is_unreadable(&error) => sector.fill(0),
                result => result?,
            }
            at = next;
        }
        Ok(())
    }

    fn path(&self) -> Option<&Path> {
        self.0.path()
    }
}

fn is_unreadable(error: &Error) -> bool {
    matches!(&error.kind, Kind::Io(error) if error.raw_os_error() == Some(EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A file with one bad sector.
    struct Failing(Vec<u8>);

    impl ReadAt for Failing {
        fn n_bytes(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
            if offset < 1024 && offset + buffer.len() as u64 > 512 {
                return Err(Error::io(io::Error::from_raw_os_error(EIO), Path::new("disk")));
            }
            (&self.0[..]).read_at(buffer, offset)
        }
    }

    #[test]
    fn an_unreadable_sector_is_zeros_and_its_neighbours_are_read() {
        let disk = Patient(Failing(vec![7; 5000]));
        let mut read = vec![1; 4000];
        disk.read_at(&mut read, 100).unwrap();
        let zeros: Vec<usize> = (0..4000).filter(|&i| read[i] != 7).map(|i| i + 100).collect();
        assert_eq!(zeros, (512..1024).collect::<Vec<_>>());
        assert!(disk.read_at(&mut read, 4000).is_err());
    }
}
