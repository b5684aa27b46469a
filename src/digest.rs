//! MD5, the receipt of a tensor's bytes.

use crate::container::header::{parse_hex, to_hex};
use md5::Digest;
use std::fmt;

/// A digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Md5(pub [u8; 16]);

impl Md5 {
    /// The digest of all of `bytes`.
    pub fn of(bytes: &[u8]) -> Md5 {
        Md5(md5::Md5::digest(bytes).into())
    }

    /// From 32 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Md5> {
        parse_hex(text)?.try_into().ok().map(Md5)
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// A digest in the making.
#[derive(Clone, Default)]
pub struct Md5Writer(md5::Md5);

impl Md5Writer {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Md5 {
        Md5(self.0.finalize().into())
    }
}
