//! What can go wrong, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of thing went wrong. Each has its own Python exception.
#[derive(Debug)]
pub enum Kind {
    /// The operating system refused; becomes `OSError` or its subclass.
    Io(io::Error),
    /// Not a `.bs` file, or one that contradicts itself.
    Format,
    /// A `.bs` file of a version or with a codec that this release does not know.
    Version,
    /// A checksum or digest does not match: the data changed after it was written.
    Corrupt,
    /// The checkpoint to be compressed is not valid safetensors.
    Source,
    /// The caller asked for something impossible.
    Option,
    /// A patch without the base that it was made from, or on another one.
    Base,
    /// No tensor has that name.
    MissingTensor,
    /// The caller's progress function asked to stop.
    Interrupted,
}

/// An error with the place where it happened, as far as that is known.
#[derive(Debug)]
pub struct Error {
    /// What kind of failure.
    pub kind: Kind,
    /// One sentence without the place.
    pub message: String,
    /// The file.
    pub path: Option<PathBuf>,
    /// The tensor.
    pub tensor: Option<String>,
    /// The block, counted through the tensor's blob.
    pub block: Option<u64>,
}

impl Error {
    /// An error of `kind`, its place still unknown.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            path: None,
            tensor: None,
            block: None,
        }
    }

    /// A file that is not, or not consistently, a `.bs` file.
    pub fn format(message: impl Into<String>) -> Self {
        Self::new(Kind::Format, message)
    }

    /// Data that does not match its checksum or digest.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// A source checkpoint that is not valid.
    pub fn source(message: impl Into<String>) -> Self {
        Self::new(Kind::Source, message)
    }

    /// A request that cannot be met.
    pub fn option(message: impl Into<String>) -> Self {
        Self::new(Kind::Option, message)
    }

    /// A patch that lacks its base.
    pub fn base(message: impl Into<String>) -> Self {
        Self::new(Kind::Base, message)
    }

    /// An operating-system error at `path`.
    pub fn io(error: io::Error, path: &Path) -> Self {
        let message = error.to_string();
        Self {
            kind: Kind::Io(error),
            message,
            path: Some(path.to_owned()),
            tensor: None,
            block: None,
        }
    }

    /// Memory that the system does not give.
    pub fn out_of_memory(n_bytes: u64) -> Self {
        let message = format!("{n_bytes} bytes of memory are not to be had");
        Self::new(Kind::Io(io::Error::new(io::ErrorKind::OutOfMemory, message.clone())), message)
    }

    /// The stop that a progress function asked for.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// Adds the file, unless one is known.
    pub fn at_path(mut self, path: &Path) -> Self {
        self.path.get_or_insert_with(|| path.to_owned());
        self
    }

    /// Adds the tensor, unless one is known.
    pub fn at_tensor(mut self, name: &str) -> Self {
        self.tensor.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Adds the block, unless one is known.
    pub fn at_block(mut self, block: u64) -> Self {
        self.block.get_or_insert(block);
        self
    }

    /// Whether the data itself is at fault, rather than the request or the system.
    pub fn is_data(&self) -> bool {
        matches!(self.kind, Kind::Format | Kind::Version | Kind::Corrupt)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor {tensor:?}: ")?;
        }
        if let Some(block) = self.block {
            write!(f, "block {block}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Adds the place to an error on its way up.
pub trait Place<T> {
    /// Adds the file, unless one is known.
    fn at_path(self, path: &Path) -> Result<T>;
    /// Adds the tensor, unless one is known.
    fn at_tensor(self, name: &str) -> Result<T>;
    /// Adds the block, unless one is known.
    fn at_block(self, block: u64) -> Result<T>;
}

impl<T> Place<T> for Result<T> {
    fn at_path(self, path: &Path) -> Result<T> {
        self.map_err(|e| e.at_path(path))
    }
    fn at_tensor(self, name: &str) -> Result<T> {
        self.map_err(|e| e.at_tensor(name))
    }
    fn at_block(self, block: u64) -> Result<T> {
        self.map_err(|e| e.at_block(block))
    }
}
