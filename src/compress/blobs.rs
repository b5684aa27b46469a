//! Writing the blobs.

use super::job::Part;
use crate::codec::blob::Index;
use crate::codec::select::Choice;
use crate::codec::{Codec, Coded, stored};
use crate::container::writer::Body;
use crate::error::Result;

/// A blob that was written.
pub struct Blob {
    pub codec: Codec,
    pub n_bytes: u64,
}

/// Where a blob begins, the sizes of its chunks' heads and bodies, and the checksums of its stored spans.
type OpenBlob = (u64, Vec<(u32, u32)>, Vec<u8>);

/// Writes the parts of blobs, in order.
pub struct BlobWriter<'b, 'a> {
    body: &'b mut Body<'a>,
    /// The blobs that are whole.
    written: Vec<Blob>,
    /// Where the blob begins that is not, and what its parts have told.
    open: Option<OpenBlob>,
}

impl<'b, 'a> BlobWriter<'b, 'a> {
    /// Blobs at the end of `body`.
    pub fn new(body: &'b mut Body<'a>) -> Self {
        Self {
            body,
            written: Vec::new(),
            open: None,
        }
    }

    /// Appends a part, the next one of its blob or the first of the next blob.
    pub fn put(&mut self, part: &Part<'_, '_>, coded: &Coded) -> Result<()> {
        let Part { job, range } = part;
        let raw_bytes = job.content.n_bytes();
        let n_parts = raw_bytes.div_ceil(job.part_bytes);
        let is_chunked = matches!(job.choice, Choice::Chunked(_));
        if range.start == 0 {
            self.body.align()?;
            self.open = Some((self.body.n_bytes(), Vec::new(), Vec::new()));
            if is_chunked {
                self.body.append(&vec![0; Index::bytes(n_parts)])?;
            }
        }
        let (start, sizes, checksums) = self.open.as_mut().expect("the first part opens the blob");
        if is_chunked {
            self.body.append(&coded.head)?;
            self.body.append(&coded.body)?;
            sizes.push((coded.head.len() as u32, coded.body.len() as u32));
        } else {
            self.body.append(&job.content.bytes(range))?;
            checksums.extend_from_slice(&coded.head);
        }
        if range.end < raw_bytes {
            return Ok(());
        }
        let mut codec = Codec::Stored;
        if let Choice::Chunked(chosen) = job.choice {
            codec = chosen;
            self.body
                .overwrite(*start, &Index::write(job.part_bytes / job.layout.word_bytes(), sizes))?;
            // The sample may have promised more than all words keep.
            if Some(self.body.n_bytes() - *start) >= stored::blob_bytes(raw_bytes as u64) {
                codec = Codec::Stored;
                self.body.truncate(*start)?;
                let raw = job.content.all();
                self.body.append(&raw)?;
                *checksums = stored::checksums(&raw);
            }
        }
        self.body.append(checksums)?;
        let n_bytes = self.body.n_bytes() - *start;
        self.written.push(Blob { codec, n_bytes });
        self.open = None;
        Ok(())
    }

    /// All blobs.
    pub fn finish(self) -> Vec<Blob> {
        self.written
    }
}
