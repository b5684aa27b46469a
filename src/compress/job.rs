//! A blob to be made, and how.

use super::content::Content;
use super::model::words;
use crate::base::BaseTensor;
use crate::codec::blob::chunk_words;
use crate::codec::chunk::Encoding;
use crate::codec::context::Matrix;
use crate::codec::planes::Pools;
use crate::codec::select::{self, Choice};
use crate::codec::{Codec, Coded, Spare, stored};
use crate::error::Result;
use crate::float::Layout;
use crate::options::Mode;
use crate::simd::Isa;
use crate::survey::Item;
use std::borrow::Cow;
use std::ops::Range;

/// A blob to be made: what of, and how.
pub struct Job<'a> {
    pub content: Content<'a>,
    pub layout: Layout,
    pub choice: Choice,
    /// The tensor whose bytes these are; None for a pack.
    pub tensor: Option<usize>,
    /// Bytes that are encoded together.
    pub part_bytes: usize,
    /// Words of a row, 0 where there are no rows.
    row_words: usize,
    /// The tensors of these words, with their numbers of words.
    tensors: Vec<(Matrix, usize)>,
    /// What they are differences to, with their numbers of words; none if they stand alone.
    bases: Vec<(BaseTensor<'a>, usize)>,
}

/// A part of a blob.
pub struct Part<'j, 'a> {
    pub job: &'j Job<'a>,
    pub range: Range<usize>,
}

impl<'a> Job<'a> {
    /// Chooses how to store a tensor, or several of the same dtype as a pack.
    pub fn new(members: &[usize], stored: &[Item<'a>], pools: &Pools, mode: Mode, isa: Isa) -> Self {
        let content = Content::new(members.iter().map(|&i| stored[i].words.bytes).collect());
        let first = stored[members[0]];
        let layout = first.words.layout;
        let width = layout.word_bytes();
        let tensors: Vec<(Matrix, usize)> = members
            .iter()
            .map(|&i| (stored[i].words.matrix, stored[i].words.bytes.len() / width))
            .collect();
        let gathered;
        let words = if members.len() == 1 {
            first.words
        } else {
            gathered = content.all();
            words(first.dtype, &[], &gathered)
        };
        let row_words = words.row_words;
        let bases: Vec<(BaseTensor, usize)> = (members.iter().zip(&tensors))
            .filter_map(|(&i, &(_, n_words))| Some((stored[i].base?, n_words)))
            .collect();
        let choice = if bases.is_empty() {
            select::choose(words, &tensors, pools, mode, isa)
        } else {
            Choice::Chunked(Codec::Delta)
        };
        let codec = if let Choice::Chunked(codec) = choice {
            codec
        } else {
            Codec::Stored
        };
        let part_bytes = chunk_words(codec, layout, (content.n_bytes() / width) as u64, row_words) * width;
        Self {
            content,
            layout,
            choice,
            tensor: if members.len() == 1 { Some(members[0]) } else { None },
            part_bytes,
            row_words,
            tensors,
            bases,
        }
    }

    /// The base words in `range`.
    fn base_words(&self, range: Range<usize>) -> Result<Cow<'a, [u8]>> {
        if let [(base, _)] = self.bases[..] {
            return base.words(range.start as u64..range.end as u64);
        }
        let mut words = Vec::with_capacity(range.len() * self.layout.word_bytes());
        let mut start = 0;
        for (base, n_words) in &self.bases {
            let (from, to) = (range.start.max(start), range.end.min(start + n_words));
            if from < to {
                words.extend_from_slice(&base.words((from - start) as u64..(to - start) as u64)?);
            }
            start += n_words;
        }
        Ok(Cow::Owned(words))
    }

    /// Number of words.
    pub fn n_words(&self) -> usize {
        self.content.n_bytes() / self.layout.word_bytes()
    }

    /// The parts that are encoded one by one.
    pub fn parts<'j>(&'j self) -> impl Iterator<Item = Part<'j, 'a>> {
        let n_bytes = self.content.n_bytes();
        (0..n_bytes).step_by(self.part_bytes).map(move |start| Part {
            job: self,
            range: start..n_bytes.min(start + self.part_bytes),
        })
    }

    /// Encodes a part: a chunk, or for bytes that are stored as they are their checksums.
    ///
    /// # Errors
    /// As for reading the base.
    pub fn encode(&self, range: &Range<usize>, pools: &Pools, mode: Mode, isa: Isa, spare: &Spare) -> Result<Coded> {
        let bytes = &self.content.bytes(range);
        let Choice::Chunked(codec) = self.choice else {
            return Ok(Coded {
                head: stored::checksums(bytes),
                body: Vec::new(),
            });
        };
        let encoding = Encoding {
            codec,
            layout: self.layout,
            pools,
            row_words: self.row_words,
            tensors: &self.tensors,
            may_sort: mode.may_sort(),
            isa,
            spare,
        };
        let first = range.start / self.layout.word_bytes();
        if !self.bases.is_empty() {
            let base = self.base_words(first..range.end / self.layout.word_bytes())?;
            return Ok(encoding.encode_on(bytes, &base));
        }
        Ok(encoding.encode(first, bytes).expect("the choice has looked at all words"))
    }
}
