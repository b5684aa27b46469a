//! Whether a file still holds what was put into it.

mod sample;
mod source;

use crate::container::reader::Reader;
use crate::decompress::restore_tensor;
use crate::error::{Error, Kind, Place, Result};
use crate::options::Progress;
use crate::pool;
use crate::source::FileSource;
use crate::weights::Weights;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How closely to look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Depth {
    /// Structure, header and block directories, without decoding.
    Fast,
    /// The same, and the checksums of blocks that are chosen at random.
    Sample {
        /// Share of the blocks.
        share: f64,
        /// What the choice follows from.
        seed: u64,
    },
    /// Every tensor decoded, and compared with its digest.
    #[default]
    Full,
}

/// What to verify.
#[derive(Clone, Default)]
pub struct VerifyOptions {
    /// How closely to look.
    pub depth: Depth,
    /// The checkpoint that the files were made of, to be compared with: safetensors or `.bs`, a file or directory.
    pub source: Option<PathBuf>,
    /// What patches were made on.
    pub base: Option<Arc<Weights>>,
    /// Threads to use; 0 for all cores.
    pub threads: usize,
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// The tensor, if it is within one.
    pub tensor: Option<String>,
    /// The block, counted through the tensor's blob.
    pub block: Option<u64>,
    /// The block's bytes in the file.
    pub bytes: Option<Range<u64>>,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    /// The problem that an error tells, if the data is at fault; otherwise the error.
    pub(crate) fn of(error: Error, path: &Path) -> Result<Problem> {
        if !error.is_data() {
            return Err(error.at_path(path));
        }
        let Error {
            message,
            path: at,
            tensor,
            block,
            ..
        } = error;
        Ok(Problem {
            path: at.unwrap_or_else(|| path.to_owned()),
            tensor,
            block,
            bytes: None,
            message,
        })
    }
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Tensors that the files name.
    pub n_tensors: usize,
    /// Tensors that were decoded and digested.
    pub n_checked: usize,
    /// Bytes of all tensors.
    pub raw_bytes: u64,
    /// Blocks of the files, and those that were looked at, where a sample was asked for.
    pub n_blocks: u64,
    /// Blocks whose checksums were compared.
    pub n_sampled: u64,
    /// What is wrong, in file order.
    pub problems: Vec<Problem>,
}

impl Verification {
    /// Adds what another file showed.
    pub(crate) fn add(&mut self, other: Verification) {
        self.n_tensors += other.n_tensors;
        self.n_checked += other.n_checked;
        self.raw_bytes += other.raw_bytes;
        self.n_blocks += other.n_blocks;
        self.n_sampled += other.n_sampled;
        self.problems.extend(other.problems);
    }

    /// Share of the blocks of which, were so many damaged, a sample like this one would have met one with that probability; None without a
    /// sample. With all blocks looked at, that is any share.
    pub fn found_share(&self, confidence: f64) -> Option<f64> {
        if self.n_sampled == 0 {
            return None;
        }
        if self.n_sampled == self.n_blocks {
            return Some(0.0);
        }
        // Blocks are not looked at twice, so that fewer samples miss all damage than if each were chosen among all.
        Some(1.0 - (1.0 - confidence).powf(1.0 / self.n_sampled as f64))
    }
}

/// Verifies one file.
pub(crate) fn verify_file(path: &Path, options: &VerifyOptions, progress: Progress<'_>) -> Result<Verification> {
    let open = |file| match &options.base {
        Some(base) => Reader::open_on(file, base.clone()),
        None => Reader::open(file),
    };
    let reader = match FileSource::open(path).and_then(open) {
        Ok(reader) => reader,
        Err(error) => {
            return Ok(Verification {
                problems: vec![Problem::of(error, path)?],
                ..Verification::default()
            });
        }
    };
    let header = reader.header();
    let mut found = Verification {
        n_tensors: header.entries.len(),
        raw_bytes: header.raw_bytes(),
        ..Verification::default()
    };
    if let Err(error) = reader.check_gaps() {
        found.problems.push(Problem::of(error, path)?);
    }
    let total = if options.depth == Depth::Full { header.raw_bytes() } else { 0 };
    let results = pool::run(options.threads, total, progress, |ticker| {
        let check = |tensor| match options.depth {
            Depth::Full => restore_tensor(&reader, tensor, ticker, |_, _| Ok(())),
            _ => reader.check_structure(tensor).and_then(|()| ticker.advance(0)),
        };
        Ok((0..header.entries.len()).into_par_iter().map(check).collect::<Vec<Result<()>>>())
    })?;
    let mut located = HashMap::new();
    for (tensor, result) in results.into_iter().enumerate() {
        let Err(error) = result else { continue };
        if matches!(error.kind, Kind::Interrupted) {
            return Err(error);
        }
        let problem = Problem::of(error.at_tensor(&header.entries[tensor].name), path)?;
        found.problems.extend(locate(&reader, tensor, problem, &mut located)?);
    }
    found.n_checked = if options.depth == Depth::Full { header.entries.len() } else { 0 };
    if let Depth::Sample { share, seed } = options.depth
        && found.problems.is_empty()
    {
        sample::verify(&reader, path, share, seed, options.threads, &mut found)?;
    }
    Ok(found)
}

/// Damaged blocks of a blob: their numbers and bytes.
type Damaged = Vec<(u64, Range<u64>)>;

/// The same problem for every damaged block of a tensor, with the blocks' bytes. Of tensors that share a blob, the first tells of all blocks.
fn locate(reader: &Reader<FileSource>, tensor: usize, problem: Problem, located: &mut HashMap<usize, Damaged>) -> Result<Vec<Problem>> {
    let Some(blob) = reader.blob_of(tensor) else {
        return Ok(vec![problem]);
    };
    let is_first = !located.contains_key(&blob);
    if is_first {
        located.insert(blob, damaged_blocks(reader, blob)?);
    }
    let damaged = &located[&blob];
    if problem.block.is_none() || damaged.is_empty() {
        return Ok(vec![problem]);
    }
    let of = |(block, bytes): &(u64, Range<u64>)| Problem {
        block: Some(*block),
        bytes: Some(bytes.clone()),
        ..problem.clone()
    };
    if is_first {
        return Ok(damaged.iter().map(of).collect());
    }
    let known = damaged.iter().find(|(block, _)| Some(*block) == problem.block);
    Ok(vec![known.map_or_else(|| problem.clone(), of)])
}

/// None if the blob's index or heads are damaged, so that its blocks are not known.
fn damaged_blocks(reader: &Reader<FileSource>, blob: usize) -> Result<Damaged> {
    let blocks = match reader.blocks(blob) {
        Err(error) if error.is_data() => return Ok(Vec::new()),
        blocks => blocks?,
    };
    let mut damaged = Vec::new();
    for (number, block) in blocks.into_iter().enumerate() {
        if !reader.is_intact(&block)? {
            damaged.push((number as u64, block.range));
        }
    }
    Ok(damaged)
}

/// Compares the tensors of verified files with those of their source, and adds what differs.
pub(crate) fn compare(path: &Path, options: &VerifyOptions, found: &mut Verification, progress: Progress<'_>) -> Result<()> {
    let Some(source) = &options.source else { return Ok(()) };
    if !found.problems.is_empty() {
        // What is damaged has been told already.
        return Ok(());
    }
    found.problems = source::differences(path, source, options, progress).at_path(source)?;
    Ok(())
}
