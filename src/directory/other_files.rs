//! The files beside the weights, carried along.

use super::{file_name, is_weights, metadata};
use crate::container::INDEX;
use crate::ecc::SIDECAR_END;
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes that are copied before the caller is asked whether to go on.
const PART_BYTES: u64 = 64 << 20;

/// An index that the published package writes beside its other one, in bytes.
const PUBLISHED_INDEX: &str = "bigsmall.index.bin";

/// What a model directory holds besides its weights and their indices.
pub struct OtherFiles<'a> {
    /// The directory.
    pub root: &'a Path,
    /// The safetensors index, which the other index keeps.
    pub source_index: Option<&'a str>,
    /// An earlier output, should it lie in the directory.
    pub output: Option<PathBuf>,
    /// Asked now and then; false stops.
    pub may_go_on: &'a dyn Fn() -> bool,
}

impl OtherFiles<'_> {
    /// Copies them into a directory.
    ///
    /// # Errors
    /// `Io`; `Option` for a device or pipe; `Interrupted`.
    pub fn copy_to(&self, directory: &Path) -> Result<()> {
        self.copy_entries(self.root, directory)
    }

    fn copy_entries(&self, from: &Path, to: &Path) -> Result<()> {
        for entry in fs::read_dir(from).map_err(|error| Error::io(error, from))? {
            let path = entry.map_err(|error| Error::io(error, from))?.path();
            let copy = to.join(file_name(&path));
            let kind = metadata(&path)?.file_type();
            if kind.is_dir() {
                if !self.is_left_out(&path) {
                    fs::create_dir(&copy).map_err(|error| Error::io(error, &copy))?;
                    self.copy_entries(&path, &copy)?;
                }
            } else if !kind.is_file() {
                return Err(Error::option("a device or pipe cannot be copied").at_path(&path));
            } else if from != self.root || !self.is_kept_elsewhere(&path) {
                self.copy_file(&path, &copy)?;
            }
        }
        Ok(())
    }

    /// What begins with a dot is some tool's own: version control, caches, downloads.
    fn is_left_out(&self, directory: &Path) -> bool {
        let is_output = || self.output.is_some() && directory.canonicalize().ok() == self.output;
        file_name(directory).starts_with('.') || is_output()
    }

    fn is_kept_elsewhere(&self, file: &Path) -> bool {
        let name = file_name(file);
        // Sidecars mend nothing but the files they were made of.
        let name = name.strip_suffix(SIDECAR_END).unwrap_or(&name);
        is_weights(Path::new(name)) || name == INDEX || name == PUBLISHED_INDEX || Some(name) == self.source_index
    }

    fn copy_file(&self, from: &Path, to: &Path) -> Result<()> {
        let (at_source, at_copy) = (|error| Error::io(error, from), |error| Error::io(error, to));
        let mut source = File::open(from).map_err(at_source)?;
        let mut copy = File::create_new(to).map_err(at_copy)?;
        loop {
            if !(self.may_go_on)() {
                return Err(Error::interrupted());
            }
            // Reading seldom fails, so the copy is blamed: its disk may be full.
            let n_bytes = std::io::copy(&mut (&mut source).take(PART_BYTES), &mut copy).map_err(at_copy)?;
            if n_bytes == 0 {
                break;
            }
        }
        let permissions = source.metadata().map_err(at_source)?.permissions();
        copy.set_permissions(permissions).map_err(at_copy)
    }
}
