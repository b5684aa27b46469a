//! The headers of the published package's containers: `docs/format/published.md`.

mod duplicates;

use super::header::{Entry, Header, Storage, check_metadata, check_total, md5, raw_bytes};
use super::{PREFIX_BYTES, Version};
use crate::codec::legacy::group::Coding;
use crate::codec::legacy::{Codec, dual};
use crate::digest::Md5;
use crate::dtype::Dtype;
use crate::error::{Error, Kind, Place, Result};
use crate::order::Order;
use crate::safetensors::{METADATA, build_header, check_header, is_aligned};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

/// How a tensor is stored that is neither empty nor tied to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// A blob of its own.
    Blob(Codec, Range<u64>),
    /// Differences to the tensor of its name in a base model.
    Delta(Range<u64>),
    /// With others, in one blob.
    Member {
        /// Index of the group.
        group: usize,
        /// Which of its members.
        place: usize,
    },
    /// Few levels, and what brings the rest back.
    Dual {
        /// The levels.
        fast: Range<u64>,
        /// The rest.
        residual: Range<u64>,
    },
}

const TIED: &str = "tied_ref";
const DELTA: &str = "zstd_xor_delta";
const GROUP: &str = "group_stream_v1";
const MEMBER: &str = "group_member";
const SPECIAL: &str = "special";

impl Published {
    /// The codec that the header names.
    pub fn codec_name(&self, groups: &[Group]) -> &'static str {
        match self {
            Published::Blob(codec, _) => codec.name(),
            Published::Delta(_) => DELTA,
            Published::Member { group, place } if groups[*group].master == *place => GROUP,
            Published::Member { .. } => MEMBER,
            Published::Dual { .. } => dual::RESIDUAL,
        }
    }

    /// Where the blobs lie that its words are decoded from.
    pub fn ranges(&self, groups: &[Group]) -> Vec<Range<u64>> {
        match self {
            Published::Blob(_, range) | Published::Delta(range) => vec![range.clone()],
            Published::Member { group, .. } => vec![groups[*group].range.clone()],
            Published::Dual { fast, residual } => vec![fast.clone(), residual.clone()],
        }
    }

    /// Bytes of the file; those of a group are counted with the member that the blob belongs to.
    pub fn bytes(&self, groups: &[Group]) -> u64 {
        match self {
            Published::Member { group, place } if groups[*group].master != *place => 0,
            _ => self.ranges(groups).iter().map(|range| range.end - range.start).sum(),
        }
    }
}

/// Tensors that are coded together.
#[derive(Clone, Debug)]
pub struct Group {
    /// How.
    pub coding: Coding,
    /// Where their blob lies.
    pub range: Range<u64>,
    /// How many they are.
    pub n_members: usize,
    /// Which of them the blob belongs to.
    pub master: usize,
    /// Bytes of each.
    pub member_bytes: u64,
}

/// The header as JSON. Keys that only inform are left out.
#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    base_model: Option<String>,
    #[serde(default)]
    safetensors_metadata: Option<Map<String, Value>>,
    /// Of files that this package wrote for the published one.
    #[serde(default)]
    source_header: Option<String>,
    tensors: Vec<TensorRecord>,
}

#[derive(Deserialize)]
struct TensorRecord {
    name: String,
    shape: Vec<u64>,
    dtype: String,
    md5: String,
    codec: String,
    offset: u64,
    compressed_bytes: u64,
    #[serde(default)]
    extra: Option<Extra>,
}

/// What codecs add to a tensor's record.
#[derive(Default, Deserialize)]
struct Extra {
    #[serde(default)]
    tied_to: Option<String>,
    #[serde(default)]
    special_kind: Option<String>,
    #[serde(default)]
    group_kind: Option<String>,
    #[serde(default)]
    members: Option<Vec<String>>,
    #[serde(default)]
    member_fmt: Option<String>,
    #[serde(default)]
    inner_codec: Option<String>,
    #[serde(default)]
    chain_parts: Option<Vec<(String, IgnoredAny, u64)>>,
    #[serde(default)]
    group_master: Option<String>,
}

/// The header of a file of two fidelities as JSON.
#[derive(Deserialize)]
struct DualRecord {
    tensors: Vec<DualTensorRecord>,
}

#[derive(Deserialize)]
struct DualTensorRecord {
    name: String,
    shape: Vec<u64>,
    dtype: String,
    md5: String,
    members: Members,
}

#[derive(Deserialize)]
struct Members {
    #[serde(default)]
    fast: Option<MemberRecord>,
    #[serde(default)]
    residual: Option<MemberRecord>,
    #[serde(default)]
    shared: Option<MemberRecord>,
}

#[derive(Deserialize)]
struct MemberRecord {
    offset: u64,
    bytes: u64,
    codec: String,
    #[serde(default)]
    extra: Option<Extra>,
}

/// Parses and validates the header of a file of `file_bytes`. `index` is that of its directory, if it has one: tensors of
/// the model may be told there alone.
///
/// # Errors
/// `Format` if it contradicts itself or the file's length, `Version` if it names what this release does not know.
pub fn parse(version: Version, stored: &[u8], file_bytes: u64, index: Option<&[u8]>) -> Result<Header> {
    let data = PREFIX_BYTES + stored.len() as u64..file_bytes;
    let mut parsed = if version.is_published_dual() {
        parse_dual(json(stored)?, &data)?
    } else {
        parse_tensors(json(stored)?, &data)?
    };
    let n_stored = parsed.entries.len();
    if let Some(index) = index {
        duplicates::add(index, &mut parsed.entries)?;
    }
    check_total(&parsed.entries)?;
    check_metadata(parsed.metadata.as_ref())?;
    let described = parsed.source_header.filter(|_| n_stored == parsed.entries.len());
    let source_header = match described {
        None => {
            align(&mut parsed.entries);
            build_header(parsed.metadata.as_ref(), parsed.entries.iter().map(Entry::described))
        }
        Some(text) => {
            check_header(text.as_bytes(), parsed.entries.iter().map(Entry::described))?;
            text.into_bytes()
        }
    };
    Ok(Header {
        version,
        source_header,
        format: parsed.format,
        mode: parsed.mode,
        metadata: parsed.metadata,
        base: parsed.base,
        fingerprint: None,
        tables: 0..0,
        packs: Vec::new(),
        groups: parsed.groups,
        entries: parsed.entries,
        gaps: Vec::new(),
    })
}

/// What both kinds of headers say.
struct Parsed {
    format: String,
    mode: String,
    base: Option<String>,
    metadata: Option<Map<String, Value>>,
    source_header: Option<String>,
    groups: Vec<Group>,
    entries: Vec<Entry>,
}

fn json<'a, T: Deserialize<'a>>(stored: &'a [u8]) -> Result<T> {
    serde_json::from_slice(stored).map_err(|error| Error::format(format!("the header is not what it should be: {error}")))
}

fn parse_tensors(record: Record, data: &Range<u64>) -> Result<Parsed> {
    let by_name = index(record.tensors.iter().map(|tensor| &tensor.name))?;
    let mut groups = Groups {
        records: &record.tensors,
        by_name: &by_name,
        groups: Vec::new(),
        places: HashMap::new(),
    };
    for (i, tensor) in record.tensors.iter().enumerate() {
        if tensor.codec == GROUP {
            groups.add(i, data).at_tensor(&tensor.name)?;
        }
    }
    let entries = record
        .tensors
        .iter()
        .enumerate()
        .map(|(i, tensor)| parse_tensor(i, tensor, &groups, data).at_tensor(&tensor.name))
        .collect::<Result<Vec<Entry>>>()?;
    check_ties(&entries)?;
    Ok(Parsed {
        format: record.format.unwrap_or_else(|| "none".into()),
        mode: record.mode.unwrap_or_else(|| "balanced".into()),
        base: record.base_model,
        metadata: record.safetensors_metadata,
        source_header: record.source_header,
        groups: groups.groups,
        entries,
    })
}

/// The index of each name.
fn index<'a>(names: impl Iterator<Item = &'a String>) -> Result<HashMap<&'a str, usize>> {
    let mut by_name = HashMap::new();
    for (i, name) in names.enumerate() {
        if name == METADATA || by_name.insert(name.as_str(), i).is_some() {
            return Err(Error::format("the name occurs twice, or is none").at_tensor(name));
        }
    }
    Ok(by_name)
}

/// The dtype of a name that torch or safetensors gives it, and the shape as safetensors has it.
fn dtype_and_shape(name: &str, mut shape: Vec<u64>) -> Result<(Dtype, Vec<u64>)> {
    let dtype = Dtype::from_name(name).or_else(|| Dtype::from_torch_name(name));
    let dtype = dtype.ok_or_else(|| Error::new(Kind::Version, format!("dtype {name:?} is not known to this release")))?;
    if let (Dtype::F4, Some(last)) = (dtype, shape.last_mut()) {
        // torch has two of them in each of its elements.
        *last = last.checked_mul(2).ok_or_else(|| Error::format("the shape is that of no tensor"))?;
    }
    Ok((dtype, shape))
}

/// The bytes of a blob in the file.
fn blob(data: &Range<u64>, offset: u64, bytes: u64) -> Result<Range<u64>> {
    let start = data.start.checked_add(offset);
    let range = start.and_then(|start| Some(start..start.checked_add(bytes)?));
    range
        .filter(|range| range.end <= data.end)
        .ok_or_else(|| Error::format("the file is truncated: the tensor's blob ends behind it"))
}

fn codec(name: &str, extra: Option<&Extra>) -> Result<Codec> {
    let kind = extra.and_then(|extra| extra.special_kind.as_deref()).unwrap_or_default();
    let name = if name == SPECIAL { kind } else { name };
    Codec::from_name(name).ok_or_else(|| Error::new(Kind::Version, format!("codec {name:?} is not known to this release")))
}

/// A blob that can be one of so many bytes when decoded.
fn stored_blob(codec: Codec, raw_bytes: u64, range: Range<u64>) -> Result<Storage> {
    if !codec.fits(raw_bytes, range.end - range.start) {
        return Err(Error::format(format!(
            "a {} blob of its length does not fit the shape",
            codec.name()
        )));
    }
    Ok(Storage::Published(Published::Blob(codec, range)))
}

fn entry(name: String, dtype: Dtype, shape: Vec<u64>, digest: &str, storage: impl FnOnce(u64) -> Result<Storage>) -> Result<Entry> {
    let raw_bytes = raw_bytes(dtype, &shape)?;
    let md5 = md5(digest)?;
    let storage = if raw_bytes == 0 {
        if md5 != Md5::of(&[]) {
            return Err(Error::format("the md5 is not that of no bytes"));
        }
        Storage::Empty
    } else {
        storage(raw_bytes)?
    };
    Ok(Entry {
        name,
        dtype,
        shape,
        raw_bytes,
        md5,
        storage,
        order: Order::Natural,
        base: None,
    })
}

fn parse_tensor(i: usize, record: &TensorRecord, groups: &Groups<'_>, data: &Range<u64>) -> Result<Entry> {
    let (dtype, shape) = dtype_and_shape(&record.dtype, record.shape.clone())?;
    entry(record.name.clone(), dtype, shape, &record.md5, |raw_bytes| {
        let place = || blob(data, record.offset, record.compressed_bytes);
        match record.codec.as_str() {
            TIED => {
                let master = record.extra.as_ref().and_then(|extra| extra.tied_to.as_deref());
                let master = master.and_then(|name| groups.by_name.get(name));
                Ok(Storage::Tied(
                    *master.ok_or_else(|| Error::format("it is tied to a tensor that is not in the file"))?,
                ))
            }
            DELTA => Ok(Storage::Published(Published::Delta(place()?))),
            GROUP | MEMBER => {
                let (group, place) = *groups.places.get(&i).ok_or_else(|| Error::format("it is in no group of tensors"))?;
                if groups.groups[group].member_bytes != raw_bytes {
                    return Err(Error::format("it is not as large as the others of its group"));
                }
                Ok(Storage::Published(Published::Member { group, place }))
            }
            name => stored_blob(codec(name, record.extra.as_ref())?, raw_bytes, place()?),
        }
    })
}

/// Groups as they are found.
struct Groups<'a> {
    records: &'a [TensorRecord],
    by_name: &'a HashMap<&'a str, usize>,
    groups: Vec<Group>,
    /// The group of each member, and its place there.
    places: HashMap<usize, (usize, usize)>,
}

impl Groups<'_> {
    /// Adds the group that tensor `master` stands for.
    fn add(&mut self, master: usize, data: &Range<u64>) -> Result<()> {
        let wrong = |what: &str| Error::format(format!("its group {what}"));
        let record = &self.records[master];
        let extra = record.extra.as_ref().ok_or_else(|| wrong("is not described"))?;
        let members = extra.members.as_deref().unwrap_or_default();
        let (dtype, shape) = dtype_and_shape(&record.dtype, record.shape.clone())?;
        let member_bytes = raw_bytes(dtype, &shape)?;
        let width = match extra.member_fmt.as_deref() {
            Some("bf16" | "fp16") => 2,
            Some("fp32") => 4,
            _ => return Err(wrong("is of a format that this release does not know")),
        };
        let coding = match (extra.group_kind.as_deref(), &extra.inner_codec, &extra.chain_parts) {
            (Some("stack"), Some(inner), _) => Coding::Stack(codec(inner, None)?),
            (Some("chain"), _, Some(parts)) => {
                let part = |(name, _, bytes): &(String, IgnoredAny, u64)| Ok((codec(name, None)?, *bytes));
                Coding::Chain {
                    parts: parts.iter().map(part).collect::<Result<_>>()?,
                    width,
                }
            }
            _ => return Err(wrong("is of a kind that this release does not know")),
        };
        let range = blob(data, record.offset, record.compressed_bytes)?;
        if !coding.fits(members.len(), member_bytes, range.end - range.start) {
            return Err(wrong("does not fit its blob"));
        }
        if !members.contains(&record.name) {
            return Err(wrong("does not name it"));
        }
        let group = self.groups.len();
        for (place, name) in members.iter().enumerate() {
            let is_of_it = |&i: &usize| {
                let of = self.records[i].extra.as_ref().and_then(|extra| extra.group_master.as_deref());
                i == master || self.records[i].codec == MEMBER && of == Some(&*record.name)
            };
            let member = self.by_name.get(name.as_str()).copied().filter(is_of_it);
            let member = member.ok_or_else(|| wrong(&format!("names {name:?}, which is not of it")))?;
            if self.places.insert(member, (group, place)).is_some() {
                return Err(wrong(&format!("names {name:?} twice")));
            }
        }
        self.groups.push(Group {
            coding,
            range,
            n_members: members.len(),
            master: members.iter().position(|name| *name == record.name).unwrap_or(0),
            member_bytes,
        });
        Ok(())
    }
}

fn check_ties(entries: &[Entry]) -> Result<()> {
    for entry in entries {
        let Storage::Tied(master) = entry.storage else { continue };
        let master = &entries[master];
        if master.raw_bytes != entry.raw_bytes || !matches!(master.storage, Storage::Published(_)) {
            return Err(Error::format("it is tied to a tensor that cannot have the same bytes").at_tensor(&entry.name));
        }
    }
    Ok(())
}

fn parse_dual(record: DualRecord, data: &Range<u64>) -> Result<Parsed> {
    index(record.tensors.iter().map(|tensor| &tensor.name))?;
    let parse = |tensor: DualTensorRecord| {
        let name = tensor.name.clone();
        let parsed = || {
            let (dtype, shape) = dtype_and_shape(&tensor.dtype, tensor.shape)?;
            let place = |member: &MemberRecord| blob(data, member.offset, member.bytes);
            entry(tensor.name, dtype, shape, &tensor.md5, |raw_bytes| match &tensor.members {
                Members { shared: Some(shared), .. } => {
                    stored_blob(codec(&shared.codec, shared.extra.as_ref())?, raw_bytes, place(shared)?)
                }
                Members {
                    fast: Some(fast),
                    residual: Some(residual),
                    ..
                } => {
                    if fast.codec != dual::FAST || residual.codec != dual::RESIDUAL {
                        return Err(Error::new(Kind::Version, "its codecs are not known to this release"));
                    }
                    if dtype != Dtype::BF16 {
                        return Err(Error::format("only BF16 has two fidelities"));
                    }
                    Ok(Storage::Published(Published::Dual {
                        fast: place(fast)?,
                        residual: place(residual)?,
                    }))
                }
                _ => Err(Error::format("it has neither its bytes nor two fidelities of them")),
            })
        };
        parsed().at_tensor(&name)
    };
    Ok(Parsed {
        format: "bf16".into(),
        mode: "dual".into(),
        base: None,
        metadata: None,
        source_header: None,
        groups: Vec::new(),
        entries: record.tensors.into_iter().map(parse).collect::<Result<_>>()?,
    })
}

/// Sorts tensors as safetensors does when it writes a file, wide elements first, unless all lie at multiples of their size anyway: frameworks
/// do not read others. The order of the source file is not stored.
fn align(entries: &mut Vec<Entry>) {
    if is_aligned(entries.iter().map(Entry::described)) {
        return;
    }
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by(|&a, &b| (Reverse(entries[a].dtype), &entries[a].name).cmp(&(Reverse(entries[b].dtype), &entries[b].name)));
    let mut places = vec![0; order.len()];
    for (new, &old) in order.iter().enumerate() {
        places[old] = new;
    }
    let mut sorted: Vec<(usize, Entry)> = places.iter().copied().zip(std::mem::take(entries)).collect();
    sorted.sort_by_key(|(new, _)| *new);
    entries.extend(sorted.into_iter().map(|(_, mut entry)| {
        if let Storage::Tied(master) = &mut entry.storage {
            *master = places[*master];
        }
        entry
    }));
}
