//! Files and directories of the published package, rewritten in today's format in their place.

use crate::compress::{Model, compress_model};
use crate::container::header::{Entry, Header, Storage};
use crate::container::published::Published;
use crate::container::reader::Reader;
use crate::decompress::restore;
use crate::error::{Error, Place, Result};
use crate::options::{Format, Options, Progress};
use crate::pool::{self, scaled};
use crate::safetensors::Checkpoint;
use crate::sink::{Scratch, hidden_directory};
use crate::source::FileSource;
use crate::verify::{VerifyOptions, verify_file};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the name of a backup ends in.
const BACKUP_END: &str = ".bak";

/// What is to become of the file or directory that is migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Original {
    /// It stays: all is done but the replacing.
    Untouched,
    /// It stays beside its successor, under its name and `.bak`.
    Kept,
    /// It goes.
    Replaced,
}

/// What migrating has done, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// Whether there was nothing to do.
    pub was_current: bool,
    /// Tensors.
    pub n_tensors: usize,
    /// Bytes of the files as they were.
    pub bytes_before: u64,
    /// Bytes of their successors.
    pub bytes_after: u64,
    /// Where the original is kept.
    pub backup: Option<PathBuf>,
    /// Tensors by their codec before and after.
    pub recoded: BTreeMap<(String, String), usize>,
}

impl Migration {
    /// That of files which are as they should be.
    pub(crate) fn current(readers: &[Reader<FileSource>]) -> Self {
        let n_bytes = readers.iter().map(Reader::file_bytes).sum();
        Migration {
            was_current: true,
            n_tensors: readers.iter().map(|reader| reader.header().entries.len()).sum(),
            bytes_before: n_bytes,
            bytes_after: n_bytes,
            ..Migration::default()
        }
    }

    /// Adds that of another file.
    pub(crate) fn add(&mut self, other: Migration) {
        self.n_tensors += other.n_tensors;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
        for (codecs, n_tensors) in other.recoded {
            *self.recoded.entry(codecs).or_insert(0) += n_tensors;
        }
    }
}

/// Migrates a file. Every tensor's md5 is checked, once when it is decoded and once more when the new file is read back, before the original is touched;
/// whatever ends the process, the name leads to one of both, complete.
///
/// # Errors
/// `Format`, `Version`, `Corrupt`; `Base` for a delta; `Option` for a file of two fidelities; `Io`, also if a backup is there already and `options` do not
/// allow to replace it; `Interrupted`.
pub(crate) fn migrate_file(path: &Path, options: &Options, original: Original, progress: Progress<'_>) -> Result<Migration> {
    let reader = Reader::open(FileSource::open(path)?)?;
    if !is_published(&reader).at_path(path)? {
        return Ok(Migration::current(&[reader]));
    }
    let backup = backup_of(path, original, options.force)?;
    let directory = hidden_directory(path)?;
    let successor = directory.path().join(path.file_name().unwrap_or_default());
    let migration = rewrite(&reader, &successor, options, progress).at_path(path)?;
    if original != Original::Untouched {
        let at = |error| Error::io(error, path);
        fs::set_permissions(&successor, path.metadata().map_err(at)?.permissions()).map_err(at)?;
        if let Some(backup) = &backup {
            keep(path, backup)?;
        }
        fs::rename(&successor, path).map_err(at)?;
    }
    Ok(Migration { backup, ..migration })
}

/// Whether a file is one to be migrated.
///
/// # Errors
/// Those of files that cannot be.
pub(crate) fn is_published(reader: &Reader<FileSource>) -> Result<bool> {
    let header = reader.header();
    if header.version.is_published_dual() {
        return Err(Error::option(
            "a file of two fidelities would lose one of them: decompress restores the checkpoint",
        ));
    }
    let is_delta = |entry: &&Entry| matches!(entry.storage, Storage::Published(Published::Delta(_)));
    if let Some(entry) = header.entries.iter().find(is_delta) {
        let error = Error::base("a delta is not migrated: decompress it on its base, and compress the result");
        return Err(error.at_tensor(&entry.name));
    }
    Ok(header.version.is_published())
}

/// Writes the tensors of a file as a new one in today's format, and reads it back.
pub(crate) fn rewrite(reader: &Reader<FileSource>, successor: &Path, options: &Options, progress: Progress<'_>) -> Result<Migration> {
    let raw_bytes = reader.header().raw_bytes();
    // Three passes over the same bytes.
    let pass = |pass: u64| move |done: u64, total: u64| progress((pass * raw_bytes + scaled(done, total, raw_bytes)) / 3, raw_bytes);
    let scratch = Scratch::beside(successor)?;
    pool::run(options.threads, raw_bytes, &pass(0), |ticker| {
        restore(reader, ticker, &|bytes, offset| scratch.write_at(bytes, offset))
    })?;
    let checkpoint = Checkpoint::parse(scratch.map()?)?;
    let current = Options {
        format: Format::Current,
        ..*options
    };
    compress_model(&Model::of(&checkpoint), successor, &current, &pass(1))?;
    let verifying = VerifyOptions {
        threads: options.threads,
        ..VerifyOptions::default()
    };
    let found = verify_file(successor, &verifying, &pass(2))?;
    if let Some(problem) = found.problems.into_iter().next() {
        return Err(Error::corrupt(format!("the new file does not read back: {}", problem.message)));
    }
    let written = Reader::open(FileSource::open(successor)?)?;
    let recoded = compare(reader.header(), written.header())?;
    Ok(Migration {
        was_current: false,
        n_tensors: written.header().entries.len(),
        bytes_before: reader.file_bytes(),
        bytes_after: written.file_bytes(),
        backup: None,
        recoded,
    })
}

/// The codecs of tensors before and after, if the new file holds just those of the old one.
fn compare(old: &Header, new: &Header) -> Result<BTreeMap<(String, String), usize>> {
    let differs = || Error::corrupt("the new file does not hold what the old one did");
    if new.entries.len() != old.entries.len() {
        return Err(differs());
    }
    let mut recoded = BTreeMap::new();
    for (i, (before, after)) in old.entries.iter().zip(&new.entries).enumerate() {
        if (&before.name, before.dtype, &before.shape, before.md5) != (&after.name, after.dtype, &after.shape, after.md5) {
            return Err(differs().at_tensor(&before.name));
        }
        let codecs = (old.codec_name(i).to_owned(), new.codec_name(i).to_owned());
        *recoded.entry(codecs).or_insert(0) += 1;
    }
    Ok(recoded)
}

/// Where the original is to be kept, if it is.
///
/// # Errors
/// `Io` of kind `AlreadyExists` without `force`, if something lies there.
pub(crate) fn backup_of(path: &Path, original: Original, force: bool) -> Result<Option<PathBuf>> {
    if original == Original::Replaced {
        return Ok(None);
    }
    let mut name = OsString::from(path.file_name().unwrap_or_default());
    name.push(BACKUP_END);
    let backup = path.with_file_name(name);
    if original == Original::Untouched {
        return Ok(None);
    }
    if !force && backup.symlink_metadata().is_ok() {
        return Err(Error::io(io::ErrorKind::AlreadyExists.into(), &backup));
    }
    Ok(Some(backup))
}

/// Gives a file a second name, or where the file system has none makes a copy.
fn keep(path: &Path, backup: &Path) -> Result<()> {
    let at = |error| Error::io(error, backup);
    if backup.symlink_metadata().is_ok() {
        fs::remove_file(backup).map_err(at)?;
    }
    if fs::hard_link(path, backup).is_err() {
        fs::copy(path, backup).map_err(at)?;
    }
    Ok(())
}
