//! The index of a compressed directory.

use super::published::PublishedIndex;
use super::{PACKED_END, SOURCE_END, file_name};
use crate::container::INDEX;
use crate::error::{Error, Place, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

const FORMAT: &str = "bigsmall-index";
const VERSION: u32 = 1;
/// How the safetensors index of a sharded model ends.
const SOURCE_INDEX_END: &str = ".safetensors.index.json";

/// What the shards of a compressed directory hold.
#[derive(Serialize, Deserialize)]
pub struct Index {
    format: String,
    version: u32,
    pub shards: Vec<Shard>,
    pub weight_map: BTreeMap<String, String>,
    pub source_index: Option<SourceIndex>,
}

/// What tells today's index from that of the published package.
#[derive(Deserialize)]
struct Marked {
    format: Option<String>,
}

/// A shard, and the file that it was made of.
#[derive(Serialize, Deserialize)]
pub struct Shard {
    pub file: String,
    pub source: String,
    pub bytes: u64,
}

/// The safetensors index that the source has.
#[derive(Serialize, Deserialize)]
pub struct SourceIndex {
    pub file: String,
    pub text: String,
}

impl SourceIndex {
    /// That of a model directory, if it has one; the first by name of several.
    pub fn of(directory: &Path) -> Result<Option<Self>> {
        let at = |error| Error::io(error, directory);
        let mut found: Vec<PathBuf> = fs::read_dir(directory)
            .map_err(at)?
            .map(|entry| Ok(entry.map_err(at)?.path()))
            .collect::<Result<_>>()?;
        found.retain(|path| file_name(path).ends_with(SOURCE_INDEX_END));
        found.sort();
        let Some(path) = found.first() else { return Ok(None) };
        let text = fs::read_to_string(path).map_err(|error| Error::io(error, path))?;
        Ok(Some(SourceIndex {
            file: file_name(path),
            text,
        }))
    }
}

impl Index {
    /// An index of these shards.
    pub fn new(shards: Vec<Shard>, weight_map: BTreeMap<String, String>, source_index: Option<SourceIndex>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            shards,
            weight_map,
            source_index,
        }
    }

    /// The file's text.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("strings and numbers always serialise")
    }

    /// That of a directory, if it has one.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(INDEX);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).map_err(|error| Error::io(error, &path))?;
        let wrong = |error| Error::format(format!("not a bigsmall index: {error}")).at_path(&path);
        let index: Index = match serde_json::from_slice(&text).map_err(wrong)? {
            Marked { format: Some(_) } => serde_json::from_slice(&text).map_err(wrong)?,
            Marked { format: None } => serde_json::from_slice::<PublishedIndex>(&text).map_err(wrong)?.into(),
        };
        if index.format != FORMAT || index.version != VERSION {
            return Err(Error::new(crate::Kind::Version, "an index of a format that this release does not know").at_path(&path));
        }
        index.check().at_path(&path)?;
        Ok(Some(index))
    }

    /// Refuses an index that contradicts itself, or whose files would overwrite each other or files elsewhere.
    fn check(&self) -> Result<()> {
        if self.shards.is_empty() {
            return Err(Error::format("an index without shards"));
        }
        let (mut files, mut sources) = (HashSet::new(), HashSet::new());
        for Shard { file, source, .. } in &self.shards {
            for (name, end, names) in [(file, PACKED_END, &mut files), (source, SOURCE_END, &mut sources)] {
                if !is_plain(name) || Path::new(name).extension() != Some(OsStr::new(end)) {
                    return Err(Error::format(format!(
                        "{name:?} is not the name of a .{end} file in this directory"
                    )));
                }
                if !names.insert(name) {
                    return Err(Error::format(format!("{name:?} occurs twice")));
                }
            }
        }
        if let Some(SourceIndex { file, .. }) = &self.source_index
            && !(is_plain(file) && file.ends_with(SOURCE_INDEX_END))
        {
            return Err(Error::format(format!("{file:?} is not the name of a safetensors index")));
        }
        match self.weight_map.iter().find(|(_, file)| !files.contains(file)) {
            Some((tensor, file)) => Err(Error::format(format!("it lies in {file:?}, which is no shard")).at_tensor(tensor)),
            None => Ok(()),
        }
    }
}

/// Whether a name leads to a place in its directory.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}
