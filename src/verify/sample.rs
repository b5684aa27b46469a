//! Blocks that are chosen at random.

use super::{Problem, Verification};
use crate::container::header::Storage;
use crate::container::reader::{Block, Reader};
use crate::decompress::restore_tensor;
use crate::error::Result;
use crate::options::no_progress;
use crate::pool;
use crate::source::FileSource;
use rayon::prelude::*;
use std::path::Path;

/// Something with a checksum or digest of its own.
enum Unit {
    Block {
        tensor: usize,
        number: u64,
        block: Block,
    },
    /// A tensor that its md5 alone proves.
    Tensor(usize),
}

/// Checks that share of all blocks, rounded up, and adds what is damaged. The choice follows from the seed and nothing else.
pub fn verify(reader: &Reader<FileSource>, path: &Path, share: f64, seed: u64, threads: usize, found: &mut Verification) -> Result<()> {
    let mut units = Vec::new();
    for (blob, tensor) in reader.blobs() {
        let blocks = reader.blocks(blob)?.into_iter().enumerate();
        units.extend(blocks.map(|(number, block)| Unit::Block {
            tensor,
            number: number as u64,
            block,
        }));
    }
    let is_published = |&tensor: &usize| matches!(reader.header().entries[tensor].storage, Storage::Published(_));
    units.extend((0..reader.header().entries.len()).filter(is_published).map(Unit::Tensor));
    let n_chosen = ((units.len() as f64 * share).ceil() as usize).min(units.len());
    // The first steps of a shuffle.
    let mut random = seed;
    for i in 0..n_chosen {
        let other = i + (split_mix(&mut random) % (units.len() - i) as u64) as usize;
        units.swap(i, other);
    }
    found.n_blocks += units.len() as u64;
    found.n_sampled += n_chosen as u64;
    let check = |unit: &Unit| match unit {
        Unit::Block { tensor, number, block } => Ok((!reader.is_intact(block)?).then(|| Problem {
            path: path.to_owned(),
            tensor: Some(reader.header().entries[*tensor].name.clone()),
            block: Some(*number),
            bytes: Some(block.range.clone()),
            message: "does not match its checksum".into(),
        })),
        Unit::Tensor(tensor) => match restore_tensor(reader, *tensor, &pool::Ticker::default(), |_, _| Ok(())) {
            Ok(()) => Ok(None),
            Err(error) => Problem::of(error.at_tensor(&reader.header().entries[*tensor].name), path).map(Some),
        },
    };
    let checked = pool::run(threads, 0, &no_progress, |_| {
        units[..n_chosen].par_iter().map(check).collect::<Result<Vec<Option<Problem>>>>()
    })?;
    let mut problems: Vec<Problem> = checked.into_iter().flatten().collect();
    problems.sort_by_key(|problem| problem.bytes.as_ref().map_or(0, |bytes| bytes.start));
    found.problems.extend(problems);
    Ok(())
}

/// The next of a sequence of random numbers: Steele, Lea and Flood's SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
