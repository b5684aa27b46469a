//! A checkpoint to a `.bs` file.

use crate::codec::blob::{Index, chunk_words};
use crate::codec::chunk::Encoding;
use crate::codec::context::Matrix;
use crate::codec::select::{self, Choice, Words};
use crate::codec::{Codec, Coded, Spare, stored};
use crate::container::header::{PackRecord, Record, TensorRecord, to_hex};
use crate::container::writer::{Body, front};
use crate::digest::{Md5, Md5Writer};
use crate::dtype::Dtype;
use crate::error::{Place, Result};
use crate::float::Layout;
use crate::options::{Mode, Options, Progress, no_progress};
use crate::pool::{self, Ticker};
use crate::safetensors::{Checkpoint, SourceTensor, build_header, matrix, row_words};
use crate::simd::Isa;
use crate::sink::Sink;
use crate::survey::{Handling, Item, Survey, survey};
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
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
            let mut body = Body::in_file(&sink, &longest_record(model, options.mode));
            let mut record = encode(model, options.mode, isa, ticker, &mut body)?;
            let Body::File { data_offset, n_bytes, .. } = body else {
                unreachable!("it was made in the file")
            };
            if data_offset + n_bytes <= model.source_bytes {
                sink.write_at(&front(&mut record, Some(data_offset))?, 0)?;
                return Ok(data_offset + n_bytes);
            }
            // Nothing was saved that could pay for the room that the header does not need.
            let front = front(&mut record, None)?;
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
        let mut record = encode(model, options.mode, isa, ticker, &mut body)?;
        let mut file = front(&mut record, None)?;
        if let Body::Memory(blobs) = body {
            file.extend(blobs);
        }
        Ok(file)
    })
}

/// A model to be compressed: the tensors of one file, or of all shards of a directory.
pub(crate) struct Model<'a> {
    /// Tensors in the order of their data, and their bytes.
    pub tensors: Vec<(&'a SourceTensor, &'a [u8])>,
    /// The safetensors metadata.
    pub metadata: Option<Map<String, Value>>,
    /// The header of the file that decompressing restores.
    pub header: Vec<u8>,
    /// Bytes of the source files.
    pub source_bytes: u64,
}

impl<'a> Model<'a> {
    /// One checkpoint.
    pub fn of<B: AsRef<[u8]>>(checkpoint: &'a Checkpoint<B>) -> Self {
        let tensors = checkpoint
            .tensors
            .iter()
            .map(|tensor| (tensor, checkpoint.bytes_of(tensor)))
            .collect();
        Self {
            tensors,
            metadata: checkpoint.metadata.clone(),
            header: checkpoint.header().to_vec(),
            source_bytes: checkpoint.file_bytes(),
        }
    }

    pub fn raw_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The tensors as the survey wants them.
    pub fn items(&self) -> Vec<Item<'a>> {
        let item = |&(tensor, bytes): &(&SourceTensor, &'a [u8])| Item {
            dtype: tensor.dtype,
            words: words(tensor.dtype, &tensor.shape, bytes),
        };
        self.tensors.iter().map(item).collect()
    }
}

fn words<'a>(dtype: Dtype, shape: &[u64], bytes: &'a [u8]) -> Words<'a> {
    let layout = dtype.layout();
    let row_words = row_words(shape, bytes.len() / layout.word_bytes());
    Words {
        bytes,
        layout,
        row_words,
        matrix: matrix(dtype, shape),
        is_integer: dtype.family().is_none(),
    }
}

/// A record at least as long as that of any file made of the model.
fn longest_record(model: &Model<'_>, mode: Mode) -> Record {
    let n = model.tensors.len();
    let mut record = record(model, mode);
    record.tables = u32::MAX as u64;
    record.packs = (0..n / 2)
        .map(|_| PackRecord {
            dtype: "F8_E4M3FNUZ".into(),
            words: u32::MAX as u64,
            codec: "row_delta".into(),
            bytes: u32::MAX as u64,
        })
        .collect();
    for (tensor, (_, bytes)) in record.tensors.iter_mut().zip(&model.tensors) {
        tensor.codec = "row_delta".into();
        tensor.bytes = stored::blob_bytes(bytes.len() as u64).unwrap_or(u64::MAX);
        tensor.value = Some("0".repeat(16));
        tensor.order = Some("oik".into());
        tensor.tied_to = Some(n);
        tensor.pack = Some(n);
    }
    record.data_offset = u64::MAX;
    record
}

/// The record without what only encoding can tell.
fn record(model: &Model<'_>, mode: Mode) -> Record {
    let mut bytes_of = BTreeMap::new();
    for (tensor, bytes) in &model.tensors {
        *bytes_of.entry(tensor.dtype.family()).or_insert(0) += bytes.len();
    }
    let format = bytes_of
        .iter()
        .filter(|(family, _)| family.is_some())
        .max_by_key(|(_, bytes)| **bytes)
        .and_then(|(family, _)| *family);
    let rebuilt = build_header(model.metadata.as_ref(), model.tensors.iter().map(|(tensor, _)| tensor.described()));
    let tensors = model.tensors.iter().map(|(tensor, _)| TensorRecord {
        name: tensor.name.clone(),
        dtype: tensor.dtype.name().into(),
        shape: tensor.shape.clone(),
        md5: "0".repeat(32),
        ..TensorRecord::default()
    });
    Record {
        format: format.unwrap_or("none").into(),
        mode: mode.name().into(),
        data_offset: 0,
        metadata: model.metadata.clone(),
        // Headers are UTF-8: they were parsed as JSON.
        source_header: (rebuilt != model.header).then(|| String::from_utf8_lossy(&model.header).into_owned()),
        tables: 0,
        packs: Vec::new(),
        tensors: tensors.collect(),
    }
}

/// What a blob holds: the words of a tensor, or of the members of a pack.
struct Content<'a> {
    /// The words of each.
    members: Vec<&'a [u8]>,
    n_bytes: usize,
}

impl<'a> Content<'a> {
    fn new(members: Vec<&'a [u8]>) -> Self {
        let n_bytes = members.iter().map(|bytes| bytes.len()).sum();
        Self { members, n_bytes }
    }

    /// Some of the bytes. Those of several members are put together, which for all packs at once would take as much memory as their tensors do.
    fn bytes(&self, range: &Range<usize>) -> Cow<'a, [u8]> {
        if let [bytes] = self.members[..] {
            return Cow::Borrowed(&bytes[range.clone()]);
        }
        let mut gathered = Vec::with_capacity(range.len());
        let mut start = 0;
        for bytes in &self.members {
            let (from, to) = (range.start.max(start), range.end.min(start + bytes.len()));
            if from < to {
                gathered.extend_from_slice(&bytes[from - start..to - start]);
            }
            start += bytes.len();
        }
        Cow::Owned(gathered)
    }

    fn all(&self) -> Cow<'a, [u8]> {
        self.bytes(&(0..self.n_bytes))
    }
}

/// A blob to be made.
struct Job<'a> {
    content: Content<'a>,
    layout: Layout,
    /// Words of a row, 0 where there are no rows.
    row_words: usize,
    choice: Choice,
    /// The tensors of these words, with their numbers of words.
    tensors: Vec<(Matrix, usize)>,
    /// The tensor whose bytes these are; None for a pack.
    tensor: Option<usize>,
    /// Bytes that are encoded together.
    part_bytes: usize,
}

/// A part of a blob.
struct Part {
    job: usize,
    range: Range<usize>,
}

/// Encodes a model: appends its blobs to `body` and returns the record that describes them.
fn encode(model: &Model<'_>, mode: Mode, isa: Isa, ticker: &Ticker, body: &mut Body<'_>) -> Result<Record> {
    let items = model.items();
    let survey = survey(&items, mode, isa);
    let stored_items = survey.stored(&items);
    let Survey {
        handling,
        packs,
        pools,
        orders,
        ..
    } = &survey;
    let mut record = record(model, mode);
    let tables = pools.to_bytes();
    record.tables = tables.len() as u64;
    body.append(&tables)?;

    let alone = (0..items.len()).filter(|&i| handling[i] == Handling::Alone).map(|i| vec![i]);
    let members_of: Vec<Vec<usize>> = packs.iter().cloned().chain(alone).collect();
    let jobs: Vec<Job> = (members_of.into_par_iter())
        .map(|members| {
            let content = Content::new(members.iter().map(|&i| stored_items[i].words.bytes).collect());
            let layout = items[members[0]].words.layout;
            let width = layout.word_bytes();
            let tensors: Vec<(Matrix, usize)> = members
                .iter()
                .map(|&i| (items[i].words.matrix, items[i].words.bytes.len() / width))
                .collect();
            let bytes;
            let words = if let [tensor] = members[..] {
                stored_items[tensor].words
            } else {
                bytes = content.all();
                words(items[members[0]].dtype, &[], &bytes)
            };
            let choice = select::choose(words, &tensors, pools, mode, isa);
            let codec = if let Choice::Chunked(codec) = choice {
                codec
            } else {
                Codec::Stored
            };
            let row_words = words.row_words;
            let part_bytes = chunk_words(codec, layout, (content.n_bytes / width) as u64, row_words) * width;
            Job {
                content,
                layout,
                row_words,
                choice,
                tensors,
                tensor: if members.len() == 1 { Some(members[0]) } else { None },
                part_bytes,
            }
        })
        .collect();

    let mut digests = vec![Md5Writer::default(); items.len()];
    // What belongs to no part is digested with the first batch; what is tied has its master's digest.
    let mut due: Vec<Range<usize>> = (handling.iter().zip(&items))
        .map(|(handling, item)| match handling {
            Handling::Trivial(_) | Handling::Packed(_) => 0..item.words.bytes.len(),
            Handling::Tied(_) | Handling::Alone => 0..0,
        })
        .collect();
    let trivial_bytes: usize = (handling.iter().zip(&items))
        .map(|(handling, item)| {
            if matches!(handling, Handling::Trivial(_) | Handling::Tied(_)) {
                item.words.bytes.len()
            } else {
                0
            }
        })
        .sum();
    ticker.advance(trivial_bytes as u64)?;

    let spare = Spare::default();
    let mut blobs = BlobWriter {
        body,
        written: Vec::new(),
        open: None,
    };
    let mut parts = jobs.iter().enumerate().flat_map(|(job, Job { content, part_bytes, .. })| {
        (0..content.n_bytes).step_by(*part_bytes).map(move |start| Part {
            job,
            range: start..content.n_bytes.min(start + part_bytes),
        })
    });
    loop {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while batch_bytes < BATCH_BYTES {
            let Some(part) = parts.next() else { break };
            batch_bytes += part.range.len();
            if let Some(tensor) = jobs[part.job].tensor {
                due[tensor].end = part.range.end;
            }
            batch.push(part);
        }
        let encode_part = |part: &Part| {
            let Job {
                content,
                layout,
                row_words,
                choice,
                tensors,
                ..
            } = &jobs[part.job];
            let bytes = &content.bytes(&part.range);
            let coded = match choice {
                Choice::Chunked(codec) => {
                    let (codec, layout, row_words) = (*codec, *layout, *row_words);
                    let (spare, may_sort) = (&spare, mode.may_sort());
                    let encoding = Encoding {
                        codec,
                        layout,
                        pools,
                        row_words,
                        tensors,
                        may_sort,
                        isa,
                        spare,
                    };
                    encoding
                        .encode(part.range.start / layout.word_bytes(), bytes)
                        .expect("the choice has looked at all words")
                }
                _ => Coded {
                    head: stored::checksums(bytes),
                    body: Vec::new(),
                },
            };
            ticker.advance(bytes.len() as u64)?;
            Ok(coded)
        };
        let digest = |((digest, due), item): ((&mut Md5Writer, &mut Range<usize>), &Item)| {
            digest.update(&item.words.bytes[due.clone()]);
            due.start = due.end;
        };
        let (coded, ()) = rayon::join(
            || batch.par_iter().map(encode_part).collect::<Result<Vec<Coded>>>(),
            || digests.par_iter_mut().zip(&mut due).zip(&items).for_each(digest),
        );
        if batch.is_empty() {
            break;
        }
        for (part, coded) in batch.iter().zip(coded?) {
            blobs.put(&jobs[part.job], &part.range, &coded)?;
            spare.put(coded.body);
        }
    }

    let md5: Vec<Md5> = digests.into_iter().map(Md5Writer::finish).collect();
    let mut written = blobs.written.into_iter();
    record.packs = (packs.iter().zip(&jobs).zip(written.by_ref()))
        .map(|((members, job), (codec, n_bytes))| {
            let dtype = items[members[0]].dtype;
            PackRecord {
                dtype: dtype.name().into(),
                words: (job.content.n_bytes / job.layout.word_bytes()) as u64,
                codec: codec.name().into(),
                bytes: n_bytes,
            }
        })
        .collect();
    for (i, tensor) in record.tensors.iter_mut().enumerate() {
        let codec = match &handling[i] {
            Handling::Trivial(Choice::Constant(word)) => {
                tensor.value = Some(to_hex(word));
                Codec::Constant
            }
            Handling::Trivial(_) => Codec::Empty,
            Handling::Tied(master) => {
                tensor.tied_to = Some(*master);
                Codec::Tied
            }
            Handling::Packed(pack) => {
                tensor.pack = Some(*pack);
                Codec::Packed
            }
            Handling::Alone => {
                let (codec, n_bytes) = written.next().expect("every job has written a blob");
                tensor.bytes = n_bytes;
                codec
            }
        };
        tensor.codec = codec.name().into();
        tensor.order = orders[i].name().map(Into::into);
        let digested = if let Handling::Tied(master) = handling[i] { master } else { i };
        tensor.md5 = md5[digested].to_string();
    }
    Ok(record)
}

/// Where a blob begins, the sizes of its chunks' heads and bodies, and the checksums of its stored spans.
type OpenBlob = (u64, Vec<(u32, u32)>, Vec<u8>);

/// Writes the parts of blobs, in order.
struct BlobWriter<'b, 'a> {
    body: &'b mut Body<'a>,
    /// Codec and length of each blob that is whole.
    written: Vec<(Codec, u64)>,
    /// Where the blob begins that is not, and what its parts have told.
    open: Option<OpenBlob>,
}

impl BlobWriter<'_, '_> {
    fn put(&mut self, job: &Job<'_>, range: &Range<usize>, coded: &Coded) -> Result<()> {
        let Content { n_bytes: raw_bytes, .. } = job.content;
        let n_parts = raw_bytes.div_ceil(job.part_bytes);
        let is_chunked = matches!(job.choice, Choice::Chunked(_));
        if range.start == 0 {
            self.body.align()?;
            self.open = Some((self.body.n_bytes(), Vec::new(), Vec::new()));
            if is_chunked {
                self.body.append(&vec![0; Index::bytes(n_parts)])?;
            }
        }
        let (start, sizes, checksums) = self.open.as_mut().expect("the first part opens the blob");
        if is_chunked {
            self.body.append(&coded.head)?;
            self.body.append(&coded.body)?;
            sizes.push((coded.head.len() as u32, coded.body.len() as u32));
        } else {
            self.body.append(&job.content.bytes(range))?;
            checksums.extend_from_slice(&coded.head);
        }
        if range.end < raw_bytes {
            return Ok(());
        }
        let mut codec = Codec::Stored;
        if let Choice::Chunked(chosen) = job.choice {
            codec = chosen;
            self.body
                .overwrite(*start, &Index::write(job.part_bytes / job.layout.word_bytes(), sizes))?;
            // The sample may have promised more than all words keep.
            if Some(self.body.n_bytes() - *start) >= stored::blob_bytes(raw_bytes as u64) {
                codec = Codec::Stored;
                self.body.truncate(*start)?;
                let raw = job.content.all();
                self.body.append(&raw)?;
                *checksums = stored::checksums(&raw);
            }
        }
        self.body.append(checksums)?;
        self.written.push((codec, self.body.n_bytes() - *start));
        self.open = None;
        Ok(())
    }
}
