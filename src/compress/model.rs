//! What is compressed.

use crate::codec::select::Words;
use crate::dtype::Dtype;
use crate::safetensors::{Checkpoint, SourceTensor, matrix, row_words};
use crate::survey::Item;
use crate::weights::Weights;
use serde_json::{Map, Value};

/// A model to be compressed: the tensors of one file, or of all shards of a directory.
#[derive(Clone)]
pub(crate) struct Model<'a> {
    /// Tensors in the order of their data, and their bytes.
    pub tensors: Vec<(&'a SourceTensor, &'a [u8])>,
    /// The safetensors metadata.
    pub metadata: Option<Map<String, Value>>,
    /// The header of the file that decompressing restores.
    pub header: Vec<u8>,
    /// Bytes of the source files.
    pub source_bytes: u64,
    /// What it is a patch to, if it is to be one.
    pub base: Option<&'a Weights>,
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
            base: None,
        }
    }

    /// The same, to be a patch.
    pub fn on(self, base: Option<&'a Weights>) -> Self {
        Self { base, ..self }
    }

    pub fn raw_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The tensors as the survey wants them.
    pub fn items(&self) -> Vec<Item<'a>> {
        let item = |&(tensor, bytes): &(&SourceTensor, &'a [u8])| Item {
            dtype: tensor.dtype,
            words: words(tensor.dtype, &tensor.shape, bytes),
            base: None,
        };
        self.tensors.iter().map(item).collect()
    }
}

/// The words of a tensor, or of a pack, which has no shape.
pub(super) fn words<'a>(dtype: Dtype, shape: &[u64], bytes: &'a [u8]) -> Words<'a> {
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
