//! Words ⇄ their differences to base words, many at a time.
#![allow(unsafe_code)]

use super::number::Word;
use crate::simd::{Isa, for_each_isa};

/// Words that are looked at together for bits that are zero in all of them.
const RUN: usize = 1 << 12;

/// Writes the difference of every word to its base word.
pub fn differences<W: Word>(isa: Isa, sign: bool, words: &[u8], base: &[u8], out: &mut [W]) {
    let (words, base) = (W::all(words), W::all(base));
    assert!(words.len() == out.len() && base.len() == out.len());
    for_each_isa!(isa, differences_any<W: Word>(sign: bool, words: &[W::Bytes], base: &[W::Bytes], out: &mut [W]));
}

#[inline(always)]
fn differences_any<W: Word>(sign: bool, words: &[W::Bytes], base: &[W::Bytes], out: &mut [W]) {
    let all = out.iter_mut().zip(words.iter().zip(base));
    if sign {
        all.for_each(|(out, (word, base))| *out = W::get(*word).difference::<true>(W::get(*base)));
    } else {
        all.for_each(|(out, (word, base))| *out = W::get(*word).difference::<false>(W::get(*base)));
    }
}

/// The inverse of [`differences`].
pub fn restore<W: Word>(isa: Isa, sign: bool, differences: &[W], base: &[u8], out: &mut [u8]) {
    let (base, out) = (W::all(base), W::all_mut(out));
    assert!(differences.len() == out.len() && base.len() == out.len());
    for_each_isa!(isa, restore_any<W: Word>(sign: bool, differences: &[W], base: &[W::Bytes], out: &mut [W::Bytes]));
}

#[inline(always)]
fn restore_any<W: Word>(sign: bool, differences: &[W], base: &[W::Bytes], out: &mut [W::Bytes]) {
    let all = out.iter_mut().zip(differences.iter().zip(base));
    if sign {
        all.for_each(|(out, (difference, base))| *out = W::get(*base).moved::<true>(*difference).put());
    } else {
        all.for_each(|(out, (difference, base))| *out = W::get(*base).moved::<false>(*difference).put());
    }
}

/// Low bits that are zero in all differences of words to their base words; at least one is not counted as such.
pub fn common_zeros<W: Word>(isa: Isa, sign: bool, words: &[u8], base: &[u8]) -> u32 {
    let mut differences_of = [W::default(); RUN];
    let mut any = W::default();
    let run_bytes = RUN * W::BITS as usize / 8;
    for (words, base) in words.chunks(run_bytes).zip(base.chunks(run_bytes)) {
        let differences_of = &mut differences_of[..W::all(words).len()];
        differences(isa, sign, words, base, differences_of);
        any = differences_of.iter().fold(any, |any, difference| any.or(*difference));
        if any.widened() & 1 != 0 {
            return 0;
        }
    }
    any.widened().trailing_zeros().min(W::BITS - 1)
}
