//! The tensors of a model, in whatever files they lie: safetensors or `.bs`, one file or the shards of a directory.

use crate::buffer::scratch;
use crate::container::reader::Reader;
use crate::container::{MAGIC, is_container};
use crate::digest::{Md5, Md5Writer};
use crate::directory;
use crate::dtype::Dtype;
use crate::error::{Error, Kind, Place, Result};
use crate::safetensors::Checkpoint;
use crate::source::{FileSource, Map as FileMap, ReadAt};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are read at a time from a file that lies open to be read anywhere.
const PART_BYTES: u64 = 16 << 20;

/// A tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its bytes.
    pub raw_bytes: u64,
    /// The digest of these, if its file tells it.
    pub md5: Option<Md5>,
    /// Its file, and its number there.
    place: (usize, usize),
}

impl Tensor {
    /// Number of words.
    pub fn n_words(&self) -> u64 {
        self.raw_bytes / self.dtype.layout().word_bytes() as u64
    }
}

/// A file of a model.
pub struct File {
    path: Option<PathBuf>,
    content: Content,
}

enum Content {
    /// Bytes that lie in memory, or are mapped.
    Plain(Checkpoint<Memory>),
    /// Bytes that are decoded when they are asked for.
    Packed(Box<Reader<Box<dyn ReadAt>>>),
}

/// Where a plain checkpoint lies.
enum Memory {
    Mapped(FileMap),
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        match self {
            Memory::Mapped(map) => map.as_ref(),
            Memory::Owned(bytes) => bytes,
        }
    }
}

impl File {
    /// Where it is, if it is a file of the system.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The safetensors metadata.
    pub fn metadata(&self) -> Option<&Map<String, Value>> {
        match &self.content {
            Content::Plain(checkpoint) => checkpoint.metadata.as_ref(),
            Content::Packed(reader) => reader.header().metadata.as_ref(),
        }
    }

    /// Its reader, if it is a `.bs` file.
    pub fn reader(&self) -> Option<&Reader<Box<dyn ReadAt>>> {
        match &self.content {
            Content::Plain(_) => None,
            Content::Packed(reader) => Some(reader),
        }
    }

    /// Its bytes on the disk or in memory.
    pub fn file_bytes(&self) -> u64 {
        match &self.content {
            Content::Plain(checkpoint) => checkpoint.file_bytes(),
            Content::Packed(reader) => reader.file_bytes(),
        }
    }

    fn open(path: &Path, base: Option<&Arc<Weights>>) -> Result<Self> {
        let source = FileSource::open(path)?;
        let content = if is_packed(&source)? {
            Content::Packed(packed(Box::new(source), base)?)
        } else {
            Content::Plain(Checkpoint::parse(Memory::Mapped(FileMap::open(path)?)).at_path(path)?)
        };
        let path = Some(path.to_owned());
        Ok(File { path, content })
    }

    /// Its tensors, as number `file` of a model.
    fn tensors(&self, file: usize) -> Vec<Tensor> {
        match &self.content {
            Content::Plain(checkpoint) => (checkpoint.tensors.iter().enumerate())
                .map(|(at, tensor)| Tensor {
                    name: tensor.name.clone(),
                    dtype: tensor.dtype,
                    shape: tensor.shape.clone(),
                    raw_bytes: tensor.range.len() as u64,
                    md5: None,
                    place: (file, at),
                })
                .collect(),
            Content::Packed(reader) => (reader.header().entries.iter().enumerate())
                .map(|(at, entry)| Tensor {
                    name: entry.name.clone(),
                    dtype: entry.dtype,
                    shape: entry.shape.clone(),
                    raw_bytes: entry.raw_bytes,
                    md5: Some(entry.md5),
                    place: (file, at),
                })
                .collect(),
        }
    }
}

fn packed(source: Box<dyn ReadAt>, base: Option<&Arc<Weights>>) -> Result<Box<Reader<Box<dyn ReadAt>>>> {
    Ok(Box::new(match base {
        Some(base) => Reader::open_on(source, base.clone())?,
        None => Reader::open(source)?,
    }))
}

fn is_packed(source: &impl ReadAt) -> Result<bool> {
    let mut start = [0; MAGIC.len()];
    if source.n_bytes() < start.len() as u64 {
        return Ok(false);
    }
    source.read_at(&mut start, 0)?;
    Ok(is_container(&start))
}

/// Whether a file is a `.bs` file.
///
/// # Errors
/// `Io`.
pub(crate) fn is_packed_file(path: &Path) -> Result<bool> {
    is_packed(&FileSource::open(path)?)
}

/// All tensors of a model.
pub struct Weights {
    files: Vec<File>,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
}

impl Weights {
    /// Opens a safetensors or `.bs` file, or a directory of either.
    ///
    /// # Errors
    /// `Io`; `Source` for what is not valid safetensors; those of [`Reader::open`] for a `.bs` file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_files(path, None)
    }

    /// The same for patches, whose words are differences to those of `base`.
    ///
    /// # Errors
    /// Those of [`Weights::open`].
    pub fn open_on(path: &Path, base: Arc<Weights>) -> Result<Self> {
        Self::open_files(path, Some(&base))
    }

    fn open_files(path: &Path, base: Option<&Arc<Weights>>) -> Result<Self> {
        let paths = directory::weight_files(path)?;
        Self::of(paths.iter().map(|path| File::open(path, base)).collect::<Result<_>>()?)
    }

    /// Opens one safetensors or `.bs` file that lies in memory.
    ///
    /// # Errors
    /// Those of [`Weights::open`].
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self> {
        let content = if is_packed(&&bytes[..])? {
            Content::Packed(packed(Box::new(bytes), None)?)
        } else {
            Content::Plain(Checkpoint::parse(Memory::Owned(bytes))?)
        };
        Self::of(vec![File { path: None, content }])
    }

    fn of(files: Vec<File>) -> Result<Self> {
        let tensors: Vec<Tensor> = files.iter().enumerate().flat_map(|(at, file)| file.tensors(at)).collect();
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (at, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), at).is_some() {
                let error = Error::source("it is in two shards").at_tensor(&tensor.name);
                return Err(match files[tensor.place.0].path() {
                    Some(path) => error.at_path(path),
                    None => error,
                });
            }
        }
        Ok(Self { files, tensors, by_name })
    }

    /// The files, in the order of their names or of their index.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The tensors, file by file, in the order of their data.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Bytes of all tensors.
    pub fn raw_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.raw_bytes).sum()
    }

    /// Index of the tensor of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Index of the tensor of that name, or the error that there is none.
    ///
    /// # Errors
    /// `MissingTensor`.
    pub fn named(&self, name: &str) -> Result<usize> {
        self.find(name)
            .ok_or_else(|| Error::new(Kind::MissingTensor, format!("there is no tensor {name:?}")))
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, tensor: usize) -> &File {
        &self.files[self.tensors[tensor].place.0]
    }

    /// The bytes of a tensor, if they lie in memory or are mapped.
    pub fn mapped(&self, tensor: usize) -> Option<&[u8]> {
        let (file, at) = self.tensors[tensor].place;
        match &self.files[file].content {
            Content::Plain(checkpoint) => Some(checkpoint.bytes_of(&checkpoint.tensors[at])),
            Content::Packed(_) => None,
        }
    }

    /// The words in `range` of a tensor: borrowed where they are mapped, decoded elsewhere.
    ///
    /// # Errors
    /// Those of [`Weights::read_words`]; `OutOfMemory`.
    pub fn words(&self, tensor: usize, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let width = self.tensors[tensor].dtype.layout().word_bytes() as u64;
        let bytes = range.start * width..range.end * width;
        if let Some(mapped) = self.mapped(tensor) {
            return Ok(Cow::Borrowed(&mapped[bytes.start as usize..bytes.end as usize]));
        }
        let n_bytes = bytes.end - bytes.start;
        let mut out = scratch(n_bytes)?;
        self.read_words(tensor, range, &mut out)?;
        Ok(Cow::Owned(out))
    }

    /// Copies or decodes the words in `range` of a tensor.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    ///
    /// # Panics
    /// If the tensor has not these words, or `out` not their length.
    pub fn read_words(&self, tensor: usize, range: Range<u64>, out: &mut [u8]) -> Result<()> {
        let (file, at) = self.tensors[tensor].place;
        match &self.files[file].content {
            Content::Plain(_) => {
                out.copy_from_slice(&self.words(tensor, range)?);
                Ok(())
            }
            Content::Packed(reader) => reader.read_words(at, range, out),
        }
    }

    /// The parts of a tensor that are best read on their own, as ranges of its words.
    ///
    /// # Errors
    /// As for reading.
    pub fn parts(&self, tensor: usize) -> Result<Vec<Range<u64>>> {
        let (file, at) = self.tensors[tensor].place;
        let n_words = self.tensors[tensor].n_words();
        let step = PART_BYTES / self.tensors[tensor].dtype.layout().word_bytes() as u64;
        Ok(match &self.files[file].content {
            Content::Plain(_) => (0..n_words)
                .step_by(step as usize)
                .map(|start| start..n_words.min(start + step))
                .collect(),
            Content::Packed(reader) => reader.parts(at)?.collect(),
        })
    }

    /// The digest of a tensor: the one that its file tells, or made of its bytes.
    ///
    /// # Errors
    /// As for reading.
    pub fn md5(&self, tensor: usize) -> Result<Md5> {
        if let Some(md5) = self.tensors[tensor].md5 {
            return Ok(md5);
        }
        let mut digest = Md5Writer::default();
        for part in self.parts(tensor)? {
            digest.update(&self.words(tensor, part)?);
        }
        Ok(digest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, compress, compress_bytes, no_progress, test_data};

    /// Every way to the checkpoint of the test data.
    fn ways() -> (tempfile::TempDir, Vec<Weights>) {
        let directory = tempfile::tempdir().unwrap();
        let source = test_data::checkpoint();
        let shards = directory.path().join("model");
        std::fs::create_dir(&shards).unwrap();
        std::fs::write(shards.join("model.safetensors"), &source).unwrap();
        let packed = directory.path().join("model-bs");
        compress(&shards, &packed, &Options::default(), &no_progress).unwrap();
        let mut ways = vec![
            Weights::of_bytes(source.clone()).unwrap(),
            Weights::of_bytes(compress_bytes(&source, &Options::default()).unwrap()).unwrap(),
        ];
        let paths = [
            shards.clone(),
            shards.join("model.safetensors"),
            packed.clone(),
            packed.join("model.bs"),
        ];
        ways.extend(paths.iter().map(|path| Weights::open(path).unwrap()));
        (directory, ways)
    }

    #[test]
    fn files_of_all_kinds_give_the_same_tensors() {
        let (_directory, ways) = ways();
        let first = &ways[0];
        assert_eq!(first.raw_bytes(), 12_546);
        for weights in &ways {
            assert_eq!(weights.files().len(), 1);
            assert_eq!(weights.files()[0].metadata(), first.files()[0].metadata());
            assert!(weights.tensors().iter().all(|tensor| weights.named(&tensor.name).is_ok()));
            for (at, (tensor, other)) in weights.tensors().iter().zip(first.tensors()).enumerate() {
                assert_eq!(
                    (&tensor.name, tensor.dtype, &tensor.shape),
                    (&other.name, other.dtype, &other.shape)
                );
                let n = tensor.n_words();
                assert_eq!(weights.words(at, 0..n).unwrap(), first.words(at, 0..n).unwrap());
                assert_eq!(weights.words(at, n / 3..n / 2).unwrap(), first.words(at, n / 3..n / 2).unwrap());
                assert_eq!(weights.md5(at).unwrap(), first.md5(at).unwrap());
                assert_eq!(weights.parts(at).unwrap().last().map_or(0, |part| part.end), n);
            }
        }
        assert!(matches!(first.named("none").unwrap_err().kind, Kind::MissingTensor));
    }

    #[test]
    fn a_name_in_two_shards_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for shard in ["a.safetensors", "b.safetensors"] {
            std::fs::write(directory.path().join(shard), test_data::checkpoint()).unwrap();
        }
        let error = Weights::open(directory.path()).err().unwrap();
        assert_eq!(error.tensor.as_deref(), Some("weight"));
        assert!(error.path.unwrap().ends_with("b.safetensors"));
    }

    #[test]
    fn what_is_neither_kind_of_file_is_refused() {
        assert!(matches!(Weights::of_bytes(vec![1; 5]).err().unwrap().kind, Kind::Source));
        assert!(matches!(Weights::of_bytes(b"BGSM rest".to_vec()).err().unwrap().kind, Kind::Format));
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Weights::open(directory.path()).err().unwrap().kind, Kind::Io(_)));
    }
}
