//! Tensors of a `.bs` file into memory.

use crate::buffer::Buffer;
use crate::container::reader::Reader;
use crate::error::{Error, Result};
use crate::options::Progress;
use crate::pool;
use crate::source::ReadAt;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Raw bytes from which a thread for each core is worth waking: less is decoded by the calling one.
const THREADS_BYTES: u64 = 1 << 20;

/// Words of a tensor that are wanted.
pub struct Words {
    /// Index of the tensor.
    pub tensor: usize,
    /// Which of its words.
    pub range: Range<u64>,
}

impl Words {
    /// All words of a tensor.
    pub fn all<S: ReadAt>(reader: &Reader<S>, tensor: usize) -> Self {
        let range = 0..reader.header().entries[tensor].n_words();
        Self { tensor, range }
    }
}

/// Words of a tensor, and memory of their size that they go to.
pub struct Target<'a> {
    /// The words.
    pub words: Words,
    /// The memory.
    pub out: &'a mut [u8],
}

/// Decodes tensors, several at a time, each into memory of its own. Checksums of blocks are checked, digests of tensors are not.
///
/// # Errors
/// `Interrupted`, or `Option` for the threads. What is wrong with one tensor is returned in its place.
pub fn load<S: ReadAt>(reader: &Reader<S>, tensors: &[usize], threads: usize, progress: Progress<'_>) -> Result<Vec<Result<Buffer>>> {
    load_words(
        reader,
        tensors.iter().map(|&tensor| Words::all(reader, tensor)).collect(),
        threads,
        progress,
    )
}

/// Decodes parts of tensors as [`load`] decodes whole ones, reading only the blocks that hold them.
///
/// # Errors
/// Those of [`load`].
pub fn load_words<S: ReadAt>(
    reader: &Reader<S>,
    wanted: Vec<Words>,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Vec<Result<Buffer>>> {
    // Before anything is counted, since words that are too many for memory have too many parts for it as well.
    let mut results: Vec<Result<Buffer>> = wanted.iter().map(|words| Buffer::new(n_bytes(reader, words))).collect();
    let (at, targets): (Vec<usize>, Vec<Target>) = (results.iter_mut().zip(wanted).enumerate())
        .filter_map(|(at, (buffer, words))| buffer.as_mut().ok().map(|out| (at, Target { words, out })))
        .unzip();
    for (target, error) in load_into(reader, targets, threads, progress)? {
        results[at[target]] = Err(error);
    }
    Ok(results)
}

/// Decodes words into memory that is there, and returns what is wrong with which of the targets. What is in these is then undefined.
///
/// # Errors
/// `Interrupted`; `Option` for the threads, or for memory of another size than its words.
pub fn load_into<S: ReadAt>(
    reader: &Reader<S>,
    targets: Vec<Target<'_>>,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Vec<(usize, Error)>> {
    for Target { words, out } in &targets {
        let needed = n_bytes(reader, words);
        if out.len() as u64 != needed {
            let message = format!("{} bytes of memory were given for {needed}", out.len());
            return Err(Error::option(message).at_tensor(&reader.header().entries[words.tensor].name));
        }
    }
    let total = targets.iter().map(|target| target.out.len() as u64).sum();
    let failed: Mutex<Vec<(usize, Error)>> = Mutex::default();
    let decode = |job: Job<'_>| {
        if let Err(error) = reader.read_words(job.tensor, job.range, job.out) {
            pool::lock(&failed).push((job.target, error));
        }
    };
    if total < THREADS_BYTES {
        let parts = targets.iter().map(|target| parts(reader, &target.words)).collect();
        jobs(reader, targets, parts, &failed).into_iter().for_each(decode);
        if !progress(total, total) {
            return Err(Error::interrupted());
        }
    } else {
        pool::run(threads, total, progress, |ticker| {
            let parts = targets.par_iter().map(|target| parts(reader, &target.words)).collect();
            jobs(reader, targets, parts, &failed).into_par_iter().try_for_each(|job| {
                let n_bytes = job.out.len() as u64;
                decode(job);
                ticker.advance(n_bytes)
            })
        })?;
    }
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Of several damaged blocks of a tensor the first is told, whichever thread met one first.
    failed.sort_by_key(|(target, error)| (*target, error.block));
    failed.dedup_by_key(|(target, _)| *target);
    Ok(failed)
}

fn n_bytes<S: ReadAt>(reader: &Reader<S>, words: &Words) -> u64 {
    (words.range.end - words.range.start) * width(reader, words.tensor) as u64
}

fn width<S: ReadAt>(reader: &Reader<S>, tensor: usize) -> usize {
    reader.header().entries[tensor].dtype.layout().word_bytes()
}

/// A part of a target.
struct Job<'a> {
    target: usize,
    tensor: usize,
    range: Range<u64>,
    out: &'a mut [u8],
}

/// The parts in which words are decoded.
fn parts<S: ReadAt>(reader: &Reader<S>, words: &Words) -> Result<Vec<Range<u64>>> {
    let within = |part: Range<u64>| part.start.max(words.range.start)..part.end.min(words.range.end);
    Ok(reader.parts(words.tensor)?.map(within).filter(|part| !part.is_empty()).collect())
}

/// The jobs of all targets whose parts are known.
fn jobs<'a, S: ReadAt>(
    reader: &Reader<S>,
    targets: Vec<Target<'a>>,
    parts: Vec<Result<Vec<Range<u64>>>>,
    failed: &Mutex<Vec<(usize, Error)>>,
) -> Vec<Job<'a>> {
    let mut jobs = Vec::new();
    for (at, (target, parts)) in targets.into_iter().zip(parts).enumerate() {
        let parts = parts.unwrap_or_else(|error| {
            pool::lock(failed).push((at, error));
            Vec::new()
        });
        let tensor = target.words.tensor;
        let mut rest = target.out;
        for range in parts {
            let (out, next) = rest.split_at_mut((range.end - range.start) as usize * width(reader, tensor));
            rest = next;
            jobs.push(Job {
                target: at,
                tensor,
                range,
                out,
            });
        }
    }
    jobs
}
