//! A checkpoint to a `.bs` file.

mod blobs;
mod content;
mod digests;
mod job;
mod model;
mod pairing;
pub(crate) mod published;
mod record;

pub(crate) use model::Model;

use crate::codec::{Coded, Spare};
use crate::container::header::Record;
use crate::container::writer::{self, Body};
use crate::error::Result;
use crate::options::{Format, Mode, Options, Progress, no_progress};
use crate::pool::{self, Ticker};
use crate::safetensors::Checkpoint;
use crate::simd::Isa;
use crate::sink::Sink;
use crate::survey::{Handling, Item, survey};
use crate::weights::Weights;
use blobs::BlobWriter;
use digests::Digests;
use job::{Job, Part};
use pairing::{Pairing, pair};
use rayon::prelude::*;
use std::path::Path;

/// Raw bytes that are encoded between two writes, which bounds what waits in memory.
const BATCH_BYTES: usize = 96 << 20;
/// Raw bytes up to which the blobs stay in memory until the header is known.
const MEMORY_BYTES: usize = 64 << 20;

/// What became of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the source files.
    pub source_bytes: u64,
    /// Bytes of the compressed files.
    pub compressed_bytes: u64,
    /// Tensors.
    pub n_tensors: usize,
    /// Files written, model files only.
    pub outputs: Vec<std::path::PathBuf>,
    /// What a patch has in common with its base.
    pub matched: Matched,
}

/// What a model has in common with a base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Tensors that have something like them in the base.
    pub n_tensors: usize,
    /// Those of them that are stored as differences, because that is smaller.
    pub n_differences: usize,
    /// Bytes of matched tensors that were looked at, all or a sample of them.
    pub looked_bytes: u64,
    /// How many of these are others than in the base.
    pub changed_bytes: u64,
}

impl std::ops::AddAssign for Matched {
    fn add_assign(&mut self, other: Matched) {
        self.n_tensors += other.n_tensors;
        self.n_differences += other.n_differences;
        self.looked_bytes += other.looked_bytes;
        self.changed_bytes += other.changed_bytes;
    }
}

/// Compresses a file, all of whose tensors are in memory.
///
/// # Errors
/// `Source` if `source` is not a valid safetensors file.
pub fn compress_bytes(source: &[u8], options: &Options) -> Result<Vec<u8>> {
    compress_bytes_with(source, options, Isa::current()?)
}

/// [`compress_bytes`] with the given instruction set. Every one gives the same bytes.
///
/// # Errors
/// Those of [`compress_bytes`].
pub fn compress_bytes_with(source: &[u8], options: &Options, isa: Isa) -> Result<Vec<u8>> {
    let checkpoint = Checkpoint::parse(source)?;
    Ok(in_memory(&Model::of(&checkpoint), options, isa, &no_progress)?.0)
}

/// Compresses a file to a patch, all of whose tensors are in memory.
///
/// # Errors
/// Those of [`compress_bytes`]; as for reading the base.
pub fn compress_bytes_on(source: &[u8], base: &Weights, options: &Options) -> Result<Vec<u8>> {
    compress_bytes_on_with(source, base, options, Isa::current()?)
}

/// [`compress_bytes_on`] with the given instruction set. Every one gives the same bytes.
///
/// # Errors
/// Those of [`compress_bytes_on`].
pub fn compress_bytes_on_with(source: &[u8], base: &Weights, options: &Options, isa: Isa) -> Result<Vec<u8>> {
    let checkpoint = Checkpoint::parse(source)?;
    Ok(smaller_in_memory(&Model::of(&checkpoint).on(Some(base)), options, isa, &no_progress)?.0)
}

/// About how many bytes the header of a model's file takes.
///
/// # Errors
/// `Source` if it is longer than a reader takes.
pub(crate) fn likely_header_bytes(model: &Model<'_>, mode: Mode) -> Result<u64> {
    Ok(record::likely(model, mode).to_bytes()?.len() as u64)
}

/// Compresses what is in memory or mapped to a file.
pub(crate) fn compress_model(model: &Model<'_>, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    let isa = Isa::current()?;
    let sink = Sink::create(target, options.force)?;
    let raw_bytes = model.raw_bytes();
    let (compressed_bytes, matched) = if raw_bytes <= MEMORY_BYTES as u64 {
        let (file, matched) = smaller_in_memory(model, options, isa, progress)?;
        sink.write_at(&file, 0)?;
        (file.len() as u64, matched)
    } else {
        pool::run(options.threads, raw_bytes, progress, |ticker| {
            let mut body = Body::in_file(&sink, Described::data_offset(model, options)?);
            let (mut described, matched) = Described::encode(model, options, isa, ticker, &mut body)?;
            let Body::File { data_offset, n_bytes, .. } = body else {
                unreachable!("it was made in the file")
            };
            if data_offset + n_bytes <= model.source_bytes {
                sink.write_at(&described.front(Some(data_offset))?, 0)?;
                return Ok((data_offset + n_bytes, matched));
            }
            // Nothing was saved that could pay for the room that the header does not need.
            let front = described.front(None)?;
            sink.move_back(data_offset..data_offset + n_bytes, front.len() as u64, || ticker.advance(0))?;
            sink.write_at(&front, 0)?;
            Ok((front.len() as u64 + n_bytes, matched))
        })?
    };
    sink.finish()?;
    Ok(Summary {
        source_bytes: model.source_bytes,
        compressed_bytes,
        n_tensors: model.tensors.len(),
        outputs: vec![target.to_owned()],
        matched,
    })
}

/// A patch, or the file that stands alone if that is smaller: samples may err, and a record with a base is longer.
fn smaller_in_memory(model: &Model<'_>, options: &Options, isa: Isa, progress: Progress<'_>) -> Result<(Vec<u8>, Matched)> {
    let (file, mut matched) = in_memory(model, options, isa, progress)?;
    // What is a fraction of its source needs no comparison.
    if model.base.is_none() || file.len() as u64 * 2 < model.raw_bytes() {
        return Ok((file, matched));
    }
    let alone = Model {
        base: None,
        ..model.clone()
    };
    let (plain, _) = in_memory(&alone, options, isa, progress)?;
    if file.len() < plain.len() {
        return Ok((file, matched));
    }
    matched.n_differences = 0;
    Ok((plain, matched))
}

fn in_memory(model: &Model<'_>, options: &Options, isa: Isa, progress: Progress<'_>) -> Result<(Vec<u8>, Matched)> {
    pool::run(options.threads, model.raw_bytes(), progress, |ticker| {
        let mut body = Body::Memory(Vec::new());
        let (mut described, matched) = Described::encode(model, options, isa, ticker, &mut body)?;
        let mut file = described.front(None)?;
        if let Body::Memory(blobs) = body {
            file.extend(blobs);
        }
        Ok((file, matched))
    })
}

/// What the header of a file says, in either format.
enum Described {
    Current(Record),
    V1(published::Record),
}

impl Described {
    /// Where blobs can begin before it is known.
    fn data_offset(model: &Model<'_>, options: &Options) -> Result<u64> {
        Ok(match options.format {
            Format::Current => writer::data_offset(&record::longest(model, options.mode)),
            Format::V1 => published::Record::longest(model, options.mode)?.data_offset(),
        })
    }

    /// Encodes a model: appends its blobs to `body`.
    fn encode(model: &Model<'_>, options: &Options, isa: Isa, ticker: &Ticker, body: &mut Body<'_>) -> Result<(Self, Matched)> {
        Ok(match options.format {
            Format::Current => {
                let (record, matched) = encode(model, options.mode, isa, ticker, body)?;
                (Described::Current(record), matched)
            }
            Format::V1 => (
                Described::V1(published::encode(model, options.mode, ticker, body)?),
                Matched::default(),
            ),
        })
    }

    /// The bytes in front of the blobs, up to `data_offset` if that is given.
    fn front(&mut self, data_offset: Option<u64>) -> Result<Vec<u8>> {
        match self {
            Described::Current(record) => writer::front(record, data_offset),
            Described::V1(record) => record.front(data_offset),
        }
    }
}

/// Encodes a model: appends its blobs to `body` and returns the record that describes them.
fn encode(model: &Model<'_>, mode: Mode, isa: Isa, ticker: &Ticker, body: &mut Body<'_>) -> Result<(Record, Matched)> {
    let mut items = model.items();
    let paired = model
        .base
        .map_or(Ok(Pairing::default()), |base| pair(&model.tensors, base, mode, isa))?;
    for (item, base) in items.iter_mut().zip(&paired.bases) {
        item.base = *base;
    }
    let survey = survey(&items, mode, isa);
    let stored = survey.stored(&items);
    let tables = survey.pools.to_bytes();
    body.append(&tables)?;

    let alone = survey
        .handling
        .iter()
        .enumerate()
        .filter(|(_, handling)| **handling == Handling::Alone);
    let members: Vec<Vec<usize>> = survey.packs.iter().cloned().chain(alone.map(|(i, _)| vec![i])).collect();
    let jobs: Vec<Job> = (members.into_par_iter())
        .map(|members| Job::new(&members, &stored, &survey.pools, mode, isa))
        .collect();
    let needs_no_job = |(handling, _): &(&Handling, &Item)| matches!(handling, Handling::Trivial(_) | Handling::Tied(_));
    let ready = survey.handling.iter().zip(&items).filter(needs_no_job);
    ticker.advance(ready.map(|(_, item)| item.words.bytes.len() as u64).sum())?;

    let mut digests = Digests::new(&items, &survey.handling);
    let mut blobs = BlobWriter::new(body);
    let spare = Spare::default();
    let mut parts = jobs.iter().flat_map(Job::parts);
    loop {
        let mut batch: Vec<Part> = Vec::new();
        let mut batch_bytes = 0;
        while batch_bytes < BATCH_BYTES {
            let Some(part) = parts.next() else { break };
            batch_bytes += part.range.len();
            if let Some(tensor) = part.job.tensor {
                digests.extend(tensor, part.range.end);
            }
            batch.push(part);
        }
        let encode = |part: &Part| {
            let coded = part.job.encode(&part.range, &survey.pools, mode, isa, &spare)?;
            ticker.advance(part.range.len() as u64)?;
            Ok(coded)
        };
        // Also without parts: what belongs to none is digested with the first batch.
        let (coded, ()) = rayon::join(
            || batch.par_iter().map(encode).collect::<Result<Vec<Coded>>>(),
            || digests.update(&items),
        );
        if batch.is_empty() {
            break;
        }
        for (part, coded) in batch.iter().zip(coded?) {
            blobs.put(part, &coded)?;
            spare.put(coded.body);
        }
    }
    let blobs = blobs.finish();
    let record = record::whole(model, mode, &survey, &jobs, &blobs, &items, &digests.finish())?;
    let matched = Matched {
        n_tensors: paired.n_matched,
        n_differences: record.tensors.iter().filter(|tensor| tensor.base.is_some()).count(),
        looked_bytes: paired.looked_bytes,
        changed_bytes: paired.changed_bytes,
    };
    Ok((record, matched))
}
