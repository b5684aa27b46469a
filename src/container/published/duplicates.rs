//! Tensors that a directory of the published package leaves out of its shards, since others have the same bytes.

use crate::container::INDEX;
use crate::container::header::{Entry, Storage};
use crate::error::{Error, Place, Result};
use crate::limits::MAX_HEADER_BYTES;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    duplicate_map: BTreeMap<String, Master>,
}

#[derive(Deserialize)]
struct Master {
    master: String,
}

/// Adds to the tensors of a shard those that the index beside it says to be equal to one of them.
///
/// # Errors
/// `Io`, or `Format` if the index is none.
pub fn add(shard: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    let index = shard.with_file_name(INDEX);
    let Ok(metadata) = fs::metadata(&index) else { return Ok(()) };
    if metadata.len() > MAX_HEADER_BYTES {
        return Err(Error::format("the index is longer than any").at_path(&index));
    }
    let text = fs::read(&index).map_err(|error| Error::io(error, &index))?;
    let record: Record =
        serde_json::from_slice(&text).map_err(|error| Error::format(format!("not a bigsmall index: {error}")).at_path(&index))?;
    add_all(record, entries).at_path(&index)
}

fn add_all(record: Record, entries: &mut Vec<Entry>) -> Result<()> {
    let mut names: HashSet<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    for (name, Master { master }) in record.metadata.duplicate_map {
        // One that is in another shard is added there.
        let Some(at) = entries.iter().position(|entry| entry.name == master) else {
            continue;
        };
        if !names.insert(name.clone()) {
            return Err(Error::format("it is said to be left out, but is not").at_tensor(&name));
        }
        let storage = match &entries[at].storage {
            Storage::Tied(first) => Storage::Tied(*first),
            Storage::Empty => Storage::Empty,
            _ => Storage::Tied(at),
        };
        entries.push(Entry {
            name,
            storage,
            ..entries[at].clone()
        });
    }
    Ok(())
}
