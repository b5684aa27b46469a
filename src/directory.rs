//! Model directories: shards with an index, and the small files beside them.

use crate::compress::{Model, Summary, compress_file, compress_model};
use crate::decompress::decompress_file;
use crate::error::{Error, Place, Result};
use crate::options::{Mode, Options, Progress};
use crate::safetensors::{Checkpoint, build_header};
use crate::scan::{Estimate, scan_model};
use crate::sink::Sink;
use crate::source::Map as FileMap;
use crate::verify::{Problem, Verification, verify_file};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The file that says what the shards of a directory hold.
pub const INDEX: &str = "bigsmall.index.json";
const INDEX_FORMAT: &str = "bigsmall-index";
const INDEX_VERSION: u32 = 1;
/// How the safetensors index of a sharded model ends.
const SOURCE_INDEX_END: &str = ".safetensors.index.json";
const SOURCE_END: &str = "safetensors";
const PACKED_END: &str = "bs";

#[derive(Serialize, Deserialize)]
struct Index {
    format: String,
    version: u32,
    shards: Vec<Shard>,
    weight_map: BTreeMap<String, String>,
    source_index: Option<SourceIndex>,
}

#[derive(Serialize, Deserialize)]
struct Shard {
    file: String,
    source: String,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct SourceIndex {
    file: String,
    text: String,
}

/// Compresses a file, or a model directory. A directory becomes one file if `target` ends in `.bs`, otherwise a directory.
///
/// # Errors
/// `Io`, `Source`, `Option`, `Interrupted`. Nothing is left behind under the final names.
pub fn compress(source: &Path, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    check_apart(source, target)?;
    if !metadata(source)?.is_dir() {
        return compress_file(source, target, options, progress);
    }
    let shards = shards(source, SOURCE_END)?;
    if target.extension() == Some(OsStr::new(PACKED_END)) {
        return compress_joined(&shards, target, options, progress);
    }
    let source_index = source_index(source)?;
    let index_name = source_index.as_ref().map(|index| index.file.as_str());
    let mut weight_map = BTreeMap::new();
    let mut records = Vec::new();
    let staged = into_directory(source, target, options, &shards, index_name, progress, |shard, staged, progress| {
        let name = format!("{}.{PACKED_END}", stem(shard));
        let checkpoint = Checkpoint::open(shard)?;
        for tensor in &checkpoint.tensors {
            if weight_map.insert(tensor.name.clone(), name.clone()).is_some() {
                return Err(Error::source("it is in two shards").at_tensor(&tensor.name).at_path(shard));
            }
        }
        let summary = compress_model(&Model::of(&checkpoint), &staged.join(&name), options, progress)?;
        records.push(Shard {
            file: name,
            source: file_name(shard),
            bytes: summary.source_bytes,
        });
        Ok(summary)
    })?;
    let index = Index {
        format: INDEX_FORMAT.into(),
        version: INDEX_VERSION,
        shards: records,
        weight_map,
        source_index,
    };
    let json = serde_json::to_vec_pretty(&index).expect("strings and numbers always serialise");
    staged.write(INDEX, &json)?;
    staged.finish()
}

/// Decompresses a file, or a directory that [`compress`] has made. Every tensor's md5 is checked before the output gets its name.
///
/// # Errors
/// `Io`, `Format`, `Version`, `Corrupt`, `Option`, `Interrupted`.
pub fn decompress(source: &Path, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    check_apart(source, target)?;
    if !metadata(source)?.is_dir() {
        return decompress_file(source, target, options, progress);
    }
    let index = read_index(source)?;
    let shards = packed_shards(source, index.as_ref())?;
    let source_of = |shard: &Path| -> Result<String> {
        let known = index
            .as_ref()
            .and_then(|index| index.shards.iter().find(|one| source.join(&one.file) == *shard));
        let name = known.map_or_else(|| format!("{}.{SOURCE_END}", stem(shard)), |one| one.source.clone());
        plain_name(&name).map(|()| name)
    };
    let source_index = index.as_ref().and_then(|index| index.source_index.as_ref());
    let index_name = source_index.map(|index| index.file.as_str());
    let staged = into_directory(source, target, options, &shards, index_name, progress, |shard, staged, progress| {
        decompress_file(shard, &staged.join(source_of(shard)?), options, progress)
    })?;
    if let Some(SourceIndex { file, text }) = source_index {
        plain_name(file)?;
        staged.write(file, text.as_bytes())?;
    }
    staged.finish()
}

/// Checks a file, or all shards of a directory; with `fast` their structure only, without decoding.
///
/// # Errors
/// `Io`, `Interrupted`. What is wrong with the data is told in the result.
pub fn verify(path: &Path, fast: bool, threads: usize, progress: Progress<'_>) -> Result<Verification> {
    if !metadata(path)?.is_dir() {
        return verify_file(path, fast, threads, progress);
    }
    let index = read_index(path)?;
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
        found.add(verify_file(shard, fast, threads, &|done, of| {
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
            message,
        });
    }
    Ok(found)
}

/// Estimates what compressing a file or directory would do; also the bytes and the number of its files.
///
/// # Errors
/// `Io`, `Source`.
pub fn scan(source: &Path, mode: Mode, threads: usize) -> Result<(Vec<Estimate>, u64, usize)> {
    let files = if metadata(source)?.is_dir() {
        shards(source, SOURCE_END)?
    } else {
        vec![source.to_owned()]
    };
    let mut estimates = Vec::new();
    let mut bytes = 0;
    for file in &files {
        let checkpoint = Checkpoint::open(file)?;
        bytes += checkpoint.file_bytes();
        let model = Model::of(&checkpoint);
        estimates.extend(crate::pool::run(threads, 0, &crate::no_progress, |_| scan_model(&model, mode)).at_path(file)?);
    }
    Ok((estimates, bytes, files.len()))
}

/// The compressed files of a path: itself, or the shards of a directory.
///
/// # Errors
/// `Io`, `Format`; `NotFound` for a directory without any.
pub fn packed_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    packed_shards(path, read_index(path)?.as_ref())
}

fn compress_joined(shards: &[PathBuf], target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    let opened = shards
        .iter()
        .map(|shard| Checkpoint::open(shard))
        .collect::<Result<Vec<Checkpoint<FileMap>>>>()?;
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
    let source_bytes = opened.iter().map(Checkpoint::file_bytes).sum();
    compress_model(
        &Model {
            tensors,
            metadata,
            header,
            source_bytes,
        },
        target,
        options,
        progress,
    )
}

/// A directory in the making, under a temporary name beside its own.
struct Staged {
    directory: tempfile::TempDir,
    target: PathBuf,
    force: bool,
    summary: Summary,
}

impl Staged {
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let sink = Sink::create(&self.directory.path().join(name), false)?;
        sink.write_at(bytes, 0)?;
        sink.finish()
    }

    fn finish(self) -> Result<Summary> {
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
                let aside = tempfile::Builder::new()
                    .prefix(".bigsmall-")
                    .tempdir_in(parent(&target))
                    .map_err(at)?;
                fs::rename(&target, aside.path().join("old")).map_err(at)?;
                if let Err(error) = fs::rename(&staged, &target) {
                    let _ = fs::rename(aside.path().join("old"), &target);
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

/// Makes each shard in a new directory, then copies what else the source holds, but for its index of safetensors files: that is `index_name`.
fn into_directory(
    source: &Path,
    target: &Path,
    options: &Options,
    shards: &[PathBuf],
    index_name: Option<&str>,
    progress: Progress<'_>,
    mut make: impl FnMut(&Path, &Path, Progress<'_>) -> Result<Summary>,
) -> Result<Staged> {
    if !options.force && target.symlink_metadata().is_ok() {
        return Err(Error::io(std::io::ErrorKind::AlreadyExists.into(), target));
    }
    if target.is_file() {
        return Err(Error::io(std::io::ErrorKind::NotADirectory.into(), target));
    }
    // The source would be removed with the directory that the output replaces.
    if let (Ok(inner), Ok(outer)) = (source.canonicalize(), target.canonicalize())
        && inner.starts_with(outer)
    {
        return Err(Error::option("the source lies in the target").at_path(target));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".bigsmall-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let directory = builder.tempdir_in(parent(target)).map_err(|error| Error::io(error, target))?;
    let sizes = shards
        .iter()
        .map(|shard| Ok(metadata(shard)?.len()))
        .collect::<Result<Vec<u64>>>()?;
    let total = sizes.iter().sum();
    let mut summary = Summary::default();
    let mut before = 0;
    for (shard, bytes) in shards.iter().zip(sizes) {
        let one = make(shard, directory.path(), &|done, of| {
            progress(before + scaled(done, of, bytes), total)
        })?;
        summary.source_bytes += one.source_bytes;
        summary.compressed_bytes += one.compressed_bytes;
        summary.n_tensors += one.n_tensors;
        summary.outputs.extend(one.outputs);
        before += bytes;
    }
    copy_others(source, directory.path(), &|name| {
        name == INDEX || Some(name) == index_name || is_weights(name)
    })?;
    Ok(Staged {
        directory,
        target: target.to_owned(),
        force: options.force,
        summary,
    })
}

/// Whether a file of a model directory is compressed, or is the result of that, rather than carried along.
fn is_weights(name: &str) -> bool {
    let end = Path::new(name).extension();
    [SOURCE_END, PACKED_END].iter().any(|one| end == Some(OsStr::new(one)))
}

/// Copies all files of a directory, and those beneath it, but for files of the directory itself that are to be `left_out`.
fn copy_others(from: &Path, to: &Path, left_out: &dyn Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(from).map_err(|error| Error::io(error, from))? {
        let path = entry.map_err(|error| Error::io(error, from))?.path();
        let name = file_name(&path);
        let at = |error| Error::io(error, &path);
        let copy = to.join(&name);
        if metadata(&path)?.is_dir() {
            // What begins with a dot is some tool's own: version control, caches, downloads.
            if !name.starts_with('.') {
                fs::create_dir(&copy).map_err(at)?;
                copy_others(&path, &copy, &|_| false)?;
            }
            continue;
        }
        if !left_out(&name) {
            fs::copy(&path, &copy).map_err(at)?;
        }
    }
    Ok(())
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
        let message = format!("the directory holds no .{end} files");
        let error = std::io::Error::new(std::io::ErrorKind::NotFound, message.clone());
        return Err(Error::new(crate::Kind::Io(error), message).at_path(directory));
    }
    Ok(found)
}

fn packed_shards(directory: &Path, index: Option<&Index>) -> Result<Vec<PathBuf>> {
    let Some(index) = index else { return shards(directory, PACKED_END) };
    let mut paths = Vec::with_capacity(index.shards.len());
    for shard in &index.shards {
        plain_name(&shard.file).at_path(&directory.join(INDEX))?;
        let path = directory.join(&shard.file);
        metadata(&path)?;
        paths.push(path);
    }
    Ok(paths)
}

fn read_index(directory: &Path) -> Result<Option<Index>> {
    let path = directory.join(INDEX);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(|error| Error::io(error, &path))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|error| Error::format(format!("not a bigsmall index: {error}")).at_path(&path))?;
    if index.format != INDEX_FORMAT || index.version != INDEX_VERSION {
        return Err(Error::new(crate::Kind::Version, "an index of a format that this release does not know").at_path(&path));
    }
    if index.shards.is_empty() {
        return Err(Error::format("an index without shards").at_path(&path));
    }
    Ok(Some(index))
}

fn source_index(directory: &Path) -> Result<Option<SourceIndex>> {
    let at = |error| Error::io(error, directory);
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .map_err(at)?
        .map(|entry| Ok(entry.map_err(at)?.path()))
        .collect::<Result<_>>()?;
    found.retain(|path| file_name(path).ends_with(SOURCE_INDEX_END));
    found.sort();
    let Some(path) = found.first() else { return Ok(None) };
    let text = fs::read_to_string(path).map_err(|error| Error::io(error, path))?;
    Ok(Some(SourceIndex {
        file: file_name(path),
        text,
    }))
}

/// Refuses names that lead out of the directory.
fn plain_name(name: &str) -> Result<()> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(()),
        _ => Err(Error::format(format!("{name:?} is not the name of a file in this directory"))),
    }
}

fn check_apart(source: &Path, target: &Path) -> Result<()> {
    match (source.canonicalize(), target.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => Err(Error::option("source and target are the same").at_path(target)),
        _ => Ok(()),
    }
}

fn metadata(path: &Path) -> Result<fs::Metadata> {
    fs::metadata(path).map_err(|error| Error::io(error, path))
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn scaled(done: u64, of: u64, bytes: u64) -> u64 {
    if of == 0 {
        0
    } else {
        (done as u128 * bytes as u128 / of as u128) as u64
    }
}
