//! Bytes in: files, memory maps and slices.
#![allow(unsafe_code)]

pub mod held;

use crate::error::{Error, Result};
use crate::limits::MAX_HEADER_BYTES;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Something that can be read at an offset, by several threads.
pub trait ReadAt: Sync + Send {
    /// Its length.
    fn n_bytes(&self) -> u64;
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `Io`; an end before the buffer is full is one too.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
    /// Where it is, for messages.
    fn path(&self) -> Option<&Path> {
        None
    }
    /// The contents of a small file in the same directory. None where there is none.
    ///
    /// # Errors
    /// `Io`; `Format` if the file is not small.
    fn beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let _ = name;
        Ok(None)
    }
}

impl ReadAt for &[u8] {
    fn n_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or_else(|| Error::format("the data ends early"))?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn n_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        (&self[..]).read_at(buffer, offset)
    }
}

impl ReadAt for Box<dyn ReadAt> {
    fn n_bytes(&self) -> u64 {
        (**self).n_bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        (**self).read_at(buffer, offset)
    }

    fn path(&self) -> Option<&Path> {
        (**self).path()
    }

    fn beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        (**self).beside(name)
    }
}

/// A file, read with system calls: unlike a map, it may shrink while it is read, which is then an error and not a signal.
pub struct FileSource {
    file: File,
    path: PathBuf,
    n_bytes: u64,
}

impl FileSource {
    /// Opens a file.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, n_bytes) = open(path)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            n_bytes,
        })
    }
}

impl ReadAt for FileSource {
    fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&self.file, buffer, offset).map_err(|error| Error::io(error, &self.path))
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.with_file_name(name);
        let at = |error| Error::io(error, &path);
        match path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(error)),
            Ok(metadata) if metadata.len() > MAX_HEADER_BYTES => {
                Err(Error::format("the file is longer than any of its kind").at_path(&path))
            }
            Ok(_) => std::fs::read(&path).map(Some).map_err(at),
        }
    }
}

/// A file as memory.
pub struct Map(Option<memmap2::Mmap>);

impl Map {
    /// Maps a file. An empty one is an empty slice.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(&open(path)?.0, path)
    }

    /// Maps an open file, which is at `path` as far as messages are concerned.
    ///
    /// # Errors
    /// `Io`.
    pub fn of(file: &File, path: &Path) -> Result<Self> {
        let at = |error| Error::io(error, path);
        if file.metadata().map_err(at)?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is read only. Whoever changes the file meanwhile changes what is compressed, as with any reader, and whoever truncates
        // it ends this process with a signal; checkpoints are not written in place, and the map saves a copy of all their bytes.
        let map = unsafe { memmap2::Mmap::map(file) }.map_err(at)?;
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok(Self(Some(map)))
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<(File, u64)> {
    let at = |error| Error::io(error, path);
    // Asked before the file is opened, since opening a pipe waits for its other end.
    let metadata = path.metadata().map_err(at)?;
    if metadata.is_dir() {
        return Err(at(io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(Error::option("a device or pipe cannot be read at offsets; a file is needed").at_path(path));
    }
    let file = File::open(path).map_err(at)?;
    let n_bytes = file.metadata().map_err(at)?.len();
    Ok((file, n_bytes))
}
