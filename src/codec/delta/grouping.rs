//! Which word of a block is of which class, and back and forth between their order and that of classes.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx512;

use super::number::{Word, context_of};
use crate::float::Layout;
use crate::simd::{Isa, for_each_isa};

/// Classes that there may be.
pub const MAX_CLASSES: usize = 16;
/// Words that a buffer of grouped words has behind its last one, so that loads may reach beyond it.
pub const SLACK_WORDS: usize = 64;
/// Words whose contexts are looked at together.
const RUN: usize = 128;

/// The classes of the words of a block.
#[derive(Debug, Default)]
pub struct Grouping {
    /// Of each word.
    numbers: Vec<u8>,
    n_classes: usize,
    /// Where the words of each class begin in the order of classes, and where the last ones end.
    starts: [usize; MAX_CLASSES + 1],
}

impl Grouping {
    /// Classes of base words; `firsts` are the first contexts of all classes but the first.
    pub fn set<W: Grouped>(&mut self, isa: Isa, layout: Layout, firsts: &[u8], base: &[u8]) {
        assert!(firsts.len() < MAX_CLASSES && base.len().is_multiple_of(W::BITS as usize / 8));
        let n = base.len() / (W::BITS as usize / 8);
        self.n_classes = firsts.len() + 1;
        self.numbers.resize(n, 0);
        let mut counts = [0; MAX_CLASSES];
        number::<W>(isa, layout, firsts, W::all(base), &mut self.numbers, &mut counts);
        let mut at = 0;
        for (start, count) in self.starts.iter_mut().zip(counts) {
            *start = at;
            at += count;
        }
        self.starts[MAX_CLASSES] = at;
        assert_eq!(at, n);
    }

    /// Number of words.
    pub fn n_words(&self) -> usize {
        self.numbers.len()
    }

    /// Where the words of a class lie in the order of classes.
    pub fn of_class(&self, class: usize) -> std::ops::Range<usize> {
        self.starts[class]..self.starts[class + 1]
    }

    /// Brings words into the order of classes.
    pub fn group<W: Grouped>(&self, isa: Isa, words: &[W], out: &mut [W]) {
        assert!(words.len() == self.n_words() && out.len() >= self.n_words());
        W::group(isa, self, words, out);
    }

    /// Brings words out of the order of classes; behind the last one lies some slack.
    pub fn ungroup<W: Grouped>(&self, isa: Isa, words: &[W], out: &mut [W]) {
        assert!(words.len() >= self.n_words() + SLACK_WORDS && out.len() == self.n_words());
        W::ungroup(isa, self, words, out);
    }
}

/// Numbers all words and counts those of each class.
fn number<W: Grouped>(isa: Isa, layout: Layout, firsts: &[u8], base: &[W::Bytes], numbers: &mut [u8], counts: &mut [usize; MAX_CLASSES]) {
    for_each_isa!(isa, number_any<W: Grouped>(layout: Layout, firsts: &[u8], base: &[W::Bytes], numbers: &mut [u8], counts: &mut [usize; MAX_CLASSES]));
}

#[inline(always)]
fn number_any<W: Grouped>(layout: Layout, firsts: &[u8], base: &[W::Bytes], numbers: &mut [u8], counts: &mut [usize; MAX_CLASSES]) {
    let (by, mask) = context_of(layout);
    let context = |word: &W::Bytes| W::get(*word).context(by, mask);
    for (numbers, base) in numbers.chunks_mut(RUN).zip(base.chunks(RUN)) {
        if let (Some(numbers), Some(base)) = (numbers.first_chunk_mut::<RUN>(), base.first_chunk::<RUN>()) {
            let mut contexts = [0; RUN];
            contexts
                .iter_mut()
                .zip(base)
                .for_each(|(context_of, word)| *context_of = context(word));
            *numbers = [0; RUN];
            for first in firsts {
                numbers
                    .iter_mut()
                    .zip(&contexts)
                    .for_each(|(number, context)| *number += (context >= first) as u8);
            }
        } else {
            for (number, word) in numbers.iter_mut().zip(base) {
                *number = firsts.iter().filter(|first| context(word) >= **first).count() as u8;
            }
        }
        for (class, count) in counts[..firsts.len() + 1].iter_mut().enumerate() {
            *count += numbers.iter().map(|number| (*number == class as u8) as u8).sum::<u8>() as usize;
        }
    }
}

/// Words that can be grouped.
pub trait Grouped: Word {
    /// See [`Grouping::group`].
    fn group(isa: Isa, grouping: &Grouping, words: &[Self], out: &mut [Self]);
    /// See [`Grouping::ungroup`].
    fn ungroup(isa: Isa, grouping: &Grouping, words: &[Self], out: &mut [Self]);
}

fn group<W: Word>(numbers: &[u8], at: &mut [usize; MAX_CLASSES + 1], words: &[W], out: &mut [W]) {
    for (&class, &word) in numbers.iter().zip(words) {
        let at = &mut at[class as usize];
        out[*at] = word;
        *at += 1;
    }
}

fn ungroup<W: Word>(numbers: &[u8], at: &mut [usize; MAX_CLASSES + 1], words: &[W], out: &mut [W]) {
    for (&class, word) in numbers.iter().zip(out) {
        let at = &mut at[class as usize];
        *word = words[*at];
        *at += 1;
    }
}

macro_rules! grouped {
    ($word:ty $(, $kernels:ident)?) => {
        impl Grouped for $word {
            fn group(isa: Isa, grouping: &Grouping, words: &[Self], out: &mut [Self]) {
                let mut at = grouping.starts;
                let n_done = 0;
                $(#[cfg(target_arch = "x86_64")]
                let n_done = if isa.level() == crate::simd::Level::Avx512 {
                    // SAFETY: holding an `Isa` of that level proves that the machine has its instructions.
                    unsafe { avx512::$kernels::group(grouping, &mut at, words, out) }
                } else {
                    n_done
                };)?
                let _ = isa;
                group(&grouping.numbers[n_done..], &mut at, &words[n_done..], out);
            }

            fn ungroup(isa: Isa, grouping: &Grouping, words: &[Self], out: &mut [Self]) {
                let mut at = grouping.starts;
                let n_done = 0;
                $(#[cfg(target_arch = "x86_64")]
                let n_done = if isa.level() == crate::simd::Level::Avx512 {
                    // SAFETY: as above.
                    unsafe { avx512::$kernels::ungroup(grouping, &mut at, words, out) }
                } else {
                    n_done
                };)?
                let _ = isa;
                ungroup(&grouping.numbers[n_done..], &mut at, words, &mut out[n_done..]);
            }
        }
    };
}

grouped!(u8, bytes);
grouped!(u16, halves);
grouped!(u32, words);
grouped!(u64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<W: Grouped + std::fmt::Debug>(layout: Layout, firsts: &[u8], seed: u64, n: usize) {
        let mut x = seed | 1;
        let bytes: Vec<u8> = (0..n * W::BITS as usize / 8)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 24) as u8
            })
            .collect();
        let words: Vec<W> = W::all(&bytes).iter().map(|word| W::get(*word)).collect();
        let mut first: Option<Vec<W>> = None;
        for isa in Isa::available() {
            let mut grouping = Grouping::default();
            grouping.set::<W>(isa, layout, firsts, &bytes);
            let mut grouped = vec![W::default(); n + SLACK_WORDS];
            grouping.group(isa, &words, &mut grouped);
            let (by, mask) = context_of(layout);
            for class in 0..=firsts.len() {
                for word in &grouped[grouping.of_class(class)] {
                    let context = word.context(by, mask);
                    assert!(class == 0 || context >= firsts[class - 1]);
                    assert!(class == firsts.len() || context < firsts[class]);
                }
            }
            let mut back = vec![W::default(); n];
            grouping.ungroup(isa, &grouped, &mut back);
            assert_eq!(back, words, "{isa}");
            assert_eq!(&grouped, first.get_or_insert_with(|| grouped.clone()), "{isa}");
        }
    }

    proptest! {
        #[test]
        fn words_come_back_in_their_order(mut firsts in prop::collection::vec(1u8.., 0..15), n in 0usize..700, seed: u64) {
            firsts.sort_unstable();
            firsts.dedup();
            check::<u8>(Layout::F8, &firsts, seed, n);
            check::<u16>(Layout::Bf16, &firsts, seed, n);
            check::<u32>(Layout::F32, &firsts, seed, n);
            check::<u64>(Layout::F64, &firsts, seed, n);
            check::<u32>(Layout::I32, &firsts, seed, n);
        }
    }
}
