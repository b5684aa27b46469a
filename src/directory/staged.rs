//! A directory that appears whole or not at all.

use super::index::SourceIndex;
use super::other_files::OtherFiles;
use super::{is_weights, metadata};
use crate::compress::Summary;
use crate::error::{Error, Result};
use crate::options::{Options, Progress};
use crate::pool::scaled;
use crate::sink::{Sink, hidden_directory};
use std::fs;
use std::path::{Path, PathBuf};

/// A directory in the making, under a temporary name beside its own.
pub struct Staged {
    directory: tempfile::TempDir,
    target: PathBuf,
    force: bool,
    summary: Summary,
}

impl Staged {
    /// Writes a file of the directory.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let sink = Sink::create(&self.directory.path().join(name), false)?;
        sink.write_at(bytes, 0)?;
        sink.finish()
    }

    /// Gives the directory its name.
    ///
    /// # Errors
    /// `Io`; without `force`, `AlreadyExists` if there is something by now.
    pub fn finish(self) -> Result<Summary> {
        self.finish_keeping(None)
    }

    /// The same, and the directory that it replaces gets the name `backup`.
    ///
    /// # Errors
    /// Those of [`Staged::finish`].
    pub fn finish_keeping(self, backup: Option<&Path>) -> Result<Summary> {
        let Staged {
            directory,
            target,
            force,
            mut summary,
        } = self;
        let at = |error| Error::io(error, &target);
        let staged = directory.keep();
        let result = (|| {
            if target.symlink_metadata().is_ok() {
                if !force {
                    return Err(at(std::io::ErrorKind::AlreadyExists.into()));
                }
                // The old directory keeps its contents until the new one stands in its place.
                let aside = hidden_directory(&target)?;
                let old = backup.map_or_else(|| aside.path().join("old"), Path::to_owned);
                if backup.is_some_and(|backup| backup.symlink_metadata().is_ok()) {
                    fs::rename(&old, aside.path().join("old")).map_err(at)?;
                }
                fs::rename(&target, &old).map_err(at)?;
                if let Err(error) = fs::rename(&staged, &target) {
                    let _ = fs::rename(&old, &target);
                    return Err(at(error));
                }
                return Ok(());
            }
            fs::rename(&staged, &target).map_err(at)
        })();
        if result.is_err() {
            let _ = fs::remove_dir_all(&staged);
        }
        result?;
        for output in &mut summary.outputs {
            *output = target.join(output.file_name().unwrap_or_default());
        }
        Ok(summary)
    }
}

/// A directory with weights.
pub struct ModelDirectory<'a> {
    pub path: &'a Path,
    pub shards: &'a [PathBuf],
    pub source_index: Option<&'a SourceIndex>,
}

/// Makes a new directory with each shard and copies of what else the model's holds.
pub fn into_directory(
    model: &ModelDirectory<'_>,
    target: &Path,
    options: &Options,
    progress: Progress<'_>,
    mut make: impl FnMut(&Path, &Path, Progress<'_>) -> Result<Summary>,
) -> Result<Staged> {
    if !options.force && target.symlink_metadata().is_ok() {
        return Err(Error::io(std::io::ErrorKind::AlreadyExists.into(), target));
    }
    if target.is_dir() {
        check_replaceable(target)?;
    } else if target.exists() {
        return Err(Error::io(std::io::ErrorKind::NotADirectory.into(), target));
    }
    let directory = hidden_directory(target)?;
    let staged = directory.path().to_owned();
    // Told as if it had its name already: nobody knows the other, which is gone by then.
    let named = |error: Error| {
        let inside = error.path.as_ref().and_then(|path| path.strip_prefix(&staged).ok());
        let path = inside.map(|inside| target.join(inside));
        Error {
            path: path.or(error.path),
            ..error
        }
    };
    let sizes = (model.shards.iter())
        .map(|shard| Ok(metadata(shard)?.len()))
        .collect::<Result<Vec<u64>>>()?;
    let total = sizes.iter().sum();
    // First, since what cannot be copied is then told before the long work.
    let others = OtherFiles {
        root: model.path,
        source_index: model.source_index.map(|index| &*index.file),
        output: target.canonicalize().ok(),
        may_go_on: &|| progress(0, total),
    };
    others.copy_to(&staged).map_err(named)?;
    let mut summary = Summary::default();
    let mut before = 0;
    for (shard, bytes) in model.shards.iter().zip(sizes) {
        let one = make(shard, &staged, &|done, of| progress(before + scaled(done, of, bytes), total)).map_err(named)?;
        summary.source_bytes += one.source_bytes;
        summary.compressed_bytes += one.compressed_bytes;
        summary.n_tensors += one.n_tensors;
        summary.matched += one.matched;
        summary.outputs.extend(one.outputs);
        before += bytes;
    }
    Ok(Staged {
        directory,
        target: target.to_owned(),
        force: options.force,
        summary,
    })
}

/// Refuses to replace a directory that cannot be an earlier output, and with it whatever it holds.
fn check_replaceable(directory: &Path) -> Result<()> {
    let mut is_empty = true;
    for entry in fs::read_dir(directory).map_err(|error| Error::io(error, directory))? {
        is_empty = false;
        if is_weights(&entry.map_err(|error| Error::io(error, directory))?.path()) {
            return Ok(());
        }
    }
    if is_empty {
        Ok(())
    } else {
        Err(Error::option("a directory without weights is no earlier output and is not replaced").at_path(directory))
    }
}
