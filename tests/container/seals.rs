//! The checksums in a file: where they are and what they cover, so that damage can be signed as a writer would.

use bigsmall::codec::Codec;
use bigsmall::container::header::{Blob, Storage};
use bigsmall::rans::bits::take_varint;
use bigsmall::{Dtype, Reader};
use std::ops::Range;

/// A CRC-32.
#[derive(Clone, Debug)]
struct Seal {
    covers: Range<usize>,
    at: usize,
}

/// The checksums of the blobs of a file, each of which has one chunk of few enough words for a single block; inner ones first.
#[derive(Debug)]
pub struct Seals(Vec<Seal>);

impl Seals {
    /// Finds them.
    pub fn of(file: &[u8]) -> Self {
        let reader = Reader::open(file).unwrap();
        let header = reader.header();
        let mut seals = Seals(Vec::new());
        if !header.tables.is_empty() {
            seals.trailing(header.tables.start as usize..header.tables.end as usize);
        }
        let packs = header.packs.iter().map(|pack| (&pack.blob, pack.dtype));
        let tensors = header.entries.iter().filter_map(|entry| match &entry.storage {
            Storage::Blob(blob) => Some((blob, entry.dtype)),
            _ => None,
        });
        packs.chain(tensors).for_each(|(blob, dtype)| seals.blob(file, blob, dtype));
        seals
    }

    /// Computes all of them anew.
    pub fn sign(&self, file: &mut [u8]) {
        for Seal { covers, at } in &self.0 {
            let crc = crc32fast::hash(&file[covers.clone()]);
            file[*at..at + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// The seal at the end of `range`, which covers the rest of it.
    fn trailing(&mut self, range: Range<usize>) {
        self.0.push(Seal {
            covers: range.start..range.end - 4,
            at: range.end - 4,
        });
    }

    fn blob(&mut self, file: &[u8], blob: &Blob, dtype: Dtype) {
        let (start, end) = (blob.range.start as usize, blob.range.end as usize);
        if blob.codec == Codec::Stored {
            return self.trailing(start..end);
        }
        let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let head = start + 16..start + 16 + u32_at(start + 4);
        let body = head.end..head.end + u32_at(start + 8);
        assert_eq!(body.end, end, "one chunk");
        self.trailing(start..start + 16);
        let inside = |rest: &[u8]| head.end - rest.len();
        match blob.codec {
            Codec::Planes => return self.planes(head, body),
            Codec::Palette => {
                let n_bytes = (file[head.start] as usize + 1) * dtype.layout().word_bytes();
                self.planes(head.start + 1 + n_bytes..head.end - 4, body);
            }
            Codec::RowDelta => {
                let mut rest = &file[head.clone()];
                take_varint(&mut rest);
                self.planes(inside(rest)..head.end - 4, body);
            }
            Codec::Sparse => {
                let mut rest = &file[head.clone()];
                take_varint(&mut rest);
                let mask_head_bytes = take_varint(&mut rest).unwrap() as usize;
                let mask_head = inside(rest)..inside(rest) + mask_head_bytes;
                rest = &rest[mask_head_bytes..];
                let mask_bytes = take_varint(&mut rest).unwrap() as usize;
                self.planes(mask_head, body.start..body.start + mask_bytes);
                self.planes(inside(rest)..head.end - 4, body.start + mask_bytes..body.end);
            }
            Codec::Zstd | Codec::Context => self.0.push(Seal {
                covers: body,
                at: head.start,
            }),
            codec => panic!("{codec:?} has no blob"),
        }
        self.trailing(head);
    }

    /// The directory of a head ends with the checksum of the last block, which is followed by that of the head.
    fn planes(&mut self, head: Range<usize>, body: Range<usize>) {
        self.0.push(Seal {
            covers: body,
            at: head.end - 8,
        });
        self.trailing(head);
    }
}
