//! Tensors that a directory of the published package leaves out of its shards, since others have the same bytes.

use crate::container::header::{Entry, Storage};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

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
    let at: HashMap<String, usize> = entries.iter().enumerate().map(|(at, entry)| (entry.name.clone(), at)).collect();
    for (name, Master { master }) in record.metadata.duplicate_map {
        // One that is in another shard is added there.
        let Some(&master) = at.get(&master) else { continue };
        if at.contains_key(&name) {
            return Err(Error::format("the index says that it is left out, but it is not").at_tensor(&name));
        }
        let storage = match &entries[master].storage {
            Storage::Tied(first) => Storage::Tied(*first),
            Storage::Empty => Storage::Empty,
            _ => Storage::Tied(master),
        };
        entries.push(Entry {
            name,
            storage,
            ..entries[master].clone()
        });
    }
    Ok(())
}
