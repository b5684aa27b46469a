//! Tensors that a directory of the published package leaves out of its shards, since others have the same bytes.

use crate::container::header::{Entry, Storage};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};

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
/// `Format` if the index is none.
pub fn add(index: &[u8], entries: &mut Vec<Entry>) -> Result<()> {
    let record: Record = serde_json::from_slice(index).map_err(|error| Error::format(format!("not a bigsmall index: {error}")))?;
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
