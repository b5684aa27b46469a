//! The `.bs` file: `docs/format/container.md` in code, and the files of the published Python package: `docs/format/published.md`.

pub mod header;
mod kept;
pub mod published;
pub mod reader;
pub mod writer;

use crate::error::{Error, Kind, Result};

/// The first bytes of a file.
pub const MAGIC: &[u8; 4] = b"BGSM";
/// The first bytes of a file of two fidelities of the published package.
pub const DUAL_MAGIC: &[u8; 4] = b"BGSD";
/// The version of files that stand alone.
pub const VERSION: u16 = 16;
/// The version of files with a base.
pub const VERSION_ON_BASE: u16 = 17;
/// The file that says what the shards of a directory hold.
pub const INDEX: &str = "bigsmall.index.json";
/// Bytes before the header.
pub const PREFIX_BYTES: u64 = 10;
/// Bytes of the header's MD5.
pub const DIGEST_BYTES: u64 = 16;

/// Whether a file that begins with these bytes is one of the containers, of whatever version.
pub fn is_container(start: &[u8]) -> bool {
    [MAGIC, DUAL_MAGIC].iter().any(|magic| start.starts_with(*magic))
}

/// What kind of container a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Of the published package, up to 4.0.
    V1,
    /// The same, as it marks files with its later codecs.
    V2,
    /// Two fidelities of one model, as the published package wrote them at first.
    Dual1,
    /// The same, with what its layers need.
    Dual2,
    /// What this release writes.
    V16,
    /// The same, on a base.
    V17,
}

impl Version {
    /// The version of a file that begins with these bytes.
    ///
    /// # Errors
    /// `Format` if it is no such file, `Version` if it is one of another release.
    pub fn of(prefix: &[u8; PREFIX_BYTES as usize]) -> Result<Version> {
        let number = u16::from_le_bytes([prefix[4], prefix[5]]);
        let known = match (prefix.first_chunk(), number) {
            (Some(MAGIC), 1) => Some(Version::V1),
            (Some(MAGIC), 2) => Some(Version::V2),
            (Some(MAGIC), VERSION) => Some(Version::V16),
            (Some(MAGIC), VERSION_ON_BASE) => Some(Version::V17),
            (Some(DUAL_MAGIC), 1) => Some(Version::Dual1),
            (Some(DUAL_MAGIC), 2) => Some(Version::Dual2),
            (Some(MAGIC | DUAL_MAGIC), _) => None,
            _ => return Err(Error::format("this is not a .bs file: it does not begin with BGSM")),
        };
        known.ok_or_else(|| {
            let message =
                format!("container version {number} is not read by this release, which reads 1, 2, {VERSION} and {VERSION_ON_BASE}");
            Error::new(Kind::Version, message)
        })
    }

    /// The number in the file.
    pub fn number(self) -> u16 {
        match self {
            Version::V1 | Version::Dual1 => 1,
            Version::V2 | Version::Dual2 => 2,
            Version::V16 => VERSION,
            Version::V17 => VERSION_ON_BASE,
        }
    }

    /// Whether it is the published package's.
    pub fn is_published(self) -> bool {
        !matches!(self, Version::V16 | Version::V17)
    }

    /// Whether it is of two fidelities, in the published package's form.
    pub fn is_published_dual(self) -> bool {
        matches!(self, Version::Dual1 | Version::Dual2)
    }
}
