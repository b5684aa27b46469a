//! A shard as a safetensors file, whatever it is.

use crate::decompress::decompress_file;
use crate::error::Result;
use crate::options::{Options, no_progress};
use crate::safetensors::Checkpoint;
use crate::sink::hidden_directory;
use crate::source::Map as FileMap;
use crate::weights::is_packed_file;
use std::path::Path;

/// A mapped checkpoint.
pub struct Plain {
    pub checkpoint: Checkpoint<FileMap>,
    /// Where it was restored to; goes when this does.
    _restored: Option<tempfile::TempDir>,
}

impl Plain {
    /// A safetensors file.
    pub fn open(shard: &Path) -> Result<Self> {
        Ok(Self {
            checkpoint: Checkpoint::open(shard)?,
            _restored: None,
        })
    }

    /// The same, or a `.bs` file, which is restored under a temporary name beside `target`: its words are wanted in several passes.
    pub fn restored(shard: &Path, target: &Path) -> Result<Self> {
        if !is_packed_file(shard)? {
            return Self::open(shard);
        }
        let directory = hidden_directory(target)?;
        let path = directory.path().join("restored.safetensors");
        decompress_file(shard, None, &path, &Options::default(), &no_progress)?;
        Ok(Self {
            checkpoint: Checkpoint::open(&path)?,
            _restored: Some(directory),
        })
    }
}
