//! What callers may wish for.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// What to compress for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Small, and fast to decode.
    #[default]
    Balanced,
    /// Smallest; may decode slower.
    Storage,
    /// Fastest to decode.
    Inference,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 3] = [Mode::Balanced, Mode::Storage, Mode::Inference];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Balanced => "balanced",
            Mode::Storage => "storage",
            Mode::Inference => "inference",
        }
    }

    /// Whether rows may be sorted into classes, which decoding has to undo.
    pub(crate) fn may_sort(self) -> bool {
        self != Mode::Inference
    }

    /// Tables that the tensors of a file may share.
    pub(crate) fn max_tables(self) -> usize {
        match self {
            Mode::Balanced => 16,
            Mode::Storage => 32,
            Mode::Inference => 0,
        }
    }
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Mode> {
        let known = Mode::ALL.into_iter().find(|mode| mode.name() == name);
        known.ok_or_else(|| Error::option(format!("no mode {name:?}: it is one of balanced, storage, inference")))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose files to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// This release's.
    #[default]
    Current,
    /// Container version 1, which the published Python package reads from its release 1.0.0 on. [`Mode`] is then a word in the header alone.
    V1,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 2] = [Format::Current, Format::V1];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Current => "current",
            Format::V1 => "v1",
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Format> {
        let known = Format::ALL.into_iter().find(|format| format.name() == name);
        known.ok_or_else(|| Error::option(format!("no format {name:?}: it is one of current, v1")))
    }
}

/// How to write an output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What to compress for.
    pub mode: Mode,
    /// Whose files to write.
    pub format: Format,
    /// Whether an existing output may be replaced.
    pub force: bool,
    /// Threads to use; 0 for all cores.
    pub threads: usize,
}

/// Called with raw bytes done and in all; false asks to stop.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) -> bool + Sync);

/// A [`Progress`] that never asks to stop.
pub fn no_progress(_: u64, _: u64) -> bool {
    true
}
