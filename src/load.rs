//! Tensors of a `.bs` file into memory.

use crate::buffer::Buffer;
use crate::container::reader::Reader;
use crate::error::{Error, Result};
use crate::options::Progress;
use crate::pool;
use crate::source::ReadAt;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// Raw bytes from which a thread for each core is worth starting: smaller tensors are read by a single one.
const THREADS_BYTES: u64 = 1 << 20;

/// Decodes tensors, several at a time, each into memory of its own. Checksums of blocks are checked, digests of tensors are not.
///
/// # Errors
/// `Interrupted`, or `Option` for the threads. What is wrong with one tensor is returned in its place.
pub fn load<S: ReadAt>(reader: &Reader<S>, tensors: &[usize], threads: usize, progress: Progress<'_>) -> Result<Vec<Result<Buffer>>> {
    let total = tensors.iter().map(|&i| reader.header().entries[i].raw_bytes).sum();
    let threads = if total < THREADS_BYTES { 1 } else { threads };
    pool::run(threads, total, progress, |ticker| {
        let opened: Vec<Result<(Buffer, Vec<Range<u64>>)>> = (tensors.par_iter())
            .map(|&tensor| {
                Ok((
                    Buffer::new(reader.header().entries[tensor].raw_bytes)?,
                    reader.parts(tensor)?.collect(),
                ))
            })
            .collect();
        let mut results: Vec<Result<Buffer>> = Vec::with_capacity(opened.len());
        let mut parts: Vec<Vec<Range<u64>>> = Vec::with_capacity(opened.len());
        for one in opened {
            let (buffer, ranges) = match one {
                Ok((buffer, ranges)) => (Ok(buffer), ranges),
                Err(error) => (Err(error), Vec::new()),
            };
            results.push(buffer);
            parts.push(ranges);
        }
        let failed: Mutex<Vec<(usize, Error)>> = Mutex::default();
        let mut jobs = Vec::new();
        for (at, (result, ranges)) in results.iter_mut().zip(parts).enumerate() {
            let Ok(buffer) = result else { continue };
            let width = reader.header().entries[tensors[at]].dtype.layout().word_bytes();
            let mut rest = &mut buffer[..];
            for range in ranges {
                let (out, next) = rest.split_at_mut((range.end - range.start) as usize * width);
                rest = next;
                jobs.push((at, range, out));
            }
        }
        jobs.into_par_iter().try_for_each(|(at, range, out)| {
            let n_bytes = out.len() as u64;
            if let Err(error) = reader.read_words(tensors[at], range, out) {
                pool::lock(&failed).push((at, error));
            }
            ticker.advance(n_bytes)
        })?;
        let mut failed = std::mem::take(&mut *pool::lock(&failed));
        // Of several damaged blocks of a tensor the first is told, whichever thread met one first.
        failed.sort_by_key(|(at, error)| (*at, std::cmp::Reverse(error.block)));
        for (at, error) in failed {
            results[at] = Err(error);
        }
        Ok(results)
    })
}
