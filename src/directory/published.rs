//! The index of a directory of the published package.

use super::index::{Index, Shard, SourceIndex};
use super::{SOURCE_END, stem};
use crate::compress::{Model, Summary, published};
use crate::options::Mode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Tensors of the shards in published files, and what the package says of them.
#[derive(Serialize, Deserialize)]
pub struct PublishedIndex {
    #[serde(default)]
    metadata: Metadata,
    weight_map: BTreeMap<String, String>,
    /// The safetensors index of the source. Published readers leave it out of account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_index: Option<SourceIndex>,
}

#[derive(Default, Serialize, Deserialize)]
struct Metadata {
    #[serde(skip_deserializing)]
    bigsmall_version: &'static str,
    #[serde(skip_deserializing)]
    container_version: u32,
    #[serde(skip_deserializing)]
    format_version: u32,
    #[serde(skip_deserializing)]
    format: &'static str,
    #[serde(skip_deserializing)]
    mode: &'static str,
    #[serde(skip_deserializing)]
    model_type: &'static str,
    #[serde(skip_deserializing)]
    total_size: u64,
    #[serde(default)]
    total_raw_size: u64,
    #[serde(skip_deserializing)]
    ratio_pct: f64,
    #[serde(skip_deserializing)]
    shard_count: usize,
    #[serde(skip_deserializing)]
    tensor_count: usize,
    #[serde(skip_deserializing)]
    stored_tensor_count: usize,
    #[serde(default)]
    shards: Vec<String>,
}

/// The safetensors index that a sharded model needs, which the published package does not keep.
const SOURCE_INDEX: &str = "model.safetensors.index.json";

impl From<PublishedIndex> for Index {
    fn from(index: PublishedIndex) -> Index {
        let PublishedIndex {
            metadata,
            weight_map,
            source_index,
        } = index;
        let files: Vec<String> = if metadata.shards.is_empty() {
            weight_map.values().cloned().collect::<BTreeSet<String>>().into_iter().collect()
        } else {
            metadata.shards
        };
        let source_of = |file: &str| format!("{}.{SOURCE_END}", stem(Path::new(file)));
        let made = || {
            let sources: BTreeMap<&String, String> = weight_map.iter().map(|(name, file)| (name, source_of(file))).collect();
            let text = json!({"metadata": {"total_size": metadata.total_raw_size}, "weight_map": sources});
            SourceIndex {
                file: SOURCE_INDEX.into(),
                text: format!("{text:#}\n"),
            }
        };
        let source_index = source_index.or_else(|| (files.len() > 1).then(made));
        let shard = |file: String| Shard {
            source: source_of(&file),
            file,
            bytes: 0,
        };
        Index::new(files.into_iter().map(shard).collect(), weight_map, source_index)
    }
}

impl PublishedIndex {
    /// An index without shards.
    pub fn new(mode: Mode) -> Self {
        let metadata = Metadata {
            bigsmall_version: env!("CARGO_PKG_VERSION"),
            container_version: 1,
            format_version: 1,
            mode: mode.name(),
            ..Metadata::default()
        };
        Self {
            metadata,
            weight_map: BTreeMap::new(),
            source_index: None,
        }
    }

    /// Adds a shard, which was written as `file`.
    pub fn add(&mut self, file: &str, model: &Model<'_>, written: &Summary) {
        let all = &mut self.metadata;
        let (format, model_type) = (published::format(model), published::model_type(model));
        all.format = if all.shards.is_empty() || all.format == format {
            format
        } else {
            "mixed"
        };
        all.model_type = if all.shards.is_empty() { model_type } else { all.model_type };
        all.total_size += written.compressed_bytes;
        all.total_raw_size += model.raw_bytes();
        all.shard_count += 1;
        all.tensor_count += written.n_tensors;
        all.stored_tensor_count = all.tensor_count;
        all.shards.push(file.to_owned());
        let names = model.tensors.iter().map(|(tensor, _)| tensor.name.clone());
        self.weight_map.extend(names.map(|name| (name, file.to_owned())));
    }

    /// The file's text.
    pub fn into_json(mut self, source_index: Option<SourceIndex>) -> Vec<u8> {
        let raw_bytes = self.metadata.total_raw_size.max(1);
        self.metadata.ratio_pct = 100.0 * self.metadata.total_size as f64 / raw_bytes as f64;
        self.source_index = source_index;
        serde_json::to_vec_pretty(&self).expect("strings and numbers always serialise")
    }
}
