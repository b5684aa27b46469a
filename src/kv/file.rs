//! A saved cache: `KVTX`.

use crate::dtype::Dtype;
use crate::error::{Error, Kind, Result};
use crate::rans::bits::{take, take_u8, take_u32};
use crate::sink::Sink;
use crate::source::ReadAt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const MAGIC: &[u8; 4] = b"KVTX";
const VERSION: u16 = 1;
const PREFIX_BYTES: u64 = 16;
const RECORD_BYTES: u64 = 24;
const CRC_BYTES: u64 = 4;
/// Bytes of the JSON header: a few hundred layers take some kilobytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// What the body of a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Body {
    /// Exact words.
    Words = 0,
    /// Packed indices.
    Packed = 2,
    /// Entropy-coded indices.
    Coded = 3,
    /// Bytes with a scale for each token and head.
    Int8 = 5,
}

impl Body {
    fn from_number(number: u8) -> Option<Self> {
        [Body::Words, Body::Packed, Body::Coded, Body::Int8]
            .into_iter()
            .find(|body| *body as u8 == number)
    }

    /// Whether its section names a group of the basis instead of a layer.
    pub fn is_of_group(self) -> bool {
        matches!(self, Body::Packed | Body::Coded)
    }
}

/// Where a body belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What the body is.
    pub body: Body,
    /// Whether it holds values, not keys.
    pub is_value: bool,
    /// Its layer, or its group.
    pub at: u16,
    /// Row of the batch.
    pub row: u32,
    /// First token.
    pub first: u32,
    /// Number of tokens.
    pub n_tokens: u32,
}

/// A layer, as the header tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// K/V heads.
    pub heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Tokens held.
    pub tokens: u32,
}

/// The header of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Header {
    pub basis: String,
    pub plan: String,
    pub lossy: bool,
    pub dtype: String,
    pub batch: u32,
    pub sink: u32,
    pub window: u32,
    pub chunk: u32,
    pub layers: Vec<Layer>,
}

impl Header {
    fn check(&self) -> Result<()> {
        let is_id = |id: &str| id.is_empty() || (id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        if !is_id(&self.basis) || !is_id(&self.plan) {
            return Err(Error::format("the id of the basis or plan is none"));
        }
        if !matches!(Dtype::from_name(&self.dtype), Some(Dtype::BF16 | Dtype::F16 | Dtype::F32)) {
            return Err(Error::new(Kind::Version, format!("a cache of dtype {:?} is not read", self.dtype)));
        }
        if self.layers.len() > u16::MAX as usize {
            return Err(Error::format("there are more layers than can be numbered"));
        }
        Ok(())
    }

    fn to_json(&self) -> Result<Vec<u8>> {
        self.check()?;
        let json = serde_json::to_vec(self).expect("strings and numbers always serialise");
        if json.len() as u64 > MAX_HEADER_BYTES {
            return Err(Error::option("the cache has too many layers"));
        }
        Ok(json)
    }
}

/// Bytes of the file that [`write()`] makes.
///
/// # Errors
/// `Option` for a header that does not fit.
pub fn file_bytes(header: &Header, bodies: &[u64]) -> Result<u64> {
    let start = PREFIX_BYTES + header.to_json()?.len() as u64 + RECORD_BYTES * bodies.len() as u64 + CRC_BYTES;
    Ok(start + bodies.iter().sum::<u64>())
}

/// All bytes before the bodies.
fn start_of(header: &Header, sections: &[(Section, &[u8])]) -> Result<Vec<u8>> {
    let json = header.to_json()?;
    check_cover(header, sections.iter().map(|(section, _)| *section)).map_err(|error| Error::option(error.message))?;
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 2]);
    out.extend((json.len() as u32).to_le_bytes());
    out.extend((sections.len() as u32).to_le_bytes());
    out.extend(json);
    for (section, body) in sections {
        let n_bytes = u32::try_from(body.len()).map_err(|_| Error::option("a section is larger than 4 GiB"))?;
        out.extend([section.body as u8, section.is_value as u8]);
        out.extend(section.at.to_le_bytes());
        for field in [section.row, section.first, section.n_tokens, n_bytes, crc32fast::hash(body)] {
            out.extend(field.to_le_bytes());
        }
    }
    out.extend(crc32fast::hash(&out).to_le_bytes());
    Ok(out)
}

/// Writes a cache to a file, which appears whole or not at all.
///
/// # Errors
/// `Io`; `Option` if the sections do not cover what the header says.
pub fn write(path: &Path, force: bool, header: &Header, sections: &[(Section, &[u8])]) -> Result<u64> {
    let start = start_of(header, sections)?;
    let sink = Sink::create(path, force)?;
    sink.write_at(&start, 0)?;
    let mut at = start.len() as u64;
    for (_, body) in sections {
        sink.write_at(body, at)?;
        at += body.len() as u64;
    }
    sink.finish()?;
    Ok(at)
}

/// The same in memory.
///
/// # Errors
/// `Option` if the sections do not cover what the header says.
pub fn to_bytes(header: &Header, sections: &[(Section, &[u8])]) -> Result<Vec<u8>> {
    let mut out = start_of(header, sections)?;
    sections.iter().for_each(|(_, body)| out.extend_from_slice(body));
    Ok(out)
}

/// An open file.
#[derive(Debug)]
pub struct CacheReader<S> {
    source: S,
    header: Header,
    sections: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    section: Section,
    offset: u64,
    n_bytes: u32,
    crc: u32,
}

impl<S: ReadAt> CacheReader<S> {
    /// Opens a cache: reads and checks its header and records.
    ///
    /// # Errors
    /// `Io`, `Format`, `Version`, `Corrupt`.
    pub fn open(source: S) -> Result<Self> {
        let path = source.path().map(ToOwned::to_owned);
        Self::open_unplaced(source).map_err(|error| match path {
            Some(path) => error.at_path(&path),
            None => error,
        })
    }

    fn open_unplaced(source: S) -> Result<Self> {
        let file_bytes = source.n_bytes();
        let mut prefix = [0; PREFIX_BYTES as usize];
        if file_bytes < PREFIX_BYTES {
            return Err(Error::format("this is not a saved cache: it is too short"));
        }
        source.read_at(&mut prefix, 0)?;
        if prefix[..4] != *MAGIC {
            return Err(Error::format("this is not a saved cache: it does not begin with KVTX"));
        }
        let version = u16::from_le_bytes([prefix[4], prefix[5]]);
        if version != VERSION || prefix[6..8] != [0; 2] {
            let message = format!("version {version} of saved caches is not read by this release, which reads {VERSION}");
            return Err(Error::new(Kind::Version, message));
        }
        let field = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]) as u64;
        let (header_bytes, n_sections) = (field(8), field(12));
        let start_bytes = PREFIX_BYTES + header_bytes + RECORD_BYTES * n_sections + CRC_BYTES;
        if header_bytes > MAX_HEADER_BYTES || start_bytes > file_bytes {
            return Err(Error::format("the file is truncated: it ends before its sections"));
        }
        let mut start = vec![0; start_bytes as usize];
        source.read_at(&mut start, 0)?;
        let content = crate::codec::checked(&start).ok_or_else(|| Error::corrupt("the header does not match its checksum"))?;
        let (json, mut records) = content[PREFIX_BYTES as usize..].split_at(header_bytes as usize);
        let header: Header =
            serde_json::from_slice(json).map_err(|error| Error::format(format!("the header is not what it should be: {error}")))?;
        header.check()?;
        let mut sections = Vec::with_capacity(n_sections as usize);
        let mut offset = start_bytes;
        for _ in 0..n_sections {
            let record = take_record(&mut records, offset).ok_or_else(|| Error::format("a section's record is not what it should be"))?;
            offset += record.n_bytes as u64;
            sections.push(record);
        }
        if offset != file_bytes {
            let what = if offset > file_bytes {
                "truncated"
            } else {
                "longer than its records say"
            };
            return Err(Error::format(format!("the file is {what}: {file_bytes} bytes instead of {offset}")));
        }
        check_cover(&header, sections.iter().map(|record| record.section))?;
        Ok(Self { source, header, sections })
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All sections, in the order of the file, with the bytes of their bodies.
    pub fn sections(&self) -> impl ExactSizeIterator<Item = (Section, u32)> {
        self.sections.iter().map(|record| (record.section, record.n_bytes))
    }

    /// The body of a section, checked.
    ///
    /// # Errors
    /// `Io`; `Corrupt` if it does not match its checksum; `Option` if there is no such section.
    pub fn body(&self, section: usize) -> Result<Vec<u8>> {
        let record = self
            .sections
            .get(section)
            .ok_or_else(|| Error::option(format!("there is no section {section}")))?;
        // The records add up to the file, so the file is at least as long.
        let mut body = vec![0; record.n_bytes as usize];
        self.source.read_at(&mut body, record.offset)?;
        if crc32fast::hash(&body) != record.crc {
            let error = Error::corrupt(format!("section {section} does not match its checksum"));
            return Err(match self.source.path() {
                Some(path) => error.at_path(path),
                None => error,
            });
        }
        Ok(body)
    }
}

fn take_record(records: &mut &[u8], offset: u64) -> Option<Record> {
    let body = Body::from_number(take_u8(records)?)?;
    let is_value = match take_u8(records)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let at = take(records, 2).map(|b| u16::from_le_bytes([b[0], b[1]]))?;
    let mut field = || take_u32(records);
    let section = Section {
        body,
        is_value,
        at,
        row: field()?,
        first: field()?,
        n_tokens: field()?,
    };
    Some(Record {
        section,
        offset,
        n_bytes: field()?,
        crc: field()?,
    })
}

/// Checks that the stretches of every layer, row and kind are disjoint, in order, and within the layer's tokens. What groups cover only the basis
/// knows, so that gaps are for its reader to refuse.
fn check_cover(header: &Header, sections: impl Iterator<Item = Section>) -> Result<()> {
    let most = header.layers.iter().map(|layer| layer.tokens).max().unwrap_or(0);
    let mut ends: BTreeMap<(bool, bool, u16, u32), u32> = BTreeMap::new();
    for section in sections {
        let wrong = |what: &str| Error::format(format!("a section {what}"));
        let tokens = if section.body.is_of_group() {
            most
        } else {
            header
                .layers
                .get(section.at as usize)
                .ok_or_else(|| wrong("is of no layer"))?
                .tokens
        };
        if section.row >= header.batch {
            return Err(wrong("is of no row of the batch"));
        }
        let end = section
            .first
            .checked_add(section.n_tokens)
            .filter(|&end| end <= tokens && section.n_tokens > 0);
        let end = end.ok_or_else(|| wrong("is empty, or lies beyond the tokens"))?;
        let before = ends
            .entry((section.body.is_of_group(), section.is_value, section.at, section.row))
            .or_default();
        if section.first < *before {
            return Err(wrong("overlaps the one before"));
        }
        *before = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            basis: "0123456789abcdef0123456789abcdef".into(),
            plan: String::new(),
            lossy: true,
            dtype: "BF16".into(),
            batch: 2,
            sink: 4,
            window: 128,
            chunk: 256,
            layers: vec![
                Layer {
                    heads: 2,
                    head_dim: 64,
                    tokens: 70_000,
                };
                2
            ],
        }
    }

    fn section(body: Body, at: u16, first: u32, n_tokens: u32) -> Section {
        Section {
            body,
            is_value: false,
            at,
            row: 1,
            first,
            n_tokens,
        }
    }

    fn sample() -> Vec<u8> {
        let sections: [(Section, &[u8]); 3] = [
            (section(Body::Words, 1, 0, 4), b"sinks"),
            (section(Body::Coded, 0, 4, 69_000), b"the middle"),
            (section(Body::Words, 1, 69_004, 996), b""),
        ];
        let bytes = to_bytes(&header(), &sections).unwrap();
        let sizes: Vec<u64> = sections.iter().map(|(_, body)| body.len() as u64).collect();
        assert_eq!(bytes.len() as u64, file_bytes(&header(), &sizes).unwrap());
        bytes
    }

    #[test]
    fn sections_come_back() {
        let bytes = sample();
        let reader = CacheReader::open(&bytes[..]).unwrap();
        assert_eq!(reader.header(), &header());
        assert_eq!(reader.sections().len(), 3);
        assert_eq!(reader.sections().nth(1).unwrap(), (section(Body::Coded, 0, 4, 69_000), 10));
        assert_eq!(reader.body(1).unwrap(), b"the middle");
        assert!(reader.body(3).is_err());
    }

    #[test]
    fn every_truncation_and_flipped_byte_is_an_error() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert!(CacheReader::open(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let is_whole = CacheReader::open(&damaged[..]).is_ok_and(|reader| (0..3).all(|i| reader.body(i).is_ok()));
            assert!(!is_whole, "byte {at}");
        }
    }

    #[test]
    fn sections_that_contradict_the_header_are_refused() {
        let wrong = [
            vec![section(Body::Words, 2, 0, 1)],
            vec![section(Body::Words, 0, 0, 0)],
            vec![section(Body::Words, 0, 69_999, 2)],
            vec![section(Body::Words, 0, u32::MAX, 2)],
            vec![section(Body::Words, 0, 0, 2), section(Body::Int8, 0, 1, 2)],
            vec![Section {
                row: 2,
                ..section(Body::Words, 0, 0, 1)
            }],
        ];
        for sections in wrong {
            let sections: Vec<(Section, &[u8])> = sections.into_iter().map(|section| (section, &b"x"[..])).collect();
            assert!(matches!(to_bytes(&header(), &sections).unwrap_err().kind, Kind::Option));
        }
    }
}
