//! Sidecars that mend files, as `docs/format/ecc.md` describes them.

mod check;
mod code;
mod examine;
mod field;
mod header;
mod layout;
mod patient;
mod published;
mod restore;
mod write;

use crate::error::{Error, Place, Result};
use crate::options::{Options, Progress};
use crate::pool::{self, Ticker};
use crate::sink::{Memory, Sink};
use crate::source::{FileSource, ReadAt};
use layout::Layout;
use patient::Patient;
use published::Published;
use restore::Plan;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What a sidecar takes, in percent of its file, where nothing else is asked for.
pub const DEFAULT_PERCENT: f64 = 14.0;
/// Ending of a sidecar's name, after the name of its file.
pub(crate) const SIDECAR_END: &str = ".ecc";
/// Intact bytes between two damaged places that are told apart.
const APART_BYTES: u64 = 4096;
/// Bytes that are compared at a time.
const COMPARED_BYTES: u64 = 1 << 20;

/// The name of a file's sidecar.
pub fn sidecar_path(file: &Path) -> PathBuf {
    with_end(file, SIDECAR_END)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// Writes the sidecar of a file, which is to take `percent` of it; returns its bytes.
///
/// # Errors
/// `Io`; `Option` for percents that cannot be met; `Interrupted`. Nothing is left behind under the final name.
pub fn protect(path: &Path, percent: f64, options: &Options, progress: Progress<'_>) -> Result<u64> {
    let file = FileSource::open(path)?;
    let layout = Layout::new(file.n_bytes(), percent).at_path(path)?;
    let sink = Sink::create(&sidecar_path(path), options.force)?;
    let total = 2 * layout.file_bytes;
    pool::run(options.threads, total, progress, |ticker| {
        write::write(&file, layout, &sink, ticker)
    })?;
    sink.finish()?;
    Ok(layout.sidecar_bytes())
}

/// The sidecar of what is in memory.
///
/// # Errors
/// `Option` for percents that cannot be met, and for no bytes.
pub fn protect_bytes(file: &[u8], percent: f64) -> Result<Vec<u8>> {
    let layout = Layout::new(file.len() as u64, percent)?;
    let out = Memory::default();
    write::write(&file, layout, &out, &Ticker::default())?;
    Ok(out.into_bytes())
}

/// The file that a sidecar was made of, from what is left of both.
///
/// # Errors
/// `Corrupt` if it cannot be restored; `Format` or `Version` if that is no sidecar.
pub fn repair_bytes(file: &[u8], sidecar: &[u8]) -> Result<Vec<u8>> {
    let out = Memory::default();
    let ticker = Ticker::default();
    let mending = Mending::of(&file, &sidecar, &ticker)?;
    if mending.file_intact() {
        return Ok(file.to_vec());
    }
    mending.restore(&file, &sidecar, &out, &ticker)?;
    Ok(out.into_bytes())
}

/// What became of a file and its sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub found_bytes: u64,
    /// The bytes that it had.
    pub file_bytes: u64,
    /// Where the file was damaged, places that are near each other taken together.
    pub damaged: Vec<Range<u64>>,
    /// Whether the sidecar was damaged too.
    pub sidecar_damaged: bool,
    /// What was written.
    pub outputs: Vec<PathBuf>,
}

/// How a file is to be mended.
enum Mending {
    Ours(Plan),
    Published {
        header: Published,
        file_bytes: u64,
        is_intact: bool,
    },
}

impl Mending {
    fn of(file: &impl ReadAt, sidecar: &impl ReadAt, ticker: &Ticker) -> Result<Self> {
        if Published::is_one(sidecar)? {
            let header = Published::open(file, sidecar)?;
            let is_intact = header.examine(file, sidecar, ticker)?;
            let file_bytes = file.n_bytes();
            return Ok(Mending::Published {
                header,
                file_bytes,
                is_intact,
            });
        }
        Plan::of(file, sidecar, ticker).map(Mending::Ours)
    }

    fn restore(&self, file: &impl ReadAt, sidecar: &impl ReadAt, out: &impl crate::sink::WriteAt, ticker: &Ticker) -> Result<()> {
        match self {
            Mending::Ours(plan) => plan.restore(file, sidecar, out, ticker),
            Mending::Published { header, .. } => header.restore(file, sidecar, out, ticker),
        }
    }

    fn file_bytes(&self) -> u64 {
        match self {
            Mending::Ours(plan) => plan.layout().file_bytes,
            Mending::Published { file_bytes, .. } => *file_bytes,
        }
    }

    /// Whether the sidecar is as it was written. One of the published package is not looked at beyond what mending needs.
    fn sidecar_intact(&self) -> bool {
        match self {
            Mending::Ours(plan) => plan.sidecar_intact,
            Mending::Published { .. } => true,
        }
    }

    fn file_intact(&self) -> bool {
        match self {
            Mending::Ours(plan) => plan.file_intact,
            Mending::Published { is_intact, .. } => *is_intact,
        }
    }
}

/// A file that was looked at, with its sidecar.
struct Examined {
    path: PathBuf,
    file: Patient<FileSource>,
    sidecar: Patient<FileSource>,
    mending: Mending,
}

impl Examined {
    fn open(path: PathBuf, threads: usize, progress: Progress<'_>) -> Result<Self> {
        let file = Patient(FileSource::open(&path)?);
        let sidecar = Patient(FileSource::open(&sidecar_path(&path))?);
        let total = file.n_bytes() + sidecar.n_bytes();
        let mending = pool::run(threads, total, progress, |ticker| Mending::of(&file, &sidecar, ticker)).at_path(&path)?;
        Ok(Self {
            path,
            file,
            sidecar,
            mending,
        })
    }

    /// Writes what was damaged, file or sidecar, anew.
    fn repair(self, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Repair> {
        let file_bytes = self.mending.file_bytes();
        let mut found = Repair {
            path: self.path.clone(),
            found_bytes: self.file.n_bytes(),
            file_bytes,
            sidecar_damaged: !self.mending.sidecar_intact(),
            ..Repair::default()
        };
        if self.mending.file_intact() && self.mending.sidecar_intact() {
            return Ok(found);
        }
        if is_same(&self.path, target) {
            return Err(Error::option("source and target are the same").at_path(target));
        }
        let create = |path: &Path| Sink::create(path, options.force);
        let restored = (!self.mending.file_intact()).then(|| create(target)).transpose()?;
        let sidecar = match &self.mending {
            Mending::Ours(plan) => Some((create(&sidecar_path(target))?, plan.layout())),
            Mending::Published { .. } => None,
        };
        pool::run(options.threads, 3 * file_bytes, progress, |ticker| {
            if let Some(restored) = &restored {
                self.mending.restore(&self.file, &self.sidecar, restored, ticker)?;
                found.damaged = differences(&self.file, restored)?;
            }
            match (&sidecar, &restored) {
                (Some((sidecar, layout)), Some(file)) => write::write(file, *layout, sidecar, ticker),
                (Some((sidecar, layout)), None) => write::write(&self.file, *layout, sidecar, ticker),
                _ => Ok(()),
            }
        })
        .at_path(&self.path)?;
        if let Some(sink) = restored {
            sink.finish()?;
            found.outputs.push(target.to_owned());
        }
        if let Some((sink, _)) = sidecar {
            sink.finish()?;
            found.outputs.push(sidecar_path(target));
        }
        Ok(found)
    }
}

/// Mends a file with its sidecar, or every file of a directory that has one. What was damaged is written to `target`: a file, or a directory
/// for a directory's. The originals stay as they are.
///
/// # Errors
/// `Corrupt` if any of them cannot be mended, in which case nothing is written; `Format`, `Version`, `Io`, `Option`, `Interrupted`.
pub fn repair(source: &Path, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Vec<Repair>> {
    let is_directory = source.metadata().map_err(|error| Error::io(error, source))?.is_dir();
    if !is_directory {
        let target_of = |_: &Path| target.to_owned();
        return repair_all(vec![source.to_owned()], target_of, options, progress);
    }
    let mut files = Vec::new();
    let at = |error| Error::io(error, source);
    for entry in std::fs::read_dir(source).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let name = path.to_str().and_then(|name| name.strip_suffix(SIDECAR_END)).map(PathBuf::from);
        files.extend(name);
    }
    files.sort();
    if is_same(source, target) {
        return Err(Error::option("source and target are the same").at_path(target));
    }
    if files.is_empty() {
        let message = format!("the directory holds no {SIDECAR_END} files");
        let error = std::io::Error::new(std::io::ErrorKind::NotFound, message.clone());
        return Err(Error::new(crate::Kind::Io(error), message).at_path(source));
    }
    if let Err(error) = std::fs::create_dir(target)
        && !target.is_dir()
    {
        return Err(Error::io(error, target));
    }
    let target_of = |file: &Path| target.join(file.file_name().unwrap_or_default());
    let repairs = repair_all(files, target_of, options, progress);
    // Empty if nothing was damaged, or nothing could be mended.
    let _ = std::fs::remove_dir(target);
    repairs
}

fn repair_all(files: Vec<PathBuf>, target_of: impl Fn(&Path) -> PathBuf, options: &Options, progress: Progress<'_>) -> Result<Vec<Repair>> {
    // All are looked at before the first is written.
    let open = |path| Examined::open(path, options.threads, progress);
    let opened = files.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    opened
        .into_iter()
        .map(|one| {
            let target = target_of(&one.path);
            one.repair(&target, options, progress)
        })
        .collect()
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Where a file differs from what it was, places that are near each other taken together.
fn differences(file: &impl ReadAt, restored: &impl ReadAt) -> Result<Vec<Range<u64>>> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut add = |range: Range<u64>| match found.last_mut() {
        Some(last) if range.start <= last.end + APART_BYTES => last.end = range.end,
        _ => found.push(range),
    };
    let common = file.n_bytes().min(restored.n_bytes());
    for start in (0..common).step_by(COMPARED_BYTES as usize) {
        let n = (common - start).min(COMPARED_BYTES) as usize;
        a.resize(n, 0);
        b.resize(n, 0);
        file.read_at(&mut a, start)?;
        restored.read_at(&mut b, start)?;
        if a == b {
            continue;
        }
        for (i, _) in a.iter().zip(&b).enumerate().filter(|(_, (a, b))| a != b) {
            add(start + i as u64..start + i as u64 + 1);
        }
    }
    let longest = file.n_bytes().max(restored.n_bytes());
    if common < longest {
        add(common..longest);
    }
    Ok(found)
}
