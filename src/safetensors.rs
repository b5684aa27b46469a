//! Checkpoints in and out: the safetensors file.

use crate::codec::context::Matrix;
use crate::dtype::Dtype;
use crate::error::{Error, Place, Result};
use crate::limits::{MAX_DIMS, MAX_HEADER_BYTES};
use crate::source::Map as FileMap;
use safetensors::{SafeTensorError, SafeTensors};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// The header key that holds the metadata.
pub const METADATA: &str = "__metadata__";

/// What a header says of a tensor.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Described<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [u64],
    pub raw_bytes: u64,
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug)]
pub struct SourceTensor {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its bytes, counted from the end of the header.
    pub range: Range<usize>,
}

impl SourceTensor {
    /// What a header says of it.
    pub fn described(&self) -> Described<'_> {
        Described {
            name: &self.name,
            dtype: self.dtype,
            shape: &self.shape,
            raw_bytes: self.range.len() as u64,
        }
    }
}

/// How the words of a tensor lie, as `context` needs it.
pub fn matrix(dtype: Dtype, shape: &[u64]) -> Matrix {
    let mut words: Vec<usize> = shape.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
    if let (Dtype::C64, Some(last)) = (dtype, words.last_mut()) {
        *last = last.saturating_mul(2);
    }
    Matrix::of(&words)
}

/// Words that share the first index of a tensor of `n_words`; 0 for fewer than two dimensions.
pub fn row_words(shape: &[u64], n_words: usize) -> usize {
    match shape {
        [rows, _, ..] if *rows > 0 && (n_words as u64).is_multiple_of(*rows) => n_words / *rows as usize,
        _ => 0,
    }
}

/// An open checkpoint, tensors in the order of their data.
pub struct Checkpoint<B> {
    bytes: B,
    /// The header, its length field not included.
    header: Range<usize>,
    /// The metadata, keys in their order.
    pub metadata: Option<Map<String, Value>>,
    /// The tensors.
    pub tensors: Vec<SourceTensor>,
}

impl Checkpoint<FileMap> {
    /// Opens a file.
    ///
    /// # Errors
    /// `Io`, or `Source` if it is not a valid safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(FileMap::open(path)?).at_path(path)
    }
}

impl<B: AsRef<[u8]>> Checkpoint<B> {
    /// Parses and validates a file that lies in memory.
    ///
    /// # Errors
    /// `Source` if it is not a valid safetensors file.
    pub fn parse(bytes: B) -> Result<Self> {
        let all = bytes.as_ref();
        if crate::container::is_container(all) {
            return Err(Error::source("this is a .bs file already, not safetensors"));
        }
        let header = header_range(all)?;
        // Before the crate looks at it, whose errors name no tensor and which takes the last of two tensors of one name.
        let (metadata, mut tensors) = parse_header(&all[header.clone()])?;
        SafeTensors::read_metadata(all).map_err(|error| match error {
            SafeTensorError::InvalidOffset(name) => {
                Error::source("its data overlaps another's, or leaves a gap before it").at_tensor(&name)
            }
            SafeTensorError::MetadataIncompleteBuffer => {
                let described = tensors.iter().map(|tensor| tensor.range.end).max().unwrap_or(0);
                let needed = header.end.saturating_add(described);
                let what = if needed > all.len() {
                    "truncated"
                } else {
                    "longer than its header says"
                };
                Error::source(format!("the file is {what}: {} bytes instead of {needed}", all.len()))
            }
            error => Error::source(format!("not a valid safetensors file: {error}")),
        })?;
        tensors.sort_by_key(in_data_order);
        Ok(Self {
            bytes,
            header,
            metadata,
            tensors,
        })
    }

    /// The header, its length field not included.
    pub fn header(&self) -> &[u8] {
        &self.bytes.as_ref()[self.header.clone()]
    }

    /// The bytes of a tensor.
    pub fn bytes_of(&self, tensor: &SourceTensor) -> &[u8] {
        &self.bytes.as_ref()[self.header.end..][tensor.range.clone()]
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.bytes.as_ref().len() as u64
    }
}

/// What tensors are sorted by. One without bytes comes before the one that begins where it does.
fn in_data_order(tensor: &SourceTensor) -> (usize, usize) {
    (tensor.range.start, tensor.range.end)
}

/// Where the header of a file lies that is all here.
fn header_range(all: &[u8]) -> Result<Range<usize>> {
    if all.is_empty() {
        return Err(Error::source("the file is empty"));
    }
    let (length, rest) = all
        .split_first_chunk::<8>()
        .ok_or_else(|| Error::source("not a safetensors file: it is too short"))?;
    let n_bytes = u64::from_le_bytes(*length);
    if n_bytes > MAX_HEADER_BYTES {
        let message = format!("not a safetensors file: a header of {n_bytes} bytes is longer than {MAX_HEADER_BYTES}");
        return Err(Error::source(message));
    }
    if n_bytes > rest.len() as u64 {
        return Err(Error::source("the file is truncated: it ends inside its header"));
    }
    Ok(8..8 + n_bytes as usize)
}

/// The metadata of a header, and its tensors in its order.
type Parsed = (Option<Map<String, Value>>, Vec<SourceTensor>);

/// Members of a JSON object in their order, of which a `Map` would keep only the last of those that share a name.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// Parses a header.
fn parse_header(header: &[u8]) -> Result<Parsed> {
    #[derive(Deserialize)]
    #[serde(expecting = "an object of dtype, shape and data_offsets")]
    struct Info {
        dtype: String,
        shape: Vec<u64>,
        data_offsets: (usize, usize),
    }
    let wrong = |name: &str, message: String| Error::source(message).at_tensor(name);
    let Members(all) = serde_json::from_slice(header)
        .map_err(|error| Error::source(format!("not a safetensors file: its header is not JSON: {error}")))?;
    let mut names = HashSet::with_capacity(all.len());
    for (name, _) in &all {
        if !names.insert(name) {
            return Err(wrong(name, "the name occurs twice".into()));
        }
    }
    let mut metadata = None;
    let mut tensors = Vec::with_capacity(all.len());
    for (name, value) in all {
        if name == METADATA {
            metadata = match value {
                Value::Object(map) if map.values().all(Value::is_string) => Some(map),
                Value::Null => None,
                _ => return Err(Error::source("the metadata is not an object of strings")),
            };
            continue;
        }
        let info: Info = serde_json::from_value(value).map_err(|error| wrong(&name, error.to_string()))?;
        let dtype = Dtype::from_name(&info.dtype).ok_or_else(|| wrong(&name, format!("dtype {:?} is not known", info.dtype)))?;
        if info.shape.len() > MAX_DIMS {
            return Err(wrong(&name, format!("{} dimensions are more than {MAX_DIMS}", info.shape.len())));
        }
        let bytes = dtype
            .bytes_of(&info.shape)
            .ok_or_else(|| wrong(&name, "the shape is that of no tensor".into()))?;
        let (start, end) = info.data_offsets;
        if start > end || bytes != (end - start) as u64 {
            return Err(wrong(&name, "its offsets do not fit its shape".into()));
        }
        tensors.push(SourceTensor {
            name,
            dtype,
            shape: info.shape,
            range: start..end,
        });
    }
    Ok((metadata, tensors))
}

/// The header that safetensors writes for these tensors, in this order.
pub fn build_header<'a>(metadata: Option<&Map<String, Value>>, tensors: impl Iterator<Item = Described<'a>>) -> Vec<u8> {
    let string = |text: &str| serde_json::to_string(text).expect("strings always serialise");
    let mut parts = Vec::new();
    if let Some(metadata) = metadata {
        parts.push(format!(
            "{}:{}",
            string(METADATA),
            serde_json::to_string(metadata).expect("strings always serialise")
        ));
    }
    let mut at = 0;
    for Described {
        name,
        dtype,
        shape,
        raw_bytes,
    } in tensors
    {
        let shape: Vec<String> = shape.iter().map(u64::to_string).collect();
        let end = at + raw_bytes;
        parts.push(format!(
            r#"{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{at},{end}]}}"#,
            string(name),
            dtype.name(),
            shape.join(",")
        ));
        at = end;
    }
    let mut header = format!("{{{}}}", parts.join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

/// Whether tensors that follow each other all lie at multiples of the size of their elements.
pub fn is_aligned<'a>(mut tensors: impl Iterator<Item = Described<'a>>) -> bool {
    let mut at = 0;
    tensors.all(|tensor| {
        let start = at;
        at += tensor.raw_bytes;
        start % (tensor.dtype.bits() as u64).div_ceil(8) == 0
    })
}

/// Checks that a header describes these tensors, which follow each other in this order.
pub fn check_header<'a>(header: &[u8], tensors: impl Iterator<Item = Described<'a>>) -> Result<()> {
    let wrong = || Error::format("the stored source header does not describe these tensors");
    let (_, mut described) = parse_header(header).map_err(|_| wrong())?;
    described.sort_by_key(in_data_order);
    let mut described = described.into_iter();
    let mut at = 0;
    for tensor in tensors {
        let other = described.next().ok_or_else(wrong)?;
        let is_same =
            other.name == tensor.name && other.dtype == tensor.dtype && other.shape == tensor.shape && other.range.start as u64 == at;
        if !is_same {
            return Err(wrong());
        }
        at += tensor.raw_bytes;
    }
    if described.next().is_some() { Err(wrong()) } else { Ok(()) }
}
