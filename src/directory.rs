//! Model directories: shards with an index, and the small files beside them.

mod index;
mod other_files;
mod plain;
mod published;
mod staged;

use crate::compress::{Model, Summary, compress_model};
use crate::container::INDEX;
use crate::decompress::decompress_file;
use crate::error::{Error, Kind, Place, Result};
use crate::migrate::{self, Migration, Original, migrate_file};
use crate::options::{Format, Mode, Options, Progress};
use crate::pool::scaled;
use crate::safetensors::{Checkpoint, build_header};
use crate::scan::{Estimate, scan_model};
use crate::source::{FileSource, Map as FileMap};
use crate::verify::{Problem, Verification, VerifyOptions, compare, verify_file};
use crate::weights::Weights;
use index::{Index, Shard, SourceIndex};
use plain::Plain;
use published::PublishedIndex;
use staged::{ModelDirectory, into_directory};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SOURCE_END: &str = "safetensors";
const PACKED_END: &str = "bs";

/// Compresses a file, or a model directory. A directory becomes one file if `target` ends in `.bs`, otherwise a directory.
///
/// # Errors
/// `Io`, `Source`, `Option`, `Interrupted`. Nothing is left behind under the final names.
pub fn compress(source: &Path, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    compress_any(source, None, target, options, progress)
}

/// Compresses a model to a patch: the tensors that are smaller as differences to those of `base` are stored as such. The model may be one of `.bs` files too.
///
/// # Errors
/// Those of [`compress`]; as for reading the base.
pub fn compress_on(source: &Path, base: &Weights, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    compress_any(source, Some(base), target, options, progress)
}

fn compress_any(source: &Path, base: Option<&Weights>, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    check_apart(source, target)?;
    if base.is_some() && options.format == Format::V1 {
        return Err(Error::option("format v1 has no patches"));
    }
    let open = |shard: &Path| match base {
        Some(_) => Plain::restored(shard, target),
        None => Plain::open(shard),
    };
    if !metadata(source)?.is_dir() {
        let plain = open(source)?;
        return compress_model(&Model::of(&plain.checkpoint).on(base), target, options, progress).at_path(source);
    }
    let shards = match base {
        Some(_) => weight_files(source)?,
        None => shards(source, SOURCE_END)?,
    };
    if target.extension() == Some(OsStr::new(PACKED_END)) {
        let opened = shards.iter().map(|shard| open(shard)).collect::<Result<Vec<Plain>>>()?;
        return compress_joined(&opened, &shards, base, target, options, progress);
    }
    let source_index = SourceIndex::of(source)?;
    let model = ModelDirectory {
        path: source,
        shards: &shards,
        source_index: source_index.as_ref(),
    };
    let mut weight_map = BTreeMap::new();
    let mut records = Vec::new();
    let mut published = PublishedIndex::new(options.mode);
    into_directory(&model, target, options, progress, |shard, staged, progress| {
        let name = format!("{}.{PACKED_END}", stem(shard));
        let checkpoint = open(shard)?.checkpoint;
        for tensor in &checkpoint.tensors {
            if weight_map.insert(tensor.name.clone(), name.clone()).is_some() {
                return Err(Error::source("it is in two shards").at_tensor(&tensor.name).at_path(shard));
            }
        }
        let shard_model = Model::of(&checkpoint).on(base);
        let summary = compress_model(&shard_model, &staged.join(&name), options, progress).at_path(shard)?;
        published.add(&name, &shard_model, &summary);
        records.push(Shard {
            file: name,
            source: format!("{}.{SOURCE_END}", stem(shard)),
            bytes: summary.source_bytes,
        });
        Ok(summary)
    })
    .and_then(|staged| {
        let json = match options.format {
            Format::Current => Index::new(records, weight_map, source_index).to_json(),
            Format::V1 => published.into_json(source_index),
        };
        staged.write(INDEX, &json)?;
        staged.finish()
    })
}

/// Decompresses a file, or a directory that [`compress`] has made. Every tensor's md5 is checked before the output gets its name.
///
/// # Errors
/// `Io`, `Format`, `Version`, `Corrupt`, `Option`, `Interrupted`; `Base` for a patch.
pub fn decompress(source: &Path, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    decompress_any(source, None, target, options, progress)
}

/// Applies a patch, of one file or several, to its base. What needs no base is decompressed as by [`decompress`].
///
/// # Errors
/// Those of [`decompress`]; `Base` if it is not the base that the patch was made from, before anything is written.
pub fn decompress_on(source: &Path, base: &Arc<Weights>, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    decompress_any(source, Some(base), target, options, progress)
}

fn decompress_any(source: &Path, base: Option<&Arc<Weights>>, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    check_apart(source, target)?;
    if !metadata(source)?.is_dir() {
        return decompress_file(source, base, target, options, progress);
    }
    let index = Index::read(source)?;
    let shards = packed_shards(source, index.as_ref())?;
    let model = ModelDirectory {
        path: source,
        shards: &shards,
        source_index: index.as_ref().and_then(|index| index.source_index.as_ref()),
    };
    into_directory(&model, target, options, progress, |shard, staged, progress| {
        decompress_file(shard, base, &staged.join(source_of(index.as_ref(), shard)), options, progress)
    })
    .and_then(|staged| {
        if let Some(SourceIndex { file, text }) = model.source_index {
            staged.write(file, text.as_bytes())?;
        }
        staged.finish()
    })
}

/// Checks a file, or all shards of a directory.
///
/// # Errors
/// `Io`, `Interrupted`. What is wrong with the data is told in the result.
pub fn verify(path: &Path, options: &VerifyOptions, progress: Progress<'_>) -> Result<Verification> {
    let mut found = if metadata(path)?.is_dir() {
        verify_directory(path, options, progress)?
    } else {
        verify_file(path, options, progress)?
    };
    compare(path, options, &mut found, progress)?;
    Ok(found)
}

fn verify_directory(path: &Path, options: &VerifyOptions, progress: Progress<'_>) -> Result<Verification> {
    let index = Index::read(path)?;
    let shards = packed_shards(path, index.as_ref())?;
    let mut found = Verification::default();
    let total: u64 = shards
        .iter()
        .map(|shard| fs::metadata(shard).map_or(0, |metadata| metadata.len()))
        .sum();
    let mut before = 0;
    let mut names = BTreeMap::new();
    for shard in &shards {
        let bytes = fs::metadata(shard).map_or(0, |metadata| metadata.len());
        found.add(verify_file(shard, options, &|done, of| {
            progress(before + scaled(done, of, bytes), total)
        })?);
        before += bytes;
        if let Ok(reader) = crate::FileSource::open(shard).and_then(crate::Reader::open) {
            names.extend(reader.header().entries.iter().map(|entry| (entry.name.clone(), file_name(shard))));
        }
    }
    if let Some(index) = index.filter(|index| index.weight_map != names && found.problems.is_empty()) {
        let missing = index
            .weight_map
            .iter()
            .find(|(name, file)| names.get(*name) != Some(file))
            .map(|(name, _)| name.clone());
        let message = "the index and the shards name different tensors".into();
        found.problems.push(Problem {
            path: path.join(INDEX),
            tensor: missing,
            block: None,
            bytes: None,
            message,
        });
    }
    Ok(found)
}

/// Estimates what compressing a file or directory would do; also the bytes and the number of its files.
///
/// # Errors
/// `Io`, `Source`, `Interrupted`.
pub fn scan(source: &Path, mode: Mode, threads: usize, progress: Progress<'_>) -> Result<(Vec<Estimate>, u64, usize)> {
    let files = if metadata(source)?.is_dir() {
        shards(source, SOURCE_END)?
    } else {
        vec![source.to_owned()]
    };
    let opened = files.iter().map(|file| Checkpoint::open(file)).collect::<Result<Vec<_>>>()?;
    let models: Vec<Model> = opened.iter().map(Model::of).collect();
    let total = models.iter().map(Model::raw_bytes).sum();
    let mut estimates = Vec::new();
    let mut before = 0;
    for (model, file) in models.iter().zip(&files) {
        let progress = |done, _| progress(before + done, total);
        let found = crate::pool::run(threads, model.raw_bytes(), &progress, |ticker| scan_model(model, mode, ticker));
        estimates.extend(found.at_path(file)?);
        before += model.raw_bytes();
    }
    Ok((estimates, opened.iter().map(Checkpoint::file_bytes).sum(), files.len()))
}

/// Rewrites what the published package wrote in today's format, in its place: a file, or a directory with all that it holds.
///
/// # Errors
/// `Format`, `Version`, `Corrupt`; `Base` for deltas; `Option` for files of two fidelities; `Io`, also if a backup is there already and `options` do not allow to
/// replace it; `Interrupted`. The original is as it was then.
pub fn migrate(path: &Path, options: &Options, original: Original, progress: Progress<'_>) -> Result<Migration> {
    if !metadata(path)?.is_dir() {
        return migrate_file(path, options, original, progress);
    }
    let index = Index::read(path)?;
    let shards = packed_shards(path, index.as_ref())?;
    let readers = (shards.iter())
        .map(|shard| crate::Reader::open(FileSource::open(shard)?))
        .collect::<Result<Vec<_>>>()?;
    let is_published = (readers.iter().zip(&shards))
        .map(|(reader, shard)| migrate::is_published(reader).at_path(shard))
        .collect::<Result<Vec<bool>>>()?;
    if !is_published.contains(&true) {
        return Ok(Migration::current(&readers));
    }
    let backup = migrate::backup_of(path, original, options.force)?;
    let model = ModelDirectory {
        path,
        shards: &shards,
        source_index: None,
    };
    let replacing = Options { force: true, ..*options };
    let mut migration = Migration::default();
    let (mut records, mut weight_map) = (Vec::new(), BTreeMap::new());
    let mut readers = readers.iter();
    let staged = into_directory(&model, path, &replacing, progress, |shard, staged, progress| {
        let reader = readers.next().expect("there is one for each shard");
        let file = file_name(shard);
        migration.add(migrate::rewrite(reader, &staged.join(&file), options, progress).at_path(shard)?);
        weight_map.extend(reader.header().entries.iter().map(|entry| (entry.name.clone(), file.clone())));
        records.push(Shard {
            source: source_of(index.as_ref(), shard),
            file,
            bytes: reader.header().source_bytes(),
        });
        Ok(Summary::default())
    })?;
    if original == Original::Untouched {
        return Ok(migration);
    }
    let source_index = index.and_then(|index| index.source_index);
    staged.write(INDEX, &Index::new(records, weight_map, source_index).to_json())?;
    staged.finish_keeping(backup.as_deref())?;
    Ok(Migration { backup, ..migration })
}

/// The name of the checkpoint file that a shard was made of.
fn source_of(index: Option<&Index>, shard: &Path) -> String {
    let file = file_name(shard);
    let known = index.and_then(|index| index.shards.iter().find(|one| one.file == file));
    known.map_or_else(|| format!("{}.{SOURCE_END}", stem(shard)), |one| one.source.clone())
}

/// The compressed files of a path: itself, or the shards of a directory.
///
/// # Errors
/// `Io`, `Format`; `NotFound` for a directory without any.
pub fn packed_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    packed_shards(path, Index::read(path)?.as_ref())
}

/// Whether the files of a directory are those of one model.
pub(crate) fn is_sharded(directory: &Path) -> bool {
    directory.join(INDEX).exists() || SourceIndex::of(directory).is_ok_and(|index| index.is_some())
}

/// Whether a directory holds one model: one file, or several with an index.
pub(crate) fn is_model(directory: &Path) -> bool {
    is_sharded(directory) || weight_files(directory).is_ok_and(|files| files.len() == 1)
}

/// The files that hold the tensors of a path: itself, or the shards of a directory, compressed ones or else safetensors.
pub(crate) fn weight_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    if let Some(index) = Index::read(path)? {
        return packed_shards(path, Some(&index));
    }
    match shards(path, SOURCE_END) {
        Err(Error { kind: Kind::Io(error), .. }) if error.kind() == std::io::ErrorKind::NotFound => {
            let found = shards(path, PACKED_END);
            found.map_err(|error| match &error.kind {
                Kind::Io(io) if io.kind() == std::io::ErrorKind::NotFound => {
                    none_found(path, &format!("neither .{SOURCE_END} nor .{PACKED_END} files"))
                }
                _ => error,
            })
        }
        found => found,
    }
}

fn none_found(directory: &Path, what: &str) -> Error {
    let message = format!("the directory holds {what}");
    let error = std::io::Error::new(std::io::ErrorKind::NotFound, message.clone());
    Error::new(Kind::Io(error), message).at_path(directory)
}

fn compress_joined(
    opened: &[Plain],
    shards: &[PathBuf],
    base: Option<&Weights>,
    target: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Summary> {
    let opened: Vec<&Checkpoint<FileMap>> = opened.iter().map(|plain| &plain.checkpoint).collect();
    let mut names = HashSet::new();
    for (checkpoint, shard) in opened.iter().zip(shards) {
        for tensor in &checkpoint.tensors {
            if !names.insert(&tensor.name) {
                return Err(Error::source("it is in two shards").at_tensor(&tensor.name).at_path(shard));
            }
        }
    }
    let tensors: Vec<_> = opened
        .iter()
        .flat_map(|one| one.tensors.iter().map(|tensor| (tensor, one.bytes_of(tensor))))
        .collect();
    let metadata = opened.iter().find_map(|one| one.metadata.clone());
    let header = build_header(metadata.as_ref(), tensors.iter().map(|(tensor, _)| tensor.described()));
    let source_bytes = opened.iter().map(|one| one.file_bytes()).sum();
    compress_model(
        &Model {
            tensors,
            metadata,
            header,
            source_bytes,
            base,
        },
        target,
        options,
        progress,
    )
}

pub(crate) fn is_weights(path: &Path) -> bool {
    [SOURCE_END, PACKED_END].iter().any(|end| path.extension() == Some(OsStr::new(end)))
}

/// Files of a directory with that ending, by name.
fn shards(directory: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let at = |error| Error::io(error, directory);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path.extension() == Some(OsStr::new(end)) && path.is_file() {
            if path.to_str().is_none() {
                return Err(Error::option("the file's name is not Unicode").at_path(&path));
            }
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(none_found(directory, &format!("no .{end} files")));
    }
    Ok(found)
}

fn packed_shards(directory: &Path, index: Option<&Index>) -> Result<Vec<PathBuf>> {
    let Some(index) = index else { return shards(directory, PACKED_END) };
    let mut paths = Vec::with_capacity(index.shards.len());
    for shard in &index.shards {
        let path = directory.join(&shard.file);
        metadata(&path)?;
        paths.push(path);
    }
    Ok(paths)
}

fn check_apart(source: &Path, target: &Path) -> Result<()> {
    let (Ok(source), Ok(existing)) = (source.canonicalize(), target.canonicalize()) else {
        return Ok(());
    };
    if source == existing {
        return Err(Error::option("source and target are the same").at_path(target));
    }
    if source.is_dir() && source.starts_with(&existing) {
        return Err(Error::option("the source lies in the target, which would be replaced").at_path(target));
    }
    Ok(())
}

fn metadata(path: &Path) -> Result<fs::Metadata> {
    fs::metadata(path).map_err(|error| Error::io(error, path))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
