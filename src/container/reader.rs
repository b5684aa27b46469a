//! Reading a file: any tensor, or any range of its words.

use super::header::{Blob, Entry, Header, Storage};
use super::kept::Kept;
use super::published::{self, Published};
use super::{DIGEST_BYTES, INDEX, PREFIX_BYTES, Version};
use crate::base::{self, BaseTensor};
use crate::buffer::Buffer;
use crate::codec::blob::Index;
use crate::codec::chunk::Decoder;
use crate::codec::context::Matrix;
use crate::codec::legacy::{self, dual};
use crate::codec::planes::Pools;
use crate::codec::{Codec, Damage};
use crate::digest::Md5;
use crate::dtype::Dtype;
use crate::error::{Error, Kind, Place, Result};
use crate::float::Layout;
use crate::limits::{MAX_HEADER_BYTES, STORED_SPAN_BYTES};
use crate::order::{self, Order};
use crate::pool::Threads;
use crate::safetensors;
use crate::simd::Isa;
use crate::source::ReadAt;
use crate::weights::Weights;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes of stored words that are read at a time: whole spans.
const STORED_PART_BYTES: u64 = 4 * STORED_SPAN_BYTES;
/// Bytes between stored ranges that are cheaper to read than a second range.
const STORED_GAP_BYTES: u64 = 1 << 16;
/// Bytes of gaps that are read at a time.
const GAP_PART_BYTES: usize = 1 << 16;

/// Bytes of a tensor of a published container from which several threads decode it.
const SHARED_BYTES: u64 = 1 << 20;
/// Bytes of a file with a checksum of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where they lie.
    pub range: Range<u64>,
    crc: u32,
}

/// An open file.
pub struct Reader<S> {
    source: S,
    header: Header,
    /// Index of each tensor.
    by_name: HashMap<String, usize>,
    pools: Pools,
    isa: Isa,
    /// Indices of the blobs of tensors, then of packs.
    indices: Vec<OnceLock<Arc<Index>>>,
    /// Decoded packs, then groups, then tensors of which parts were asked for.
    kept: Kept,
    bytes_read: AtomicU64,
    /// What the words of patches are differences to.
    base: Option<Arc<Weights>>,
}

impl<S: ReadAt> Reader<S> {
    /// Opens a file: reads and checks its header and tables.
    ///
    /// # Errors
    /// `Io`, `Format`, `Version`, `Corrupt`.
    pub fn open(source: S) -> Result<Self> {
        Self::open_with(source, Isa::current()?)
    }

    /// Opens a file to be decoded with the given instruction set.
    ///
    /// # Errors
    /// Those of [`Reader::open`].
    pub fn open_with(source: S, isa: Isa) -> Result<Self> {
        let path = source.path().map(ToOwned::to_owned);
        let opened = Self::open_unplaced(source, isa);
        match path {
            Some(path) => opened.at_path(&path),
            None => opened,
        }
    }

    /// Opens a patch, whose words are differences to those of `base`. A file that needs no base is opened as by [`Reader::open`].
    ///
    /// Whether it is the base that the patch was made from is known for certain as words are read: each block has a checksum of those that it
    /// needs. [`Reader::check_base`] tells beforehand.
    ///
    /// # Errors
    /// Those of [`Reader::open`]; `Base` if the base lacks tensors that are needed.
    pub fn open_on(source: S, base: Arc<Weights>) -> Result<Self> {
        Self::open_on_with(source, base, Isa::current()?)
    }

    /// [`Reader::open_on`] with the given instruction set.
    ///
    /// # Errors
    /// Those of [`Reader::open_on`].
    pub fn open_on_with(source: S, base: Arc<Weights>, isa: Isa) -> Result<Self> {
        let mut opened = Self::open_with(source, isa)?;
        opened.base = Some(base);
        for (tensor, entry) in opened.header.entries.iter().enumerate() {
            if entry.base.is_some() {
                opened.placed(tensor, opened.base_of(entry).map(drop))?;
            }
        }
        Ok(opened)
    }

    /// What it was opened on.
    pub fn base(&self) -> Option<&Weights> {
        self.base.as_deref()
    }

    /// Checks that a patch was opened on the base that it was made from. That takes digesting all tensors of the base that are used, unless its
    /// files tell their digests.
    ///
    /// # Errors
    /// `Base` if it was not, with both fingerprints; as for reading the base.
    pub fn check_base(&self) -> Result<()> {
        let Some(wanted) = self.header.fingerprint else { return Ok(()) };
        let result = self.base_fingerprint().and_then(|found| match found == wanted {
            true => Ok(()),
            false => Err(wrong_base(wanted, found)),
        });
        result.map_err(|error| self.place(error))
    }

    fn base_fingerprint(&self) -> Result<Md5> {
        let used = self.header.entries.iter().filter(|entry| entry.base.is_some());
        let used = used.map(|entry| self.base_of(entry)).collect::<Result<Vec<_>>>()?;
        let weights = self.base.as_deref().ok_or_else(|| self.no_base())?;
        base::fingerprint(weights, used.iter().map(BaseTensor::tensor))
    }

    fn no_base(&self) -> Error {
        let of = self
            .header
            .fingerprint
            .map_or_else(String::new, |md5| format!(" (fingerprint {md5})"));
        Error::base(format!("this is a patch, and the base that it was made from{of} was not given"))
    }

    /// The base tensor of a tensor that has one.
    fn base_of(&self, entry: &Entry) -> Result<BaseTensor<'_>> {
        let weights = self.base.as_deref().ok_or_else(|| self.no_base())?;
        let name = entry.base.as_deref().expect("only tensors with a base are asked for theirs");
        BaseTensor::named(weights, name, entry.dtype).ok_or_else(|| {
            let wanted = self.header.fingerprint.map_or_else(String::new, |md5| md5.to_string());
            let all = base::fingerprint(weights, 0..weights.tensors().len());
            let found = all.map_or_else(|_| "unknown".into(), |md5| md5.to_string());
            let dtype = entry.dtype.name();
            Error::base(format!(
                "made from a base with fingerprint {wanted}, which has a {dtype} tensor {name:?}; this base, whose tensors have the fingerprint {found}, has none"
            ))
        })
    }

    fn open_unplaced(source: S, isa: Isa) -> Result<Self> {
        let file_bytes = source.n_bytes();
        let mut prefix = [0; PREFIX_BYTES as usize];
        let too_short = || Error::format("this is not a .bs file: it is too short");
        if file_bytes < PREFIX_BYTES {
            let mut start = vec![0; file_bytes as usize];
            source.read_at(&mut start, 0)?;
            return Err(if start.is_empty() {
                Error::format("the file is empty")
            } else {
                too_short()
            });
        }
        source.read_at(&mut prefix, 0)?;
        let version = Version::of(&prefix)?;
        let header_bytes = u32::from_le_bytes([prefix[6], prefix[7], prefix[8], prefix[9]]) as u64;
        if header_bytes > MAX_HEADER_BYTES {
            return Err(Error::format(format!(
                "a header of {header_bytes} bytes is longer than {MAX_HEADER_BYTES}"
            )));
        }
        let digest_bytes = if version.is_published() { 0 } else { DIGEST_BYTES };
        if PREFIX_BYTES + header_bytes + digest_bytes > file_bytes {
            return Err(Error::format("the file is truncated: it ends inside its header"));
        }
        let mut start = vec![0; (PREFIX_BYTES + header_bytes + digest_bytes) as usize];
        source.read_at(&mut start, 0)?;
        let (signed, digest) = start.split_at((PREFIX_BYTES + header_bytes) as usize);
        let stored = &signed[PREFIX_BYTES as usize..];
        let header = if version.is_published() {
            let index = if version.is_published_dual() { None } else { source.beside(INDEX)? };
            published::parse(version, stored, file_bytes, index.as_deref())?
        } else if Md5::of(signed).0 == *digest {
            Header::parse(version, stored, file_bytes)?
        } else {
            return Err(Error::corrupt("the header does not match its digest"));
        };
        let mut tables = vec![0; (header.tables.end - header.tables.start) as usize];
        source.read_at(&mut tables, header.tables.start)?;
        let pools = Pools::from_bytes(&tables).ok_or_else(|| Error::corrupt("the shared tables are damaged"))?;
        let by_name = (header.entries.iter().enumerate())
            .map(|(i, entry)| (entry.name.clone(), i))
            .collect();
        let bytes_read = AtomicU64::new((start.len() + tables.len()) as u64);
        let indices = (0..header.entries.len() + header.packs.len()).map(|_| OnceLock::new()).collect();
        let kept = Kept::new(header.packs.len() + header.groups.len() + header.entries.len());
        Ok(Self {
            source,
            header,
            by_name,
            pools,
            isa,
            indices,
            kept,
            bytes_read,
            base: None,
        })
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it reads from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Where in the file the words of these tensors are stored, in order; ranges that lie close together are one.
    pub fn stored_ranges(&self, tensors: &[usize]) -> Vec<Range<u64>> {
        let of = |&tensor: &usize| match &self.master(tensor).1.storage {
            Storage::Blob(blob) => vec![blob.range.clone()],
            Storage::Packed { pack, .. } => vec![self.header.packs[*pack].blob.range.clone()],
            Storage::Published(stored) => stored.ranges(&self.header.groups),
            Storage::Empty | Storage::Constant(_) | Storage::Tied(_) => Vec::new(),
        };
        let mut ranges: Vec<Range<u64>> = tensors.iter().flat_map(of).collect();
        ranges.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end + STORED_GAP_BYTES => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.source.n_bytes()
    }

    /// Index of the tensor of that name.
    ///
    /// # Errors
    /// `MissingTensor`.
    pub fn find(&self, name: &str) -> Result<usize> {
        let at = self.by_name.get(name).copied();
        at.ok_or_else(|| self.place(Error::new(Kind::MissingTensor, format!("there is no tensor {name:?}"))))
    }

    /// The parts of a tensor that are best decoded on their own, as ranges of its words.
    ///
    /// # Errors
    /// As for reading.
    pub fn parts(&self, tensor: usize) -> Result<impl Iterator<Item = Range<u64>> + use<S>> {
        let n_words = self.header.entries[tensor].n_words();
        let (master, entry) = self.master(tensor);
        let step = match &entry.storage {
            _ if entry.order != Order::Natural => n_words.max(1),
            Storage::Blob(blob) if blob.codec.is_chunked() => self.placed(tensor, self.index(master))?.chunk_words as u64,
            Storage::Blob(_) | Storage::Constant(_) => STORED_PART_BYTES / entry.dtype.layout().word_bytes() as u64,
            Storage::Empty | Storage::Packed { .. } | Storage::Tied(_) | Storage::Published(_) => n_words.max(1),
        };
        Ok((0..n_words)
            .step_by(step as usize)
            .map(move |start| start..n_words.min(start + step)))
    }

    /// The tensor whose words are stored for a tensor: itself, unless it is tied to another.
    fn master(&self, tensor: usize) -> (usize, &Entry) {
        let master = match self.header.entries[tensor].storage {
            Storage::Tied(master) => master,
            _ => tensor,
        };
        (master, &self.header.entries[master])
    }

    /// Whether reading all of a tensor checks its md5.
    pub fn checks_md5(&self, tensor: usize) -> bool {
        matches!(self.master(tensor).1.storage, Storage::Published(_))
    }

    /// Decodes the words in `range` of a tensor.
    ///
    /// # Errors
    /// `Io`, or `Corrupt` if a block that covers them is damaged.
    pub fn read_words(&self, tensor: usize, range: Range<u64>, out: &mut [u8]) -> Result<()> {
        let asked = &self.header.entries[tensor];
        let width = asked.dtype.layout().word_bytes();
        assert!(range.end <= asked.n_words() && out.len() as u64 == (range.end - range.start) * width as u64);
        let (_, entry) = self.master(tensor);
        match &entry.storage {
            _ if out.is_empty() => Ok(()),
            Storage::Published(_) => self.placed(tensor, self.read_published(tensor, range.start as usize * width, out)),
            _ if entry.order != Order::Natural => {
                let mut stored = vec![0; entry.raw_bytes as usize];
                self.read_stored_words(tensor, 0..entry.n_words(), &mut stored)?;
                let sizes = order::sizes(safetensors::matrix(entry.dtype, &entry.shape), entry.n_words());
                let sizes = sizes.expect("the header has checked that the shape has them");
                entry
                    .order
                    .restore(sizes, width, &stored, &(range.start as usize..range.end as usize), out);
                Ok(())
            }
            _ => self.read_stored_words(tensor, range, out),
        }
    }

    /// Decodes the words in `range` of a tensor's stored ones.
    fn read_stored_words(&self, tensor: usize, range: Range<u64>, out: &mut [u8]) -> Result<()> {
        let (master, entry) = self.master(tensor);
        let width = entry.dtype.layout().word_bytes();
        match &entry.storage {
            Storage::Empty => Ok(()),
            Storage::Tied(_) => unreachable!("a tensor that others are tied to is not tied"),
            Storage::Published(_) => unreachable!("what the published package stored is read as a whole"),
            Storage::Constant(word) => {
                if word.iter().any(|&byte| byte != word[0]) {
                    out.chunks_exact_mut(width).for_each(|to| to.copy_from_slice(word));
                } else if word[0] != 0 || out.iter().any(|&byte| byte != 0) {
                    out.fill(word[0]);
                }
                Ok(())
            }
            Storage::Packed { pack, first } => {
                let words = self.placed(tensor, self.pack(*pack))?;
                out.copy_from_slice(&words[(first + range.start) as usize * width..][..out.len()]);
                Ok(())
            }
            Storage::Blob(blob) => self.placed(tensor, self.read_blob(master, blob, entry.dtype, entry.n_words(), range, out)),
        }
    }

    /// Checks that the bytes between header and blobs are zero.
    ///
    /// # Errors
    /// `Corrupt` if they are not.
    pub fn check_gaps(&self) -> Result<()> {
        for gap in &self.header.gaps {
            for start in (gap.start..gap.end).step_by(GAP_PART_BYTES) {
                let part = self.read(start..gap.end.min(start + GAP_PART_BYTES as u64))?;
                if part.iter().any(|&byte| byte != 0) {
                    return Err(self.place(Error::corrupt(format!("the filling after byte {start} is not zero"))));
                }
            }
        }
        Ok(())
    }

    /// Checks what can be checked of a tensor without decoding it: its index, the heads of its chunks and the checksums of its blocks' directory.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn check_structure(&self, tensor: usize) -> Result<()> {
        let entry = &self.header.entries[tensor];
        let (slot, blob, dtype) = match &entry.storage {
            Storage::Blob(blob) => (tensor, blob, entry.dtype),
            Storage::Packed { pack, .. } => (self.header.entries.len() + pack, &self.header.packs[*pack].blob, entry.dtype),
            _ => return Ok(()),
        };
        if !blob.codec.is_chunked() {
            return Ok(());
        }
        let check = || {
            let index = self.index(slot)?;
            (0..index.chunks.len()).try_for_each(|chunk| self.chunk(slot, blob, dtype.layout(), &index, chunk).map(drop))
        };
        self.placed(tensor, check())
    }

    /// The tensors and packs that have a blob of their own: the number of the blob, and the tensor that stands for it in messages.
    pub fn blobs(&self) -> Vec<(usize, usize)> {
        let n_tensors = self.header.entries.len();
        let has_blob = |&tensor: &usize| matches!(self.header.entries[tensor].storage, Storage::Blob(_));
        let packs = self.header.packs.iter().enumerate();
        (0..n_tensors)
            .filter(has_blob)
            .map(|tensor| (tensor, tensor))
            .chain(packs.filter_map(|(i, pack)| Some((n_tensors + i, *pack.members.first()?))))
            .collect()
    }

    /// The blob in which a tensor's words are stored, if it is one of [`Reader::blobs`].
    pub fn blob_of(&self, tensor: usize) -> Option<usize> {
        match &self.master(tensor).1.storage {
            Storage::Blob(_) => Some(self.master(tensor).0),
            Storage::Packed { pack, .. } => Some(self.header.entries.len() + pack),
            Storage::Empty | Storage::Constant(_) | Storage::Tied(_) | Storage::Published(_) => None,
        }
    }

    /// The blocks of a blob, in order, as far as its index and the heads of its chunks tell of them.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn blocks(&self, blob: usize) -> Result<Vec<Block>> {
        let (stored, dtype, n_words) = self.slot(blob);
        let start = stored.range.start;
        let layout = dtype.layout();
        if stored.codec == Codec::Stored {
            let raw_bytes = n_words * layout.word_bytes() as u64;
            let crcs = self.read(start + raw_bytes..stored.range.end)?;
            return Ok((0..raw_bytes)
                .step_by(STORED_SPAN_BYTES as usize)
                .zip(crcs.as_chunks::<4>().0)
                .map(|(at, crc)| Block {
                    range: start + at..start + raw_bytes.min(at + STORED_SPAN_BYTES),
                    crc: u32::from_le_bytes(*crc),
                })
                .collect());
        }
        let index = self.index(blob)?;
        let mut blocks = Vec::new();
        for chunk in 0..index.chunks.len() {
            let (decoder, body) = self.chunk(blob, stored, layout, &index, chunk)?;
            let within = decoder.blocks((body.end - body.start) as usize).into_iter();
            blocks.extend(within.map(|(range, crc)| Block {
                range: body.start + range.start as u64..body.start + range.end as u64,
                crc,
            }));
        }
        Ok(blocks)
    }

    /// Whether a block matches its checksum.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_intact(&self, block: &Block) -> Result<bool> {
        Ok(crc32fast::hash(&self.read(block.range.clone())?) == block.crc)
    }

    fn place(&self, error: Error) -> Error {
        match self.source.path() {
            Some(path) => error.at_path(path),
            None => error,
        }
    }

    fn placed<T>(&self, tensor: usize, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.place(error.at_tensor(&self.header.entries[tensor].name)))
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        // The range is one of the header's or lies in a blob, so the file is at least as long.
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.source.read_at(&mut bytes, range.start)?;
        self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// The blob, dtype and number of words of a tensor, or of a pack where `slot` is beyond the tensors.
    fn slot(&self, slot: usize) -> (&Blob, Dtype, u64) {
        match self.header.entries.get(slot) {
            Some(entry) => match &entry.storage {
                Storage::Blob(blob) => (blob, entry.dtype, entry.n_words()),
                _ => unreachable!("only tensors with a blob have an index"),
            },
            None => {
                let pack = &self.header.packs[slot - self.header.entries.len()];
                (&pack.blob, pack.dtype, pack.n_words)
            }
        }
    }

    fn index(&self, slot: usize) -> Result<Arc<Index>> {
        if let Some(index) = self.indices[slot].get() {
            return Ok(index.clone());
        }
        let (blob, dtype, n_words) = self.slot(slot);
        let blob_bytes = blob.range.end - blob.range.start;
        let damaged = || Error::corrupt("the index of its chunks is damaged");
        if blob_bytes < 8 {
            return Err(damaged());
        }
        let start = self.read(blob.range.start..blob.range.start + 4)?;
        let n_chunks =
            Index::n_chunks([start[0], start[1], start[2], start[3]], dtype.layout(), n_words, blob_bytes).ok_or_else(damaged)?;
        let bytes = self.read(blob.range.start..blob.range.start + Index::bytes(n_chunks) as u64)?;
        let index = Index::parse(&bytes, n_words, blob_bytes).ok_or_else(damaged)?;
        Ok(self.indices[slot].get_or_init(|| Arc::new(index)).clone())
    }

    /// The decoder of a chunk, and where the chunk's body lies in the file.
    fn chunk(&self, slot: usize, blob: &Blob, layout: Layout, index: &Index, chunk: usize) -> Result<(Decoder<'_>, Range<u64>)> {
        let (head, body) = &index.chunks[chunk];
        let words = index.words_of(chunk);
        let head = self.read(blob.range.start + head.start..blob.range.start + head.end)?;
        let body = blob.range.start + body.start..blob.range.start + body.end;
        let (words, body_bytes) = (words.start as usize..words.end as usize, (body.end - body.start) as usize);
        let tensors = if blob.codec == Codec::Context {
            self.matrices(slot)
        } else {
            Vec::new()
        };
        let decoder = Decoder::new(self.isa, blob.codec, layout, &self.pools, &tensors, &head, words, body_bytes);
        let decoder = decoder.map_err(|damage| self.damage(slot, blob, layout, index, chunk, damage))?;
        Ok((decoder, body))
    }

    /// An error of that damage, with the block counted through the blob if the heads before it can be read.
    fn damage(&self, slot: usize, blob: &Blob, layout: Layout, index: &Index, chunk: usize, damage: Damage) -> Error {
        let error = match self.header.fingerprint {
            Some(wanted) if damage.is_of_base => match self.base_fingerprint() {
                Ok(found) if found == wanted => Error::base("the words of the base have changed since it was opened"),
                Ok(found) => wrong_base(wanted, found),
                Err(error) => error,
            },
            _ => Error::corrupt(damage.message),
        };
        let Some(block) = damage.block else { return error };
        let before = (0..chunk)
            .map(|chunk| Ok(self.chunk(slot, blob, layout, index, chunk)?.0.n_blocks() as u64))
            .sum::<Result<u64>>();
        error.at_block(before.unwrap_or(0) + block as u64)
    }

    fn read_blob(&self, slot: usize, blob: &Blob, dtype: Dtype, n_words: u64, range: Range<u64>, out: &mut [u8]) -> Result<()> {
        let layout = dtype.layout();
        let width = layout.word_bytes() as u64;
        if blob.codec == Codec::Stored {
            return self.read_stored(blob, n_words * width, range.start * width..range.end * width, out);
        }
        let index = self.index(slot)?;
        for chunk in index.chunks_of(&range) {
            let words = index.words_of(chunk);
            let (first, last) = (range.start.max(words.start), range.end.min(words.end));
            let within = (first - words.start) as usize..(last - words.start) as usize;
            let out = &mut out[((first - range.start) * width) as usize..((last - range.start) * width) as usize];
            let (decoder, body) = self.chunk(slot, blob, layout, &index, chunk)?;
            let parts = decoder.parts(&within, (body.end - body.start) as usize);
            // One read for all parts where they are most of what lies between them.
            let span = parts.first().map_or(0, |part| part.start)..parts.last().map_or(0, |part| part.end);
            let needed: usize = parts.iter().map(|part| part.len()).sum();
            let base = decoder.base_of(&within);
            let base = self.base_words_of(slot, words.start + base.start as u64..words.start + base.end as u64)?;
            let result = if needed * 4 >= span.len() * 3 {
                let bytes = self.read(body.start + span.start as u64..body.start + span.end as u64)?;
                let parts: Vec<&[u8]> = parts
                    .iter()
                    .map(|part| &bytes[part.start - span.start..part.end - span.start])
                    .collect();
                decoder.decode(&parts, &base, &within, out)
            } else {
                let read = |part: &Range<usize>| self.read(body.start + part.start as u64..body.start + part.end as u64);
                let bytes = parts.iter().map(read).collect::<Result<Vec<_>>>()?;
                decoder.decode(&bytes.iter().map(|bytes| &bytes[..]).collect::<Vec<_>>(), &base, &within, out)
            };
            result.map_err(|damage| self.damage(slot, blob, layout, &index, chunk, damage))?;
        }
        Ok(())
    }

    fn read_stored(&self, blob: &Blob, raw_bytes: u64, range: Range<u64>, out: &mut [u8]) -> Result<()> {
        let mut at = range.start / STORED_SPAN_BYTES * STORED_SPAN_BYTES;
        while at < range.end {
            let span = at / STORED_SPAN_BYTES;
            let end = raw_bytes.min(at + STORED_SPAN_BYTES);
            let crc = self.read(blob.range.start + raw_bytes + 4 * span..blob.range.start + raw_bytes + 4 * span + 4)?;
            let (first, last) = (range.start.max(at), range.end.min(end));
            let to = &mut out[(first - range.start) as usize..(last - range.start) as usize];
            let is_intact = if (first, last) == (at, end) {
                self.source.read_at(to, blob.range.start + at)?;
                self.bytes_read.fetch_add(to.len() as u64, Ordering::Relaxed);
                crc32fast::hash(to).to_le_bytes()[..] == crc[..]
            } else {
                let bytes = self.read(blob.range.start + at..blob.range.start + end)?;
                to.copy_from_slice(&bytes[(first - at) as usize..(last - at) as usize]);
                crc32fast::hash(&bytes).to_le_bytes()[..] == crc[..]
            };
            if !is_intact {
                return Err(Error::corrupt("does not match its checksum").at_block(span));
            }
            at = end;
        }
        Ok(())
    }

    /// The words of a pack.
    fn pack(&self, pack: usize) -> Result<Arc<Buffer>> {
        self.kept.get(pack, || {
            let at = self.header.entries.len() + pack;
            let (blob, dtype, n_words) = self.slot(at);
            let mut words = Buffer::new(n_words * dtype.layout().word_bytes() as u64)?;
            self.read_blob(at, blob, dtype, n_words, 0..n_words, &mut words)?;
            Ok(words)
        })
    }

    /// Fills `out` with bytes of a tensor of a published container, from byte `start` on. Such a tensor only decodes as a whole, which is
    /// what its md5 proves.
    fn read_published(&self, tensor: usize, start: usize, out: &mut [u8]) -> Result<()> {
        let entry = &self.header.entries[tensor];
        if out.len() as u64 == entry.raw_bytes {
            return self.decode_published(tensor, out);
        }
        let slot = self.header.packs.len() + self.header.groups.len() + tensor;
        let whole = match self.kept.find(slot) {
            Some(whole) => whole,
            None => {
                let mut whole = Buffer::new(entry.raw_bytes)?;
                self.decode_published(tensor, &mut whole)?;
                let whole = Arc::new(whole);
                self.kept.keep(slot, whole.clone());
                whole
            }
        };
        out.copy_from_slice(&whole[start..start + out.len()]);
        Ok(())
    }

    /// Fills `out` with all bytes of a tensor of a published container, and checks their md5.
    fn decode_published(&self, tensor: usize, out: &mut [u8]) -> Result<()> {
        let (_, entry) = self.master(tensor);
        let Storage::Published(stored) = &entry.storage else {
            unreachable!("containers of the published package have no other blobs")
        };
        // Other tensors keep the threads busy beside small ones.
        let threads = if entry.raw_bytes < SHARED_BYTES {
            Threads::One
        } else {
            Threads::Pool
        };
        let mut wrong = Error::corrupt("its bytes do not match its md5");
        match stored {
            Published::Blob(codec, range) => codec.decode(&self.read(range.clone())?, threads, out)?,
            Published::Delta(range) => {
                let base = self.base_words(entry)?;
                legacy::Codec::Zstd.decode(&self.read(range.clone())?, threads, out)?;
                out.iter_mut().zip(&base[..]).for_each(|(byte, base)| *byte ^= base);
                wrong = Error::base("its bytes do not match its md5: the base is another one, or the file is damaged");
            }
            Published::Dual { fast, residual } => {
                dual::decode(&self.read(fast.clone())?, &self.read(residual.clone())?, threads, out)?;
            }
            Published::Member { group, place } => {
                let words = self.group(*group)?;
                out.copy_from_slice(&words[place * out.len()..][..out.len()]);
            }
        }
        if Md5::of(out) == self.header.entries[tensor].md5 {
            Ok(())
        } else {
            Err(wrong)
        }
    }

    /// Fills `out` with the words that a tensor has in the lower fidelity of a file of two, as the published package made them. None of them is
    /// proven, since no digest of them is stored. A tensor with one fidelity has its own words.
    ///
    /// # Errors
    /// Those of [`Reader::read_words`].
    ///
    /// # Panics
    /// If `out` has not the tensor's length.
    pub fn read_fast_words(&self, tensor: usize, out: &mut [u8]) -> Result<()> {
        let entry = &self.header.entries[tensor];
        let Storage::Published(Published::Dual { fast, .. }) = &entry.storage else {
            return self.read_words(tensor, 0..entry.n_words(), out);
        };
        assert_eq!(out.len() as u64, entry.raw_bytes);
        let decoded = self
            .read(fast.clone())
            .and_then(|fast| dual::decode_fast(&fast, Threads::Pool, out));
        self.placed(tensor, decoded)
    }

    /// The words of the base that those of a tensor of a published delta are differences to.
    fn base_words(&self, entry: &Entry) -> Result<Cow<'_, [u8]>> {
        let base = self.base.as_deref();
        let base = base.ok_or_else(|| {
            let name = self.header.base.as_deref().unwrap_or("a base that the file does not name");
            Error::base(format!("its words are differences to those of {name}, which is not given"))
        })?;
        let tensor = base.find(&entry.name).filter(|&i| base.tensors()[i].raw_bytes == entry.raw_bytes);
        let tensor = tensor.ok_or_else(|| Error::base("the base has no such tensor, so it is another one"))?;
        base.words(tensor, 0..base.tensors()[tensor].n_words())
    }

    /// The words of a group of a published container.
    fn group(&self, group: usize) -> Result<Arc<Buffer>> {
        self.kept.get(self.header.packs.len() + group, || {
            let group = &self.header.groups[group];
            let mut words = Buffer::new(group.member_bytes * group.n_members as u64)?;
            group.coding.decode(&self.read(group.range.clone())?, group.n_members, &mut words)?;
            Ok(words)
        })
    }

    /// The base words of some words of a blob.
    fn base_words_of(&self, slot: usize, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        if range.is_empty() {
            return Ok(Cow::Borrowed(&[]));
        }
        let Some(pack) = slot.checked_sub(self.header.entries.len()) else {
            return self.base_of(&self.header.entries[slot])?.words(range);
        };
        let mut words = Vec::new();
        let mut start = 0;
        for member in self.header.packs[pack].members.iter().map(|&i| &self.header.entries[i]) {
            let end = start + member.n_words();
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                words.extend_from_slice(&self.base_of(member)?.words(from - start..to - start)?);
            }
            start = end;
        }
        Ok(Cow::Owned(words))
    }

    /// The tensors whose words a blob holds, as `context` needs them.
    fn matrices(&self, slot: usize) -> Vec<(Matrix, usize)> {
        let of = |entry: &Entry| (safetensors::matrix(entry.dtype, &entry.shape), entry.n_words() as usize);
        match self.header.entries.get(slot) {
            Some(entry) => vec![of(entry)],
            None => self.header.packs[slot - self.header.entries.len()]
                .members
                .iter()
                .map(|&i| of(&self.header.entries[i]))
                .collect(),
        }
    }
}

fn wrong_base(wanted: Md5, found: Md5) -> Error {
    Error::base(format!(
        "made from a base with fingerprint {wanted}, and this one has the fingerprint {found}"
    ))
}
