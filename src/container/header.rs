//! The header: JSON ⇄ a value that is consistent.

use super::published::{Group, Published};
use super::{DIGEST_BYTES, PREFIX_BYTES, Version};
use crate::codec::{Codec, stored};
use crate::digest::Md5;
use crate::dtype::Dtype;
use crate::error::{Error, Kind, Result};
use crate::limits::{ALIGN, MAX_DIMS, MAX_HEADER_BYTES, MAX_HEADER_JSON_BYTES, MAX_ORDERED_WORDS, MAX_PACK_WORDS, MAX_TABLES_BYTES};
use crate::order::{self, Order};
use crate::safetensors::{self, Described};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::io::Read;
use std::ops::Range;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// Level at which headers are compressed; they are small.
const ZSTD_LEVEL: i32 = 19;

/// The header as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// The float format that holds most bytes.
    pub format: String,
    /// What the writer was asked for.
    pub mode: String,
    /// Where blobs begin.
    pub data_offset: u64,
    /// The safetensors metadata.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
    /// The source header, where it cannot be rebuilt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_header: Option<String>,
    /// Bytes of the tables blob.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tables: u64,
    /// Packs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packs: Vec<PackRecord>,
    /// The base, of a patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseRecord>,
    /// Tensors.
    pub tensors: Vec<TensorRecord>,
}

/// A base as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct BaseRecord {
    /// The digest of the tensors that are used.
    pub fingerprint: String,
}

/// A pack as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PackRecord {
    pub dtype: String,
    pub words: u64,
    pub codec: String,
    pub bytes: u64,
}

/// A tensor as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TensorRecord {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub codec: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied_to: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    pub md5: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Record {
    /// The stored form: JSON, or a zstd frame of it if that is shorter.
    ///
    /// # Errors
    /// `Source` if it is longer than a reader takes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let too_long = || Error::source("its tensors need a longer header than a .bs file can have");
        let json = serde_json::to_vec(self).expect("strings and numbers always serialise");
        if json.len() as u64 > MAX_HEADER_JSON_BYTES {
            return Err(too_long());
        }
        let frame = ::zstd::bulk::compress(&json, ZSTD_LEVEL).expect("compressing into memory cannot fail");
        let stored = if frame.len() < json.len() { frame } else { json };
        if stored.len() as u64 > MAX_HEADER_BYTES {
            return Err(too_long());
        }
        Ok(stored)
    }

    /// Parses the stored form.
    fn from_bytes(stored: &[u8]) -> Result<Record> {
        let mut unpacked = Vec::new();
        let json = if stored.starts_with(&ZSTD_MAGIC) {
            let wrong = |_| Error::format("the header is not a zstd frame");
            let mut frame = ::zstd::stream::read::Decoder::with_buffer(stored).map_err(wrong)?.single_frame();
            (&mut frame)
                .take(MAX_HEADER_JSON_BYTES + 1)
                .read_to_end(&mut unpacked)
                .map_err(wrong)?;
            if unpacked.len() as u64 > MAX_HEADER_JSON_BYTES {
                return Err(Error::format(format!(
                    "the header unpacks to more than {MAX_HEADER_JSON_BYTES} bytes"
                )));
            }
            if !frame.finish().is_empty() {
                return Err(Error::format("bytes follow the header's zstd frame"));
            }
            &unpacked[..]
        } else {
            stored
        };
        serde_json::from_slice(json).map_err(|error| Error::format(format!("the header is not what it should be: {error}")))
    }
}

/// How the words of a tensor are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// There are none.
    Empty,
    /// This word, repeated.
    Constant(Vec<u8>),
    /// Those of another tensor.
    Tied(usize),
    /// Words of a pack, from this one on.
    Packed {
        /// Index of the pack.
        pack: usize,
        /// First word.
        first: u64,
    },
    /// A blob of its own.
    Blob(Blob),
    /// As the published package stored it.
    Published(Published),
}

/// Where a blob lies and how it is coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its codec.
    pub codec: Codec,
    /// Its bytes of the file.
    pub range: Range<u64>,
}

/// A tensor.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its bytes when decoded.
    pub raw_bytes: u64,
    /// The digest of these.
    pub md5: Md5,
    /// How it is stored.
    pub storage: Storage,
    /// The order of its stored words.
    pub order: Order,
    /// The tensor of the base that its words are differences to.
    pub base: Option<String>,
}

impl Entry {
    /// Number of words.
    pub fn n_words(&self) -> u64 {
        self.raw_bytes / self.dtype.layout().word_bytes() as u64
    }

    /// What a safetensors header says of it.
    pub(super) fn described(&self) -> Described<'_> {
        Described {
            name: &self.name,
            dtype: self.dtype,
            shape: &self.shape,
            raw_bytes: self.raw_bytes,
        }
    }
}

/// Small tensors of one dtype, coded together.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Their element type.
    pub dtype: Dtype,
    /// Words of all of them.
    pub n_words: u64,
    /// Where they lie.
    pub blob: Blob,
    /// Indices of the tensors, in order.
    pub members: Vec<usize>,
}

/// The header of a file; one exists only if it is consistent.
#[derive(Debug)]
pub struct Header {
    /// What kind of container it is of.
    pub version: Version,
    /// The float format that holds most bytes.
    pub format: String,
    /// What the writer was asked for.
    pub mode: String,
    /// The safetensors metadata.
    pub metadata: Option<Map<String, Value>>,
    /// What the words of a patch are differences to, as its writer named it.
    pub base: Option<String>,
    /// The header of the source file, its length field not included.
    pub source_header: Vec<u8>,
    /// The fingerprint of the base, of a patch.
    pub fingerprint: Option<Md5>,
    /// Where the tables lie.
    pub tables: Range<u64>,
    /// Packs.
    pub packs: Vec<Pack>,
    /// Tensors that the published package coded together.
    pub groups: Vec<Group>,
    /// Tensors, in the order of their data in the source file.
    pub entries: Vec<Entry>,
    /// Bytes between the header and the first blob and between blobs, which must be zero.
    pub gaps: Vec<Range<u64>>,
}

impl Header {
    /// Parses and validates the stored header of a file of `file_bytes`; of one of this release's versions.
    ///
    /// # Errors
    /// `Format` if it contradicts itself or the file's length, `Version` if it names an unknown codec.
    pub fn parse(version: Version, stored: &[u8], file_bytes: u64) -> Result<Header> {
        let record = Record::from_bytes(stored)?;
        let mut layout = BlobLayout::new(PREFIX_BYTES + stored.len() as u64 + DIGEST_BYTES, record.data_offset)?;
        if record.tables > MAX_TABLES_BYTES {
            return Err(Error::format("the tables are larger than they can be"));
        }
        let tables = layout.place(record.tables)?;
        let mut claimed = vec![0; record.packs.len()];
        let mut packs = record
            .packs
            .iter()
            .map(|pack| parse_pack(pack, &mut layout))
            .collect::<Result<Vec<_>>>()?;
        let mut entries: Vec<Entry> = Vec::with_capacity(record.tensors.len());
        let mut names = HashSet::with_capacity(record.tensors.len());
        for tensor in &record.tensors {
            if tensor.name == safetensors::METADATA || !names.insert(&tensor.name) {
                return Err(Error::format("the name occurs twice, or is none").at_tensor(&tensor.name));
            }
            let entry = parse_tensor(tensor, &entries, &mut packs, &mut claimed, &mut layout).map_err(|e| e.at_tensor(&tensor.name))?;
            entries.push(entry);
        }
        check_total(&entries)?;
        if packs.iter().zip(&claimed).any(|(pack, claimed)| *claimed != pack.n_words) {
            return Err(Error::format("the members of a pack do not add up to it"));
        }
        let fingerprint = parse_base(&record)?;
        let has_base = version == Version::V17;
        if has_base != fingerprint.is_some() || has_base != entries.iter().any(|entry| entry.base.is_some()) {
            return Err(Error::format("a base without tensors, or tensors without a base"));
        }
        if layout.end != file_bytes {
            let what = if layout.end > file_bytes {
                "truncated"
            } else {
                "longer than its header says"
            };
            return Err(Error::format(format!(
                "the file is {what}: {file_bytes} bytes instead of {}",
                layout.end
            )));
        }
        let metadata = record.metadata;
        check_metadata(metadata.as_ref())?;
        let source_header = match record.source_header {
            None => safetensors::build_header(metadata.as_ref(), entries.iter().map(Entry::described)),
            Some(text) => {
                safetensors::check_header(text.as_bytes(), entries.iter().map(Entry::described))?;
                text.into_bytes()
            }
        };
        let (format, mode, gaps) = (record.format, record.mode, layout.gaps);
        Ok(Header {
            version,
            format,
            mode,
            metadata,
            base: None,
            source_header,
            fingerprint,
            tables,
            packs,
            groups: Vec::new(),
            entries,
            gaps,
        })
    }

    /// The codec that a tensor's record names.
    pub fn codec_name(&self, tensor: usize) -> &'static str {
        match &self.entries[tensor].storage {
            Storage::Empty => Codec::Empty.name(),
            Storage::Constant(_) => Codec::Constant.name(),
            Storage::Tied(_) => Codec::Tied.name(),
            Storage::Packed { .. } => Codec::Packed.name(),
            Storage::Blob(blob) => blob.codec.name(),
            Storage::Published(stored) => stored.codec_name(&self.groups),
        }
    }

    /// The pack that a tensor is in.
    pub fn pack_of(&self, tensor: usize) -> Option<&Pack> {
        match self.entries[tensor].storage {
            Storage::Packed { pack, .. } => Some(&self.packs[pack]),
            _ => None,
        }
    }

    /// Bytes of the file that a tensor takes: of its blobs, or its share of its pack.
    pub fn compressed_bytes(&self, tensor: usize) -> u64 {
        let entry = &self.entries[tensor];
        match &entry.storage {
            Storage::Empty | Storage::Constant(_) | Storage::Tied(_) => 0,
            Storage::Packed { pack, .. } => {
                let pack = &self.packs[*pack];
                let bytes = pack.blob.range.end - pack.blob.range.start;
                (bytes as u128 * entry.n_words() as u128 / pack.n_words.max(1) as u128) as u64
            }
            Storage::Blob(blob) => blob.range.end - blob.range.start,
            Storage::Published(stored) => stored.bytes(&self.groups),
        }
    }

    /// Whether some tensor is a difference to one of a base.
    pub fn needs_base(&self) -> bool {
        let is_delta = |entry: &Entry| matches!(entry.storage, Storage::Published(Published::Delta(_)));
        self.fingerprint.is_some() || self.entries.iter().any(is_delta)
    }

    /// Bytes of the source file.
    pub fn source_bytes(&self) -> u64 {
        8 + self.source_header.len() as u64 + self.raw_bytes()
    }

    /// Bytes of all tensors.
    pub fn raw_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.raw_bytes).sum()
    }
}

/// Hands out the places of blobs.
struct BlobLayout {
    end: u64,
    gaps: Vec<Range<u64>>,
}

impl BlobLayout {
    fn new(header_end: u64, data_offset: u64) -> Result<Self> {
        if !data_offset.is_multiple_of(ALIGN) || data_offset < header_end {
            return Err(Error::format("the blobs begin inside the header, or out of line"));
        }
        Ok(Self {
            end: data_offset,
            gaps: std::iter::once(header_end..data_offset).collect(),
        })
    }

    fn place(&mut self, bytes: u64) -> Result<Range<u64>> {
        if bytes == 0 {
            return Ok(self.end..self.end);
        }
        let start = self.end.checked_next_multiple_of(ALIGN);
        let range = start.and_then(|start| Some(start..start.checked_add(bytes)?));
        let range = range.ok_or_else(|| Error::format("the blobs are longer than any file"))?;
        self.gaps.push(self.end..range.start);
        self.end = range.end;
        Ok(range)
    }
}

/// Refuses tensors that together are larger than any file.
pub(super) fn check_total(entries: &[Entry]) -> Result<()> {
    let total = entries.iter().try_fold(0u64, |sum, entry| sum.checked_add(entry.raw_bytes));
    if total.is_none_or(|total| total > i64::MAX as u64) {
        return Err(Error::format("the tensors are larger than any file"));
    }
    Ok(())
}

/// Refuses metadata that no safetensors file can have.
pub(super) fn check_metadata(metadata: Option<&Map<String, Value>>) -> Result<()> {
    if metadata.into_iter().flatten().any(|(_, value)| !value.is_string()) {
        return Err(Error::format("a value of the metadata is not a string"));
    }
    Ok(())
}

/// The bytes of a tensor of that shape.
pub(super) fn raw_bytes(dtype: Dtype, shape: &[u64]) -> Result<u64> {
    if shape.len() > MAX_DIMS {
        return Err(Error::format(format!("{} dimensions are more than {MAX_DIMS}", shape.len())));
    }
    dtype.bytes_of(shape).ok_or_else(|| Error::format("the shape is that of no tensor"))
}

/// The digest that a record gives.
pub(super) fn md5(text: &str) -> Result<Md5> {
    Md5::from_hex(text).ok_or_else(|| Error::format("the md5 is not one"))
}

fn codec(name: &str) -> Result<Codec> {
    Codec::from_name(name).ok_or_else(|| Error::new(Kind::Version, format!("codec {name:?} is not known to this release")))
}

fn dtype(name: &str) -> Result<Dtype> {
    Dtype::from_name(name).ok_or_else(|| Error::new(Kind::Version, format!("dtype {name:?} is not known to this release")))
}

fn parse_base(record: &Record) -> Result<Option<Md5>> {
    let wrong = || Error::format("the fingerprint of the base is not one");
    let base = record.base.as_ref();
    base.map(|base| Md5::from_hex(&base.fingerprint).ok_or_else(wrong)).transpose()
}

fn parse_pack(record: &PackRecord, layout: &mut BlobLayout) -> Result<Pack> {
    let codec = codec(&record.codec)?;
    let dtype = dtype(&record.dtype)?;
    if !codec.has_blob() || record.words > MAX_PACK_WORDS {
        return Err(Error::format("a pack is too large, or has a codec without a blob"));
    }
    check_stored(codec, record.bytes, record.words * dtype.layout().word_bytes() as u64)?;
    Ok(Pack {
        dtype,
        n_words: record.words,
        blob: Blob {
            codec,
            range: layout.place(record.bytes)?,
        },
        members: Vec::new(),
    })
}

fn check_stored(codec: Codec, bytes: u64, raw_bytes: u64) -> Result<()> {
    if codec == Codec::Stored && stored::blob_bytes(raw_bytes) != Some(bytes) {
        return Err(Error::format("the length of stored bytes does not fit the shape"));
    }
    Ok(())
}

fn parse_tensor(
    record: &TensorRecord,
    before: &[Entry],
    packs: &mut [Pack],
    claimed: &mut [u64],
    layout: &mut BlobLayout,
) -> Result<Entry> {
    let codec = codec(&record.codec)?;
    let dtype = dtype(&record.dtype)?;
    let raw_bytes = raw_bytes(dtype, &record.shape)?;
    let md5 = md5(&record.md5)?;
    let wrong = |what: &str| Error::format(format!("a {codec} tensor {what}", codec = codec.name()));
    if record.bytes > 0 && !codec.has_blob() {
        return Err(wrong("has a blob"));
    }
    let n_words = raw_bytes / dtype.layout().word_bytes() as u64;
    let storage = match codec {
        Codec::Empty if raw_bytes == 0 => Storage::Empty,
        Codec::Empty => return Err(wrong("has words")),
        Codec::Constant => {
            let word = record
                .value
                .as_deref()
                .and_then(parse_hex)
                .filter(|word| word.len() == dtype.layout().word_bytes());
            Storage::Constant(word.ok_or_else(|| wrong("needs a value of one word"))?)
        }
        Codec::Tied => {
            let master = record.tied_to.and_then(|i| Some((i, before.get(i)?)));
            let is_same =
                |master: &Entry| master.dtype == dtype && master.raw_bytes == raw_bytes && !matches!(master.storage, Storage::Tied(_));
            let master = master
                .filter(|(_, master)| is_same(master))
                .ok_or_else(|| wrong("needs an earlier one of its kind"))?;
            Storage::Tied(master.0)
        }
        Codec::Packed => {
            let pack = record.pack.filter(|&i| packs.get(i).is_some_and(|pack| pack.dtype == dtype));
            let pack = pack.ok_or_else(|| wrong("needs a pack of its dtype"))?;
            let first = claimed[pack];
            claimed[pack] = first.saturating_add(n_words);
            if claimed[pack] > packs[pack].n_words {
                return Err(wrong("lies beyond the end of its pack"));
            }
            packs[pack].members.push(before.len());
            Storage::Packed { pack, first }
        }
        _ => {
            check_stored(codec, record.bytes, raw_bytes)?;
            Storage::Blob(Blob {
                codec,
                range: layout.place(record.bytes)?,
            })
        }
    };
    let stored_as = match &storage {
        Storage::Packed { pack, .. } => packs[*pack].blob.codec,
        _ => codec,
    };
    if record.base.is_some() != (stored_as == Codec::Delta) {
        return Err(wrong("has a base that it does not need, or needs one"));
    }
    let order = match record.order.as_deref() {
        None => Order::Natural,
        Some(name) => {
            let has_words = matches!(storage, Storage::Blob(_) | Storage::Packed { .. }) && record.base.is_none();
            let sizes =
                order::sizes(safetensors::matrix(dtype, &record.shape), n_words).filter(|_| has_words && n_words <= MAX_ORDERED_WORDS);
            sizes
                .and_then(|_| Order::from_name(name))
                .ok_or_else(|| wrong("has an order that it cannot have"))?
        }
    };
    Ok(Entry {
        name: record.name.clone(),
        dtype,
        shape: record.shape.clone(),
        raw_bytes,
        md5,
        storage,
        order,
        base: record.base.clone(),
    })
}

pub(crate) fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| (*byte as char).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let digits = text.as_bytes().iter().map(digit).collect::<Option<Vec<u32>>>()?;
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

/// Bytes as lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_no_reader_takes_is_not_written() {
        let record = Record {
            format: "none".into(),
            mode: "balanced".into(),
            data_offset: 0,
            metadata: None,
            source_header: Some(" ".repeat(MAX_HEADER_JSON_BYTES as usize)),
            tables: 0,
            packs: Vec::new(),
            base: None,
            tensors: Vec::new(),
        };
        assert!(matches!(record.to_bytes().unwrap_err().kind, Kind::Source));
    }
}
