//! The index of a directory that the published package loads.

use super::index::SourceIndex;
use crate::compress::{Model, Summary, published};
use crate::options::Mode;
use serde::Serialize;
use std::collections::BTreeMap;

/// Tensors of the shards in published files, and what the package says of them.
#[derive(Serialize)]
pub struct PublishedIndex {
    metadata: Metadata,
    weight_map: BTreeMap<String, String>,
    /// The safetensors index of the source. Published readers leave it out of account.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_index: Option<SourceIndex>,
}

#[derive(Default, Serialize)]
struct Metadata {
    bigsmall_version: &'static str,
    container_version: u32,
    format_version: u32,
    format: &'static str,
    mode: &'static str,
    model_type: &'static str,
    total_size: u64,
    total_raw_size: u64,
    ratio_pct: f64,
    shard_count: usize,
    tensor_count: usize,
    stored_tensor_count: usize,
    shards: Vec<String>,
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
