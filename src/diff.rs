//! What differs between two models.

use crate::codec::delta::difference::differences;
use crate::codec::delta::number::Word;
use crate::digest::Md5;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::float::Layout;
use crate::options::Progress;
use crate::pool;
use crate::simd::Isa;
use crate::weights::{Tensor, Weights};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::ops::{AddAssign, Range};

/// Classes of distances: 0, 1, 2 to 3, 4 to 7, and so on.
pub const N_DISTANCES: usize = 65;
/// Words that are compared at a time.
const RUN: usize = 1 << 12;

/// How many words of a tensor lie how far from those of another: apart 0 in class 0, from 2^(k−1) on in class k.
///
/// A distance counts the numbers of the dtype that lie between two: for floats, units in the last place, of which neighbouring octaves have
/// different sizes. The two zeros lie furthest apart of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distances(pub [u64; N_DISTANCES]);

impl Default for Distances {
    fn default() -> Self {
        Self([0; N_DISTANCES])
    }
}

impl AddAssign for Distances {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, n)| *sum += n);
    }
}

impl Distances {
    /// Words that differ.
    pub fn n_differing(&self) -> u64 {
        self.0[1..].iter().sum()
    }

    fn of(layout: Layout, a: &[u8], b: &[u8]) -> Self {
        let mut found = Self::default();
        let run_bytes = RUN * layout.word_bytes();
        for (a, b) in a.chunks(run_bytes).zip(b.chunks(run_bytes)) {
            if a == b {
                found.0[0] += (a.len() / layout.word_bytes()) as u64;
                continue;
            }
            match layout.word_bytes() {
                1 => found.count::<u8>(layout, a, b),
                2 => found.count::<u16>(layout, a, b),
                4 => found.count::<u32>(layout, a, b),
                _ => found.count::<u64>(layout, a, b),
            }
        }
        found
    }

    fn count<W: Word>(&mut self, layout: Layout, a: &[u8], b: &[u8]) {
        let mut of_words = [W::default(); RUN];
        let of_words = &mut of_words[..W::all(a).len()];
        differences(Isa::SCALAR, layout.has_sign(), b, a, of_words);
        for difference in of_words {
            self.0[64 - difference.signed().unsigned_abs().leading_zeros() as usize] += 1;
        }
    }
}

/// What became of a tensor that both models name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its words are the same.
    None,
    /// As many words of the same dtype, of which some differ; perhaps in another shape.
    Words(Box<Distances>),
    /// Another dtype or number of words.
    Kind,
}

/// A tensor that both models name.
#[derive(Clone, Debug)]
pub struct Common {
    /// As the first model has it.
    pub a: Tensor,
    /// As the second model has it.
    pub b: Tensor,
    /// What became of it.
    pub change: Change,
}

/// What differs between two models.
#[derive(Clone, Debug, Default)]
pub struct Diff {
    /// Tensors that only the second model has.
    pub added: Vec<Tensor>,
    /// Tensors that only the first model has.
    pub removed: Vec<Tensor>,
    /// Tensors that both have.
    pub common: Vec<Common>,
    /// Tensors that are added or changed, and one with another name in the first model that has the same bytes.
    pub identical: Vec<(String, String)>,
}

impl Diff {
    /// Whether the models hold the same tensors.
    pub fn is_empty(&self) -> bool {
        let is_same = |one: &Common| one.change == Change::None && one.a.shape == one.b.shape;
        self.added.is_empty() && self.removed.is_empty() && self.common.iter().all(is_same)
    }
}

/// Compares two models.
///
/// # Errors
/// `Interrupted`; as for reading either.
pub fn diff(a: &Weights, b: &Weights, threads: usize, progress: Progress<'_>) -> Result<Diff> {
    let total = b.raw_bytes();
    pool::run(threads, total, progress, |ticker| {
        let lacks = |of: &Weights, tensor: &&Tensor| of.find(&tensor.name).is_none();
        let compare = |(at_b, tensor): (usize, &Tensor)| -> Result<Option<Common>> {
            let Some(at_a) = a.find(&tensor.name) else {
                ticker.advance(tensor.raw_bytes)?;
                return Ok(None);
            };
            let of_a = &a.tensors()[at_a];
            let change = if of_a.dtype != tensor.dtype || of_a.raw_bytes != tensor.raw_bytes {
                ticker.advance(tensor.raw_bytes)?;
                Change::Kind
            } else if of_a.md5.is_some() && of_a.md5 == tensor.md5 {
                ticker.advance(tensor.raw_bytes)?;
                Change::None
            } else {
                let width = tensor.dtype.layout().word_bytes() as u64;
                let part = |range: Range<u64>| -> Result<Distances> {
                    let (of_a, of_b) = (a.words(at_a, range.clone())?, b.words(at_b, range.clone())?);
                    ticker.advance((range.end - range.start) * width)?;
                    Ok(Distances::of(tensor.dtype.layout(), &of_a, &of_b))
                };
                let mut all = Distances::default();
                for part in b.parts(at_b)?.into_par_iter().map(part).collect::<Result<Vec<_>>>()? {
                    all += part;
                }
                if all.n_differing() == 0 {
                    Change::None
                } else {
                    Change::Words(Box::new(all))
                }
            };
            Ok(Some(Common {
                a: of_a.clone(),
                b: tensor.clone(),
                change,
            }))
        };
        let compared: Vec<Option<Common>> = b.tensors().par_iter().enumerate().map(compare).collect::<Result<_>>()?;
        let common: Vec<Common> = compared.into_iter().flatten().collect();
        let unchanged: HashSet<&str> = (common.iter())
            .filter(|one| one.change == Change::None)
            .map(|one| &*one.b.name)
            .collect();
        let identical = identical(a, b, &unchanged)?;
        Ok(Diff {
            added: b.tensors().iter().filter(|tensor| lacks(a, tensor)).cloned().collect(),
            removed: a.tensors().iter().filter(|tensor| lacks(b, tensor)).cloned().collect(),
            identical,
            common,
        })
    })
}

/// Tensors of the second model that have the bytes of one of the first that has another name. Those with a namesake of the same bytes are not asked.
fn identical(a: &Weights, b: &Weights, unchanged: &HashSet<&str>) -> Result<Vec<(String, String)>> {
    let key = |tensor: &Tensor| (tensor.dtype, tensor.raw_bytes);
    let asked: Vec<usize> = (b.tensors().iter().enumerate())
        .filter(|(_, tensor)| tensor.raw_bytes > 0 && !unchanged.contains(&*tensor.name))
        .map(|(at, _)| at)
        .collect();
    let sizes: HashSet<(Dtype, u64)> = asked.iter().map(|&at| key(&b.tensors()[at])).collect();
    let candidates: Vec<usize> = (0..a.tensors().len())
        .filter(|&at| sizes.contains(&key(&a.tensors()[at])))
        .collect();
    let digests = |of: &Weights, tensors: &[usize]| tensors.par_iter().map(|&at| of.md5(at)).collect::<Result<Vec<Md5>>>();
    let (of_a, of_b) = (digests(a, &candidates)?, digests(b, &asked)?);
    let mut by_content: HashMap<((Dtype, u64), [u8; 16]), &str> = HashMap::new();
    for (&at, md5) in candidates.iter().zip(&of_a) {
        let tensor = &a.tensors()[at];
        by_content.entry((key(tensor), md5.0)).or_insert(&tensor.name);
    }
    let of = |(&at, md5): (&usize, &Md5)| {
        let tensor = &b.tensors()[at];
        let same = by_content.get(&(key(tensor), md5.0))?;
        Some((tensor.name.clone(), (*same).to_owned()))
    };
    Ok(asked.iter().zip(&of_b).filter_map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::no_progress;

    fn model(tensors: &[(&str, &[u16])]) -> Weights {
        let mut header = String::new();
        let mut data = Vec::new();
        for (name, words) in tensors {
            let start = data.len();
            data.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            let comma = if header.is_empty() { "" } else { "," };
            header += &format!(
                r#"{comma}"{name}":{{"dtype":"BF16","shape":[{}],"data_offsets":[{start},{}]}}"#,
                words.len(),
                data.len()
            );
        }
        let header = format!("{{{header}}}");
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
        Weights::of_bytes(file).unwrap()
    }

    #[test]
    fn tensors_are_told_apart() {
        let a = model(&[
            ("same", &[1, 2]),
            ("gone", &[7, 8, 9]),
            ("moves", &[0x3F80, 0xBF80, 0x0001, 0x4000]),
            ("grows", &[1]),
        ]);
        let b = model(&[
            ("same", &[1, 2]),
            ("moves", &[0x3F81, 0xBF7F, 0x8001, 0x4000]),
            ("grows", &[1, 1]),
            ("new", &[7, 8, 9]),
        ]);
        let found = diff(&a, &b, 1, &no_progress).unwrap();
        let names = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&found.added), names(&found.removed)),
            (vec!["new".into()], vec!["gone".into()])
        );
        assert_eq!(found.identical, [("new".to_owned(), "gone".to_owned())]);
        let mut distances = Distances::default();
        // One ulp up, one ulp towards zero, from the least positive number to the least negative one.
        (distances.0[0], distances.0[1], distances.0[2]) = (1, 2, 1);
        let changes: Vec<Change> = found.common.iter().map(|one| one.change.clone()).collect();
        assert_eq!(changes, [Change::None, Change::Words(Box::new(distances)), Change::Kind]);
        assert!(!found.is_empty() && diff(&a, &a, 1, &no_progress).unwrap().is_empty());
    }
}
