//! Writing a file: blobs in order, then the header in front of them.

use super::header::Record;
use super::{DIGEST_BYTES, MAGIC, PREFIX_BYTES, VERSION, VERSION_ON_BASE};
use crate::digest::Md5;
use crate::error::Result;
use crate::limits::ALIGN;
use crate::sink::Sink;

/// Where the bytes of blobs go while the header's length is not known.
pub enum Body<'a> {
    /// Into memory: the header then takes just the room it needs.
    Memory(Vec<u8>),
    /// Into the file, behind room for the longest header that there can be.
    File {
        /// The file.
        sink: &'a Sink,
        /// Where blobs begin.
        data_offset: u64,
        /// Bytes of blobs so far.
        n_bytes: u64,
    },
}

impl<'a> Body<'a> {
    /// A body in `sink`, whose blobs begin there.
    pub fn in_file(sink: &'a Sink, data_offset: u64) -> Self {
        Body::File {
            sink,
            data_offset,
            n_bytes: 0,
        }
    }

    /// Bytes so far.
    pub fn n_bytes(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File { n_bytes, .. } => *n_bytes,
        }
    }

    /// Begins a blob: fills up to its place.
    ///
    /// # Errors
    /// `Io`.
    pub fn align(&mut self) -> Result<()> {
        let end = self.n_bytes().next_multiple_of(ALIGN);
        self.append(&vec![0; (end - self.n_bytes()) as usize])
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Body::Memory(all) => all.extend_from_slice(bytes),
            Body::File {
                sink,
                data_offset,
                n_bytes,
            } => {
                sink.write_at(bytes, *data_offset + *n_bytes)?;
                *n_bytes += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Replaces bytes that were appended before.
    ///
    /// # Errors
    /// `Io`.
    pub fn overwrite(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Body::Memory(all) => all[at as usize..][..bytes.len()].copy_from_slice(bytes),
            Body::File { sink, data_offset, .. } => sink.write_at(bytes, *data_offset + at)?,
        }
        Ok(())
    }

    /// Forgets all bytes from `end` on.
    ///
    /// # Errors
    /// `Io`.
    pub fn truncate(&mut self, end: u64) -> Result<()> {
        match self {
            Body::Memory(all) => all.truncate(end as usize),
            Body::File {
                sink,
                data_offset,
                n_bytes,
            } => {
                sink.set_len(*data_offset + end)?;
                *n_bytes = end;
            }
        }
        Ok(())
    }
}

/// Where blobs can begin in any file whose header is no longer than that.
pub fn data_offset(longest: &Record) -> u64 {
    let json = serde_json::to_vec(longest).expect("strings and numbers always serialise");
    (PREFIX_BYTES + json.len() as u64 + DIGEST_BYTES).next_multiple_of(ALIGN)
}

/// The bytes in front of the blobs. `data_offset` is filled in, unless it is given.
///
/// # Errors
/// `Source` if the header is longer than a reader takes.
pub fn front(record: &mut Record, data_offset: Option<u64>) -> Result<Vec<u8>> {
    // Where nothing is given, a header that names its own end must be found: a digit more may move it.
    let mut end = data_offset.unwrap_or(0);
    loop {
        record.data_offset = end;
        let header = record.to_bytes()?;
        let least = (PREFIX_BYTES + header.len() as u64 + DIGEST_BYTES).next_multiple_of(ALIGN);
        if least > end {
            assert!(data_offset.is_none(), "room was made for the longest header");
            end = least;
            continue;
        }
        let mut front = MAGIC.to_vec();
        let version = if record.base.is_some() { VERSION_ON_BASE } else { VERSION };
        front.extend(version.to_le_bytes());
        front.extend((header.len() as u32).to_le_bytes());
        front.extend(header);
        front.extend(Md5::of(&front).0);
        front.resize(end as usize, 0);
        return Ok(front);
    }
}
