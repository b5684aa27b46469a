//! The record of a model that is compressed.

use super::blobs::Blob;
use super::job::Job;
use super::model::Model;
use crate::base::fingerprint;
use crate::codec::select::Choice;
use crate::codec::{Codec, stored};
use crate::container::header::{BaseRecord, PackRecord, Record, TensorRecord, to_hex};
use crate::digest::Md5;
use crate::error::Result;
use crate::options::Mode;
use crate::safetensors::build_header;
use crate::survey::{Handling, Item, Survey};
use std::collections::BTreeMap;

/// A record at least as long as that of any file made of the model.
pub fn longest(model: &Model<'_>, mode: Mode) -> Record {
    let n = model.tensors.len();
    let mut record = begun(model, mode);
    record.tables = u32::MAX as u64;
    let names = model.base.iter().flat_map(|base| base.tensors()).map(|tensor| &tensor.name);
    let longest_name = names.max_by_key(|name| name.len()).cloned().unwrap_or_default();
    record.packs = (0..n / 2)
        .map(|_| PackRecord {
            dtype: "F8_E4M3FNUZ".into(),
            words: u32::MAX as u64,
            codec: "row_delta".into(),
            bytes: u32::MAX as u64,
        })
        .collect();
    for (tensor, (_, bytes)) in record.tensors.iter_mut().zip(&model.tensors) {
        tensor.codec = "row_delta".into();
        tensor.bytes = stored::blob_bytes(bytes.len() as u64).unwrap_or(u64::MAX);
        tensor.value = Some("0".repeat(16));
        tensor.order = Some("oik".into());
        tensor.tied_to = Some(n);
        tensor.pack = Some(n);
        tensor.base = model.base.map(|_| longest_name.clone());
    }
    record.base = model.base.map(|_| BaseRecord {
        fingerprint: "0".repeat(32),
    });
    record.data_offset = u64::MAX;
    record
}

/// A record that is stored in about as many bytes as that of the file: digests are as random, and take most of them.
pub fn likely(model: &Model<'_>, mode: Mode) -> Record {
    let mut record = begun(model, mode);
    for (i, tensor) in record.tensors.iter_mut().enumerate() {
        tensor.md5 = Md5::of(tensor.name.as_bytes()).to_string();
        tensor.codec = Codec::Planes.name().into();
        tensor.bytes = 64 + (model.tensors[i].1.len() as u64).saturating_mul(5) / 7;
    }
    record
}

/// The record without what only encoding can tell.
fn begun(model: &Model<'_>, mode: Mode) -> Record {
    let mut bytes_of = BTreeMap::new();
    for (tensor, bytes) in &model.tensors {
        *bytes_of.entry(tensor.dtype.family()).or_insert(0) += bytes.len();
    }
    let format = bytes_of
        .iter()
        .filter(|(family, _)| family.is_some())
        .max_by_key(|(_, bytes)| **bytes)
        .and_then(|(family, _)| *family);
    let rebuilt = build_header(model.metadata.as_ref(), model.tensors.iter().map(|(tensor, _)| tensor.described()));
    let tensors = model.tensors.iter().map(|(tensor, _)| TensorRecord {
        name: tensor.name.clone(),
        dtype: tensor.dtype.name().into(),
        shape: tensor.shape.clone(),
        md5: "0".repeat(32),
        ..TensorRecord::default()
    });
    Record {
        format: format.unwrap_or("none").into(),
        mode: mode.name().into(),
        data_offset: 0,
        metadata: model.metadata.clone(),
        // Headers are UTF-8: they were parsed as JSON.
        source_header: (rebuilt != model.header).then(|| String::from_utf8_lossy(&model.header).into_owned()),
        tables: 0,
        packs: Vec::new(),
        base: None,
        tensors: tensors.collect(),
    }
}

/// The record of what was written: the blobs of packs, then those of tensors on their own, as their jobs were.
pub fn whole(
    model: &Model<'_>,
    mode: Mode,
    survey: &Survey,
    jobs: &[Job<'_>],
    blobs: &[Blob],
    items: &[Item<'_>],
    digests: &[Md5],
) -> Result<Record> {
    let mut record = begun(model, mode);
    record.tables = survey.pools.to_bytes().len() as u64;
    let (of_packs, alone) = blobs.split_at(survey.packs.len());
    record.packs = (survey.packs.iter().zip(jobs).zip(of_packs))
        .map(|((members, job), blob)| PackRecord {
            dtype: model.tensors[members[0]].0.dtype.name().into(),
            words: job.n_words() as u64,
            codec: blob.codec.name().into(),
            bytes: blob.n_bytes,
        })
        .collect();
    let mut alone = alone.iter();
    let mut used = Vec::new();
    for (i, tensor) in record.tensors.iter_mut().enumerate() {
        let codec = match &survey.handling[i] {
            Handling::Trivial(Choice::Constant(word)) => {
                tensor.value = Some(to_hex(word));
                Codec::Constant
            }
            Handling::Trivial(_) => Codec::Empty,
            Handling::Tied(master) => {
                tensor.tied_to = Some(*master);
                Codec::Tied
            }
            Handling::Packed(pack) => {
                tensor.pack = Some(*pack);
                Codec::Packed
            }
            Handling::Alone => {
                let blob = alone.next().expect("every job has written a blob");
                tensor.bytes = blob.n_bytes;
                blob.codec
            }
        };
        let stored_as = match &survey.handling[i] {
            Handling::Packed(pack) => of_packs[*pack].codec,
            _ => codec,
        };
        if let (Codec::Delta, Some(base)) = (stored_as, items[i].base) {
            tensor.base = Some(base.name().into());
            used.push(base.tensor());
        }
        tensor.codec = codec.name().into();
        tensor.order = survey.orders[i].name().map(Into::into);
        tensor.md5 = digests[i].to_string();
    }
    if let Some(base) = model.base.filter(|_| !used.is_empty()) {
        let fingerprint = fingerprint(base, used)?.to_string();
        record.base = Some(BaseRecord { fingerprint });
    }
    Ok(record)
}
