//! Bytes out: files that appear whole or not at all.

use crate::error::{Error, Result};
use crate::pool::lock;
use crate::source::{Map, ReadAt, read_exact_at};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::{NamedTempFile, TempDir};

/// How names of what is in the making begin.
pub(crate) const HIDDEN: &str = ".bigsmall-";
/// Bytes that are moved at a time.
const MOVED_BYTES: usize = 1 << 20;

/// The directory that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Something that can be written at an offset and read again, by several threads. Bytes that are passed over are zeros.
pub trait WriteAt: ReadAt {
    /// Writes at an offset.
    ///
    /// # Errors
    /// `Io`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;
}

/// Bytes in memory.
#[derive(Default)]
pub struct Memory(Mutex<Vec<u8>>);

impl Memory {
    /// Room for so many bytes.
    ///
    /// # Errors
    /// `Io` of kind `OutOfMemory` if they do not fit into memory.
    pub fn with_capacity(n_bytes: u64) -> Result<Self> {
        let mut all = Vec::new();
        let reserved = usize::try_from(n_bytes)
            .ok()
            .and_then(|n_bytes| all.try_reserve_exact(n_bytes).ok());
        reserved.ok_or_else(|| Error::out_of_memory(n_bytes))?;
        Ok(Self(Mutex::new(all)))
    }

    /// All that was written.
    pub fn into_bytes(self) -> Vec<u8> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl ReadAt for Memory {
    fn n_bytes(&self) -> u64 {
        lock(&self.0).len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        (&lock(&self.0)[..]).read_at(buffer, offset)
    }
}

impl WriteAt for Memory {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut all = lock(&self.0);
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if all.len() < end {
            all.resize(end, 0);
        }
        all[start..end].copy_from_slice(bytes);
        Ok(())
    }
}

/// A file in the making, under a temporary name beside its own.
pub struct Sink {
    file: NamedTempFile,
    path: PathBuf,
    force: bool,
}

impl Sink {
    /// Begins a file that is to be called `path`. What stands there is replaced only with `force`.
    ///
    /// # Errors
    /// `Io`; an existing file without `force` is `AlreadyExists`. `Option` for a device or pipe, which is never replaced.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        let at = |error| Error::io(error, path);
        if path.is_dir() {
            return Err(at(io::ErrorKind::IsADirectory.into()));
        }
        if path.metadata().is_ok_and(|existing| !existing.is_file()) {
            return Err(Error::option("a device or pipe is not replaced").at_path(path));
        }
        if !force && path.symlink_metadata().is_ok() {
            return Err(at(io::ErrorKind::AlreadyExists.into()));
        }
        // Opened here and not by the crate, whose files are private; a checkpoint is to have the rights that any new file gets.
        let create = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
        let file = tempfile::Builder::new()
            .prefix(HIDDEN)
            .suffix(".tmp")
            .make_in(parent(path), create)
            .map_err(at)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            force,
        })
    }

    /// Writes at an offset.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_all_at(self.file.as_file(), bytes, offset).map_err(|error| Error::io(error, &self.path))
    }

    /// Sets the length of the file.
    ///
    /// # Errors
    /// `Io`.
    pub fn set_len(&self, n_bytes: u64) -> Result<()> {
        self.file.as_file().set_len(n_bytes).map_err(|error| Error::io(error, &self.path))
    }

    /// Moves bytes to an offset before theirs and ends the file behind them. `proceed` is asked now and then whether to go on.
    ///
    /// # Errors
    /// `Io`, and those of `proceed`, after which the file holds neither.
    pub fn move_back(&self, from: Range<u64>, to: u64, mut proceed: impl FnMut() -> Result<()>) -> Result<()> {
        assert!(to <= from.start);
        let mut buffer = vec![0; MOVED_BYTES];
        for at in (from.start..from.end).step_by(MOVED_BYTES) {
            proceed()?;
            let part = &mut buffer[..MOVED_BYTES.min((from.end - at) as usize)];
            self.read_at(part, at)?;
            self.write_at(part, at - from.start + to)?;
        }
        self.set_len(to + from.end - from.start)
    }

    /// Gives the file its name, after all of it has reached the disk.
    ///
    /// # Errors
    /// `Io`; a file that has appeared there meanwhile is `AlreadyExists` without `force`.
    pub fn finish(self) -> Result<()> {
        let Self { file, path, force } = self;
        file.as_file().sync_all().map_err(|error| Error::io(error, &path))?;
        let persisted = if force {
            file.persist(&path)
        } else {
            file.persist_noclobber(&path)
        };
        persisted.map_err(|error| Error::io(error.error, &path))?;
        Ok(())
    }
}

/// A new directory beside `path`, removed when dropped.
pub(crate) fn hidden_directory(path: &Path) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(HIDDEN);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    // By its kind alone: the crate's own words tell of a name that nobody knows.
    builder
        .tempdir_in(parent(path))
        .map_err(|error| Error::io(error.kind().into(), path))
}

/// A file without a name, beside another, that is written and then mapped. It is gone with its process.
pub struct Scratch {
    file: File,
    /// What it is for, which errors name.
    path: PathBuf,
}

impl Scratch {
    /// An empty file.
    ///
    /// # Errors
    /// `Io`.
    pub fn beside(path: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(parent(path)).map_err(|error| Error::io(error.kind().into(), path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Writes at an offset.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_all_at(&self.file, bytes, offset).map_err(|error| Error::io(error, &self.path))
    }

    /// Its bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn map(self) -> Result<Map> {
        Map::of(&self.file, &self.path)
    }
}

impl ReadAt for Sink {
    fn n_bytes(&self) -> u64 {
        self.file.as_file().metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(self.file.as_file(), buffer, offset).map_err(|error| Error::io(error, &self.path))
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

impl WriteAt for Sink {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.write_at(bytes, offset)
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => done += n,
        }
    }
    Ok(())
}
