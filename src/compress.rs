//! A checkpoint to a `.bs` file.

mod blobs;
mod content;
mod digests;
mod job;
mod model;
pub(crate) mod published;
mod record;

pub(crate) use model::Model;

use crate::codec::{Coded, Spare};
use crate::container::header::Record;
use crate::container::writer::{self, Body};
use crate::error::{Place, Result};
use crate::options::{Format, Mode, Options, Progress, no_progress};
use crate::pool::{self, Ticker};
use crate::safetensors::Checkpoint;
use crate::simd::Isa;
use crate::sink::Sink;
use crate::survey::{Handling, Item, survey};
use blobs::BlobWriter;
use digests::Digests;
use job::{Job, Part};
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
    in_memory(&Model::of(&checkpoint), options, isa, &no_progress)
}

/// Compresses one checkpoint file.
pub(crate) fn compress_file(source: &Path, target: &Path, options: &Options, progress: Progress<'_>) -> Result<Summary> {
    let checkpoint = Checkpoint::open(source)?;
    compress_model(&Model::of(&checkpoint), target, options, progress).at_path(source)
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
    let compressed_bytes = if raw_bytes <= MEMORY_BYTES as u64 {
        let file = in_memory(model, options, isa, progress)?;
        sink.write_at(&file, 0)?;
        file.len() as u64
    } else {
        pool::run(options.threads, raw_bytes, progress, |ticker| {
            let mut body = Body::in_file(&sink, Described::data_offset(model, options)?);
            let mut described = Described::encode(model, options, isa, ticker, &mut body)?;
            let Body::File { data_offset, n_bytes, .. } = body else {
                unreachable!("it was made in the file")
            };
            if data_offset + n_bytes <= model.source_bytes {
                sink.write_at(&described.front(Some(data_offset))?, 0)?;
                return Ok(data_offset + n_bytes);
            }
            // Nothing was saved that could pay for the room that the header does not need.
            let front = described.front(None)?;
            sink.move_back(data_offset..data_offset + n_bytes, front.len() as u64, || ticker.advance(0))?;
            sink.write_at(&front, 0)?;
            Ok(front.len() as u64 + n_bytes)
        })?
    };
    sink.finish()?;
    Ok(Summary {
        source_bytes: model.source_bytes,
        compressed_bytes,
        n_tensors: model.tensors.len(),
        outputs: vec![target.to_owned()],
    })
}

fn in_memory(model: &Model<'_>, options: &Options, isa: Isa, progress: Progress<'_>) -> Result<Vec<u8>> {
    pool::run(options.threads, model.raw_bytes(), progress, |ticker| {
        let mut body = Body::Memory(Vec::new());
        let mut file = Described::encode(model, options, isa, ticker, &mut body)?.front(None)?;
        if let Body::Memory(blobs) = body {
            file.extend(blobs);
        }
        Ok(file)
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
    fn encode(model: &Model<'_>, options: &Options, isa: Isa, ticker: &Ticker, body: &mut Body<'_>) -> Result<Self> {
        Ok(match options.format {
            Format::Current => Described::Current(encode(model, options.mode, isa, ticker, body)?),
            Format::V1 => Described::V1(published::encode(model, options.mode, ticker, body)?),
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
fn encode(model: &Model<'_>, mode: Mode, isa: Isa, ticker: &Ticker, body: &mut Body<'_>) -> Result<Record> {
    let items = model.items();
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
            let coded = part.job.encode(&part.range, &survey.pools, mode, isa, &spare);
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
    Ok(record::whole(model, mode, tables.len(), &survey, &jobs, &blobs, &digests.finish()))
}
