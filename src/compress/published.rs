//! A checkpoint to a file of container version 1, which the published package reads: `docs/format/published.md`, "Writing".

use super::{BATCH_BYTES, Model};
use crate::codec::legacy::encode::{Coded, Form, dtype_name, encode as encode_tensor};
use crate::container::writer::Body;
use crate::container::{MAGIC, PREFIX_BYTES};
use crate::digest::Md5;
use crate::error::{Error, Result};
use crate::limits::MAX_HEADER_BYTES;
use crate::options::Mode;
use crate::pool::Ticker;
use crate::safetensors::{SourceTensor, build_header, is_aligned};
use crate::survey::masters;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The container's version.
const VERSION: u16 = 1;
/// Bytes from which an equal tensor is stored as a reference.
const LEAST_TIED_BYTES: usize = 1024;
/// What the names of a diffusion model's tensors hold, one among the first of them.
const DIFFUSION: [&str; 8] = [
    "unet",
    "vae",
    "controlnet",
    "double_block",
    "transformer_block",
    "x_embedder",
    "joint_blocks",
    "time_embed",
];
/// Names that are looked at for that.
const NAMES_LOOKED_AT: usize = 200;

/// The header, its keys in the order of the published package's.
#[derive(Debug, Serialize)]
pub struct Record {
    format: &'static str,
    mode: &'static str,
    model_type: &'static str,
    base_model: Option<String>,
    tensor_count: usize,
    tensors: Vec<TensorRecord>,
    safetensors_metadata: Option<Map<String, Value>>,
    codec_stats: BTreeMap<&'static str, usize>,
    /// The source's header, where entries and metadata do not tell it. Published readers leave it out of account.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_header: Option<String>,
}

#[derive(Debug, Serialize)]
struct TensorRecord {
    name: String,
    shape: Vec<u64>,
    dtype: &'static str,
    codec: &'static str,
    special: Option<&'static str>,
    compressed_bytes: u64,
    offset: u64,
    md5: String,
    extra: Option<Value>,
}

impl Record {
    /// A record at least as long as that of any file made of the model.
    ///
    /// # Errors
    /// `Option` for a tensor that no published reader gives back.
    pub fn longest(model: &Model<'_>, mode: Mode) -> Result<Self> {
        let mut record = Self::begun(model, mode)?;
        let names = model.tensors.iter().map(|(tensor, _)| &tensor.name);
        let name = names.max_by_key(|name| json!(name).to_string().len());
        for tensor in &mut record.tensors {
            (tensor.codec, tensor.special) = ("bf16_se_ac", Some("lowcard"));
            (tensor.compressed_bytes, tensor.offset) = (u64::MAX, u64::MAX);
            // More than any tensor has.
            tensor.extra =
                Some(json!({ "special_kind": "lowcard", "n_unique": 16, "item_bytes": 4, "n_bytes": u64::MAX, "tied_to": name }));
        }
        let codecs = [
            "bf16_se_ac",
            "fp16_se_ac",
            "fp32_se_ac",
            "fp8_cat_ac",
            "zstd",
            "special",
            "tied_ref",
        ];
        record.codec_stats = codecs.into_iter().map(|codec| (codec, usize::MAX)).collect();
        Ok(record)
    }

    /// The record without what only encoding can tell.
    fn begun(model: &Model<'_>, mode: Mode) -> Result<Self> {
        let described = || model.tensors.iter().map(|(tensor, _)| tensor.described());
        let is_told = build_header(model.metadata.as_ref(), described()) == model.header && is_aligned(described());
        let tensors: Vec<TensorRecord> = model
            .tensors
            .iter()
            .map(|(tensor, _)| TensorRecord::begun(tensor))
            .collect::<Result<_>>()?;
        Ok(Self {
            format: format(model),
            mode: mode.name(),
            model_type: model_type(model),
            base_model: None,
            tensor_count: tensors.len(),
            tensors,
            safetensors_metadata: model.metadata.clone(),
            codec_stats: BTreeMap::new(),
            // Headers are UTF-8: they were parsed as JSON.
            source_header: (!is_told).then(|| String::from_utf8_lossy(&model.header).into_owned()),
        })
    }

    /// The bytes in front of the blobs. With a `data_offset` they are that many: blanks may follow a JSON object.
    ///
    /// # Errors
    /// `Source` if the header is longer than this package's reader takes.
    pub fn front(&self, data_offset: Option<u64>) -> Result<Vec<u8>> {
        let mut json = self.to_json();
        if let Some(data_offset) = data_offset {
            let n_bytes = (data_offset - PREFIX_BYTES) as usize;
            assert!(json.len() <= n_bytes, "room was made for the longest header");
            json.resize(n_bytes, b' ');
        }
        if json.len() as u64 > MAX_HEADER_BYTES {
            return Err(Error::source("its tensors need a longer header than a .bs file can have"));
        }
        let mut front = MAGIC.to_vec();
        front.extend(VERSION.to_le_bytes());
        front.extend((json.len() as u32).to_le_bytes());
        front.extend(json);
        Ok(front)
    }

    /// Where blobs begin behind this header.
    pub fn data_offset(&self) -> u64 {
        PREFIX_BYTES + self.to_json().len() as u64
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }
}

/// How a tensor is stored.
enum Storage<'a> {
    /// As a blob of that form.
    Blob(Form),
    /// As the tensor of that name.
    Tied(&'a str),
}

impl TensorRecord {
    fn begun(tensor: &SourceTensor) -> Result<Self> {
        let dtype = dtype_name(tensor.dtype).ok_or_else(|| {
            let dtype = tensor.dtype.name();
            Error::option(format!(
                "format v1 has no {dtype}: the published package could store but not return it"
            ))
            .at_tensor(&tensor.name)
        })?;
        Ok(Self {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype,
            codec: "",
            special: None,
            compressed_bytes: 0,
            offset: 0,
            md5: "0".repeat(32),
            extra: None,
        })
    }

    fn set(&mut self, storage: Storage<'_>) {
        (self.codec, self.special, self.extra) = match storage {
            Storage::Blob(Form::Float(codec)) => (codec.name(), None, None),
            Storage::Blob(Form::Zstd { level, n_bytes }) => ("zstd", None, Some(json!({ "level": level, "n_bytes": n_bytes }))),
            Storage::Blob(Form::Lowcard { word_bytes, n_distinct }) => (
                "special",
                Some("lowcard"),
                Some(json!({ "special_kind": "lowcard", "n_unique": n_distinct, "item_bytes": word_bytes })),
            ),
            Storage::Tied(master) => ("tied_ref", Some("tied"), Some(json!({ "tied_to": master }))),
        };
    }
}

/// Encodes a model: appends its blobs to `body` and returns the record that describes them.
pub fn encode<'m>(model: &Model<'m>, mode: Mode, ticker: &Ticker, body: &mut Body<'_>) -> Result<Record> {
    let mut record = Record::begun(model, mode)?;
    let key = |(tensor, bytes): &(&'m SourceTensor, &[u8])| (bytes.len() >= LEAST_TIED_BYTES).then_some((tensor.dtype, &tensor.shape[..]));
    let keys: Vec<_> = model.tensors.iter().map(key).collect();
    let masters = masters(&keys, |i| model.tensors[i].1);
    let work = |i: usize| -> Result<(Md5, Option<Coded>)> {
        let (tensor, bytes) = model.tensors[i];
        let result = match masters[i] {
            Some(_) => (Md5([0; 16]), None),
            None => {
                let (md5, coded) = rayon::join(|| Md5::of(bytes), || encode_tensor(tensor.dtype, bytes));
                (md5, Some(coded))
            }
        };
        ticker.advance(bytes.len() as u64)?;
        Ok(result)
    };
    let mut start = 0;
    while start < model.tensors.len() {
        let mut batch_bytes = 0;
        let mut end = start;
        while end < model.tensors.len() && batch_bytes < BATCH_BYTES {
            batch_bytes += model.tensors[end].1.len();
            end += 1;
        }
        let coded: Vec<_> = (start..end).into_par_iter().map(work).collect::<Result<_>>()?;
        for (i, (md5, coded)) in (start..end).zip(coded) {
            let offset = body.n_bytes();
            match (coded, masters[i]) {
                (Some(coded), _) => {
                    body.append(&coded.blob)?;
                    record.tensors[i].set(Storage::Blob(coded.form));
                    record.tensors[i].md5 = md5.to_string();
                }
                (None, master) => {
                    let master = &record.tensors[master.expect("it is tied")];
                    let (name, md5) = (master.name.clone(), master.md5.clone());
                    record.tensors[i].set(Storage::Tied(&name));
                    record.tensors[i].md5 = md5;
                }
            }
            record.tensors[i].offset = offset;
            record.tensors[i].compressed_bytes = body.n_bytes() - offset;
        }
        start = end;
    }
    for tensor in &record.tensors {
        *record.codec_stats.entry(tensor.codec).or_insert(0) += 1;
    }
    Ok(record)
}

/// The float format of most tensors; the first one of several.
pub fn format(model: &Model<'_>) -> &'static str {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for family in model.tensors.iter().filter_map(|(tensor, _)| tensor.dtype.family()) {
        match counts.iter_mut().find(|(known, _)| *known == family) {
            Some((_, count)) => *count += 1,
            None => counts.push((family, 1)),
        }
    }
    counts
        .iter()
        .rev()
        .max_by_key(|(_, count)| *count)
        .map_or("bf16", |(family, _)| family)
}

/// What the package takes a model of these names for.
pub fn model_type(model: &Model<'_>) -> &'static str {
    let names = model
        .tensors
        .iter()
        .take(NAMES_LOOKED_AT)
        .map(|(tensor, _)| tensor.name.to_lowercase());
    let is_diffusion = |name: String| DIFFUSION.iter().any(|part| name.contains(part));
    if names.into_iter().any(is_diffusion) { "diffusion" } else { "llm" }
}
