//! Tensors of a `.bs` file into memory.

use crate::buffer::Buffer;
use crate::container::reader::Reader;
use crate::error::{Error, Result};
use crate::options::Progress;
use crate::pool::{self, Ticker};
use crate::source::ReadAt;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// Raw bytes from which a thread for each core is worth waking: less is decoded by the calling one.
const THREADS_BYTES: u64 = 1 << 20;

/// Words of a tensor that are wanted.
pub struct Words {
    /// Index of the tensor.
    pub tensor: usize,
    /// Which of its words.
    pub range: Range<u64>,
}

/// Decodes tensors, several at a time, each into memory of its own. Checksums of blocks are checked, digests of tensors are not.
///
/// # Errors
/// `Interrupted`, or `Option` for the threads. What is wrong with one tensor is returned in its place.
pub fn load<S: ReadAt>(reader: &Reader<S>, tensors: &[usize], threads: usize, progress: Progress<'_>) -> Result<Vec<Result<Buffer>>> {
    let whole = |&tensor: &usize| Words {
        tensor,
        range: 0..reader.header().entries[tensor].n_words(),
    };
    load_words(reader, &tensors.iter().map(whole).collect::<Vec<_>>(), threads, progress)
}

/// Decodes parts of tensors as [`load`] decodes whole ones, reading only the blocks that hold them.
///
/// # Errors
/// Those of [`load`].
pub fn load_words<S: ReadAt>(reader: &Reader<S>, wanted: &[Words], threads: usize, progress: Progress<'_>) -> Result<Vec<Result<Buffer>>> {
    let total = wanted.iter().map(|words| bytes_of(reader, words)).sum();
    if total < THREADS_BYTES {
        let opened = wanted.iter().map(|words| open(reader, words)).collect();
        let loaded = decode(reader, wanted, opened, |jobs, decode_one| {
            jobs.into_iter().for_each(decode_one);
            Ok(())
        })?;
        return if progress(total, total) {
            Ok(loaded)
        } else {
            Err(Error::interrupted())
        };
    }
    pool::run(threads, total, progress, |ticker| {
        let opened = wanted.par_iter().map(|words| open(reader, words)).collect();
        decode(reader, wanted, opened, |jobs, decode_one| {
            jobs.into_par_iter().try_for_each(|job| advance(ticker, job, decode_one))
        })
    })
}

/// A part of what is wanted, and where it goes.
struct Job<'a> {
    at: usize,
    range: Range<u64>,
    out: &'a mut [u8],
}

type DecodeOne<'a> = &'a (dyn Fn(Job<'_>) + Sync);

fn advance(ticker: &Ticker, job: Job<'_>, decode_one: DecodeOne<'_>) -> Result<()> {
    let n_bytes = job.out.len() as u64;
    decode_one(job);
    ticker.advance(n_bytes)
}

fn bytes_of<S: ReadAt>(reader: &Reader<S>, words: &Words) -> u64 {
    (words.range.end - words.range.start) * reader.header().entries[words.tensor].dtype.layout().word_bytes() as u64
}

/// Memory for the words, and the parts in which they are decoded.
fn open<S: ReadAt>(reader: &Reader<S>, words: &Words) -> Result<(Buffer, Vec<Range<u64>>)> {
    // First, since a tensor that is too large for memory has too many parts for it as well.
    let buffer = Buffer::new(bytes_of(reader, words))?;
    let within = |part: Range<u64>| part.start.max(words.range.start)..part.end.min(words.range.end);
    let parts = reader.parts(words.tensor)?.map(within).filter(|part| !part.is_empty()).collect();
    Ok((buffer, parts))
}

/// Has `run` do all jobs.
fn decode<S: ReadAt>(
    reader: &Reader<S>,
    wanted: &[Words],
    opened: Vec<Result<(Buffer, Vec<Range<u64>>)>>,
    run: impl FnOnce(Vec<Job<'_>>, DecodeOne<'_>) -> Result<()>,
) -> Result<Vec<Result<Buffer>>> {
    let (mut results, parts): (Vec<Result<Buffer>>, Vec<Vec<Range<u64>>>) = (opened.into_iter())
        .map(|one| match one {
            Ok((buffer, parts)) => (Ok(buffer), parts),
            Err(error) => (Err(error), Vec::new()),
        })
        .unzip();
    let failed: Mutex<Vec<(usize, Error)>> = Mutex::default();
    let mut jobs = Vec::new();
    for (at, (result, parts)) in results.iter_mut().zip(parts).enumerate() {
        let Ok(buffer) = result else { continue };
        let width = reader.header().entries[wanted[at].tensor].dtype.layout().word_bytes();
        let mut rest = &mut buffer[..];
        for range in parts {
            let (out, next) = rest.split_at_mut((range.end - range.start) as usize * width);
            rest = next;
            jobs.push(Job { at, range, out });
        }
    }
    run(jobs, &|Job { at, range, out }| {
        if let Err(error) = reader.read_words(wanted[at].tensor, range, out) {
            pool::lock(&failed).push((at, error));
        }
    })?;
    let mut failed = std::mem::take(&mut *pool::lock(&failed));
    // Of several damaged blocks of a tensor the first is told, whichever thread met one first.
    failed.sort_by_key(|(at, error)| (*at, std::cmp::Reverse(error.block)));
    for (at, error) in failed {
        results[at] = Err(error);
    }
    Ok(results)
}
