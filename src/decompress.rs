//! A `.bs` file back to the checkpoint it was made of.

use crate::buffer::scratch;
use crate::compress::Summary;
use crate::container::reader::Reader;
use crate::digest::Md5Writer;
use crate::error::{Error, Place, Result};
use crate::options::{Options, Progress, no_progress};
use crate::pool::{self, Ticker};
use crate::simd::Isa;
use crate::sink::{Memory, Sink, WriteAt};
use crate::source::{FileSource, ReadAt};
use crate::weights::Weights;
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// Decompresses a file that lies in memory. Every tensor's md5 is checked.
///
/// # Errors
/// `Format`, `Version`, `Corrupt`; `Io` of kind `OutOfMemory` if the checkpoint does not fit into memory.
pub fn decompress_bytes(packed: &[u8], threads: usize) -> Result<Vec<u8>> {
    decompress_bytes_with(packed, threads, Isa::current()?)
}

/// [`decompress_bytes`] with the given instruction set. Every one gives the same bytes.
///
/// # Errors
/// Those of [`decompress_bytes`].
pub fn decompress_bytes_with(packed: &[u8], threads: usize, isa: Isa) -> Result<Vec<u8>> {
    in_memory(&Reader::open_with(packed, isa)?, threads)
}

/// Applies a patch that lies in memory to its base.
///
/// # Errors
/// Those of [`decompress_bytes`]; `Base` if it is not the base that the patch was made from.
pub fn decompress_bytes_on(packed: &[u8], base: Arc<Weights>, threads: usize) -> Result<Vec<u8>> {
    decompress_bytes_on_with(packed, base, threads, Isa::current()?)
}

/// [`decompress_bytes_on`] with the given instruction set. Every one gives the same bytes.
///
/// # Errors
/// Those of [`decompress_bytes_on`].
pub fn decompress_bytes_on_with(packed: &[u8], base: Arc<Weights>, threads: usize, isa: Isa) -> Result<Vec<u8>> {
    in_memory(&Reader::open_on_with(packed, base, isa)?, threads)
}

fn in_memory(reader: &Reader<&[u8]>, threads: usize) -> Result<Vec<u8>> {
    reader.check_base()?;
    let n_bytes = reader.header().source_bytes();
    let out = Memory::with_capacity(n_bytes)?;
    pool::run(threads, reader.header().raw_bytes(), &no_progress, |ticker| {
        restore(reader, ticker, &|bytes, offset| out.write_at(bytes, offset))
    })?;
    Ok(out.into_bytes())
}

/// Decompresses one file to one checkpoint file.
pub(crate) fn decompress_file(
    source: &Path,
    base: Option<&Arc<Weights>>,
    target: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Summary> {
    let source = FileSource::open(source)?;
    let reader = match base {
        Some(base) => Reader::open_on(source, base.clone())?,
        None => Reader::open(source)?,
    };
    if reader.header().fingerprint.is_some() {
        pool::run(options.threads, 0, progress, |_| reader.check_base())?;
    }
    let sink = Sink::create(target, options.force)?;
    let write = |bytes: &[u8], offset: u64| sink.write_at(bytes, offset);
    pool::run(options.threads, reader.header().raw_bytes(), progress, |ticker| {
        restore(&reader, ticker, &write)
    })?;
    sink.finish()?;
    Ok(Summary {
        source_bytes: reader.header().source_bytes(),
        compressed_bytes: reader.file_bytes(),
        n_tensors: reader.header().entries.len(),
        outputs: vec![target.to_owned()],
        ..Summary::default()
    })
}

/// Writes header and tensors to their places, and checks each tensor's digest.
pub(crate) fn restore<S: ReadAt>(reader: &Reader<S>, ticker: &Ticker, write: &(impl Fn(&[u8], u64) -> Result<()> + Sync)) -> Result<()> {
    reader.check_gaps()?;
    let header = reader.header();
    let mut start = (header.source_header.len() as u64).to_le_bytes().to_vec();
    start.extend_from_slice(&header.source_header);
    write(&start, 0)?;
    let mut offset = start.len() as u64;
    let mut jobs = Vec::with_capacity(header.entries.len());
    for (tensor, entry) in header.entries.iter().enumerate() {
        jobs.push((tensor, offset));
        offset += entry.raw_bytes;
    }
    jobs.into_par_iter()
        .try_for_each(|(tensor, offset)| restore_tensor(reader, tensor, ticker, |bytes, at| write(bytes, offset + at)))
}

/// Decodes a tensor part by part, hands the parts to `write` with their offsets, and checks the digest of all.
pub(crate) fn restore_tensor<S: ReadAt>(
    reader: &Reader<S>,
    tensor: usize,
    ticker: &Ticker,
    write: impl Fn(&[u8], u64) -> Result<()>,
) -> Result<()> {
    let entry = &reader.header().entries[tensor];
    let width = entry.dtype.layout().word_bytes() as u64;
    let mut digest = (!reader.checks_md5(tensor)).then(Md5Writer::default);
    let mut memory = Vec::new();
    for part in reader.parts(tensor)? {
        let n_bytes = (part.end - part.start) * width;
        if memory.len() < n_bytes as usize {
            memory = scratch(n_bytes).at_tensor(&entry.name)?;
        }
        let buffer = &mut memory[..n_bytes as usize];
        reader.read_words(tensor, part.clone(), buffer)?;
        digest.iter_mut().for_each(|digest| digest.update(buffer));
        write(buffer, part.start * width)?;
        ticker.advance(n_bytes)?;
    }
    if digest.is_some_and(|digest| digest.finish() != entry.md5) {
        return Err(Error::corrupt("its bytes do not match its md5")).at_tensor(&entry.name);
    }
    Ok(())
}
