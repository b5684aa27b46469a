//! Words ⇄ symbols, raw bits and low bytes.
//!
//! Each loop is written once, over runs of 32 words that a compiler turns into vectors, and compiled for each instruction set.
#![allow(unsafe_code)]

#[cfg(test)]
use super::layout::symbol_of;
use super::layout::{Layout, key_of};
use super::planes::{self, group_words, plane_bytes, widths};
use crate::simd::{Isa, for_each_isa};

/// Words that are handled together.
const RUN: usize = 32;

/// The low bytes at one place of all words of a block.
#[derive(Clone, Copy, Debug)]
pub enum LowBytes<'a> {
    /// The same in every word.
    Constant(u8),
    /// One for each word.
    Each(&'a [u8]),
}

/// Writes the symbol of every word; a word whose key the window does not show gets symbol 0. Returns whether there was one.
pub fn symbols(isa: Isa, layout: Layout, base: u16, words: &[u8], out: &mut [u8]) -> bool {
    assert_eq!(words.len(), out.len() * layout.word_bytes());
    for_each_isa!(isa, symbols_any(layout: Layout, base: u16, words: &[u8], out: &mut [u8]) -> bool)
}

/// Writes the raw-bit planes of all words, one after the other.
pub fn raw_planes(isa: Isa, layout: Layout, words: &[u8], out: &mut [u8]) {
    assert_eq!(out.len(), planes::raw_bytes(layout.raw_bits(), words.len() / layout.word_bytes()));
    for_each_isa!(isa, raw_planes_any(layout: Layout, words: &[u8], out: &mut [u8]))
}

/// Writes low byte `place` of all words.
pub fn low_bytes(isa: Isa, layout: Layout, place: usize, words: &[u8], out: &mut [u8]) {
    assert_eq!(words.len(), out.len() * layout.word_bytes());
    for_each_isa!(isa, low_bytes_any(layout: Layout, place: usize, words: &[u8], out: &mut [u8]))
}

/// Puts words together from their symbols, raw-bit planes (widest first) and low bytes (lowest first).
pub fn join(isa: Isa, layout: Layout, base: u16, symbols: &[u8], planes: &[&[u8]], low: &[LowBytes<'_>], out: &mut [u8]) {
    assert_eq!(out.len(), symbols.len() * layout.word_bytes());
    assert_eq!(low.len(), layout.low_bytes());
    let lengths = widths(layout.raw_bits()).map(|width| plane_bytes(width, symbols.len()));
    assert!(planes.iter().map(|plane| plane.len()).eq(lengths));
    for_each_isa!(isa, join_any(layout: Layout, base: u16, symbols: &[u8], planes: &[&[u8]], low: &[LowBytes<'_>], out: &mut [u8]))
}

/// Replaces the key of word `at`.
pub fn set_key(layout: Layout, words: &mut [u8], at: usize, key: u16) {
    let word = &mut words[at * layout.word_bytes()..][..layout.word_bytes()];
    put_head(
        layout,
        word,
        key << layout.raw_bits() | head(layout, word) & ((1 << layout.raw_bits()) - 1),
    );
}

/// The key of word `at`.
pub fn key(layout: Layout, words: &[u8], at: usize) -> u16 {
    head(layout, &words[at * layout.word_bytes()..][..layout.word_bytes()]) >> layout.raw_bits()
}

/// Key and raw bits of one word, the sign lowest.
#[inline(always)]
fn head(layout: Layout, word: &[u8]) -> u16 {
    match *word {
        [byte] if layout.has_sign() => byte.rotate_left(1) as u16,
        [byte] => byte as u16,
        [.., a, b] if layout.has_sign() => u16::from_le_bytes([a, b]).rotate_left(1),
        [.., b] => b as u16,
        [] => 0,
    }
}

/// The inverse of [`head`]; the low bytes stay.
#[inline(always)]
fn put_head(layout: Layout, word: &mut [u8], head: u16) {
    match word {
        [byte] if layout.has_sign() => *byte = (head as u8).rotate_right(1),
        [byte] => *byte = head as u8,
        [.., a, b] if layout.has_sign() => [*a, *b] = head.rotate_right(1).to_le_bytes(),
        [.., b] => *b = head as u8,
        [] => {}
    }
}

#[inline(always)]
fn symbols_any(layout: Layout, base: u16, words: &[u8], out: &mut [u8]) -> bool {
    match layout {
        Layout::Byte => {
            out.copy_from_slice(words);
            false
        }
        Layout::F8 => {
            out.iter_mut().zip(words).for_each(|(s, w)| *s = w & 0x7F);
            false
        }
        Layout::F16 => {
            out.iter_mut()
                .zip(words.as_chunks::<2>().0)
                .for_each(|(s, w)| *s = (u16::from_le_bytes(*w) << 1 >> 8) as u8);
            false
        }
        Layout::Bf16 => windowed::<2>(6, base, words, out),
        Layout::F32 => windowed::<4>(6, base, words, out),
        Layout::F64 => windowed::<8>(3, base, words, out),
        Layout::I16 => top::<2>(words, out),
        Layout::I32 => top::<4>(words, out),
        Layout::I64 => top::<8>(words, out),
    }
}

#[inline(always)]
fn top<const W: usize>(words: &[u8], out: &mut [u8]) -> bool {
    out.iter_mut().zip(words.as_chunks::<W>().0).for_each(|(s, w)| *s = w[W - 1]);
    false
}

#[inline(always)]
fn windowed<const W: usize>(raw_bits: u32, base: u16, words: &[u8], out: &mut [u8]) -> bool {
    let mut missed = 0;
    for (s, w) in out.iter_mut().zip(words.as_chunks::<W>().0) {
        let key = float_head(w) >> raw_bits;
        let d = key.wrapping_sub(base);
        let is_seen = (d.wrapping_sub(1) < 255) as u16;
        *s = (d * is_seen) as u8;
        missed |= (1 - is_seen) & (key != 0) as u16;
    }
    missed != 0
}

#[inline(always)]
fn low_bytes_any(layout: Layout, place: usize, words: &[u8], out: &mut [u8]) {
    match layout.word_bytes() {
        2 => out
            .iter_mut()
            .zip(words.as_chunks::<2>().0)
            .for_each(|(byte, word)| *byte = (u16::from_le_bytes(*word) >> (8 * place)) as u8),
        4 => out
            .iter_mut()
            .zip(words.as_chunks::<4>().0)
            .for_each(|(byte, word)| *byte = (u32::from_le_bytes(*word) >> (8 * place)) as u8),
        _ => out
            .iter_mut()
            .zip(words.as_chunks::<8>().0)
            .for_each(|(byte, word)| *byte = (u64::from_le_bytes(*word) >> (8 * place)) as u8),
    }
}

#[inline(always)]
fn raw_planes_any(layout: Layout, words: &[u8], out: &mut [u8]) {
    match layout {
        Layout::F8 => pack_planes::<1, 1>(words, out),
        Layout::Bf16 => pack_planes::<2, 6>(words, out),
        Layout::F16 => pack_planes::<2, 8>(words, out),
        Layout::F32 => pack_planes::<4, 6>(words, out),
        Layout::F64 => pack_planes::<8, 3>(words, out),
        _ => {}
    }
}

/// Key and raw bits of a float word of `W` bytes, the sign lowest.
#[inline(always)]
fn float_head<const W: usize>(word: &[u8; W]) -> u16 {
    // Whole words, so that vectors can load them.
    match W {
        1 => word[0].rotate_left(1) as u16,
        2 => u16::from_le_bytes(std::array::from_fn(|i| word[i % W])).rotate_left(1),
        4 => ((u32::from_le_bytes(std::array::from_fn(|i| word[i % W])) >> 16) as u16).rotate_left(1),
        _ => ((u64::from_le_bytes(std::array::from_fn(|i| word[i % W])) >> 48) as u16).rotate_left(1),
    }
}

#[inline(always)]
fn pack_planes<const W: usize, const R: u32>(words: &[u8], mut out: &mut [u8]) {
    let words = words.as_chunks::<W>().0;
    let fields: Vec<u8> = words.iter().map(|word| (float_head(word) & ((1 << R) - 1)) as u8).collect();
    let mut below = R;
    for width in widths(R) {
        below -= width;
        let mask = ((1u16 << width) - 1) as u8;
        let (plane, rest) = out.split_at_mut(plane_bytes(width, words.len()));
        out = rest;
        let n_groups = words.len() / group_words(width);
        let (groups, last_fields) = fields.split_at(n_groups * group_words(width));
        let (bytes, last) = plane.split_at_mut(n_groups * RUN);
        for (bytes, group) in bytes
            .as_chunks_mut::<RUN>()
            .0
            .iter_mut()
            .zip(groups.chunks_exact(group_words(width)))
        {
            // Eight bytes at a time: what a shift brings from the next byte is masked off, and no field reaches into it.
            let mut packed = [0u64; RUN / 8];
            let mask = u64::MAX / 255 * mask as u64;
            for (k, run) in group.as_chunks::<RUN>().0.iter().enumerate() {
                for (packed, fields) in packed.iter_mut().zip(run.as_chunks::<8>().0) {
                    *packed |= (u64::from_le_bytes(*fields) >> below & mask) << (k as u32 * width);
                }
            }
            for (bytes, packed) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(packed) {
                *bytes = packed.to_le_bytes();
            }
        }
        let last_fields: Vec<u8> = last_fields.iter().map(|field| field >> below & mask).collect();
        planes::pack(width, &last_fields, last);
    }
}

#[inline(always)]
fn join_any(layout: Layout, base: u16, symbols: &[u8], planes: &[&[u8]], low: &[LowBytes<'_>], out: &mut [u8]) {
    match layout {
        Layout::Byte => out.copy_from_slice(symbols),
        Layout::F8 => join_heads::<1, 1>(layout, base, symbols, planes, [&[]; 2], out),
        Layout::Bf16 => join_heads::<2, 6>(layout, base, symbols, planes, [&[]; 2], out),
        Layout::F16 => join_heads::<2, 8>(layout, base, symbols, planes, [&[]; 2], out),
        Layout::F32 => {
            let filled: [Vec<u8>; 2] = std::array::from_fn(|place| match low[place] {
                LowBytes::Constant(byte) => vec![byte; symbols.len()],
                LowBytes::Each(_) => Vec::new(),
            });
            let low: [&[u8]; 2] = std::array::from_fn(|place| match low[place] {
                LowBytes::Constant(_) => &filled[place][..],
                LowBytes::Each(bytes) => bytes,
            });
            join_heads::<4, 6>(layout, base, symbols, planes, low, out);
        }
        Layout::F64 => {
            join_heads::<8, 3>(layout, base, symbols, planes, [&[]; 2], out);
            join_low::<8>(low, out);
        }
        Layout::I16 => join_top::<2>(symbols, low, out),
        Layout::I32 => join_top::<4>(symbols, low, out),
        Layout::I64 => join_top::<8>(symbols, low, out),
    }
}

#[inline(always)]
fn join_top<const W: usize>(symbols: &[u8], low: &[LowBytes<'_>], out: &mut [u8]) {
    out.as_chunks_mut::<W>()
        .0
        .iter_mut()
        .zip(symbols)
        .for_each(|(word, s)| word[W - 1] = *s);
    join_low::<W>(low, out);
}

#[inline(always)]
fn join_low<const W: usize>(low: &[LowBytes<'_>], out: &mut [u8]) {
    let words = out.as_chunks_mut::<W>().0;
    for (place, low) in low.iter().enumerate() {
        match low {
            LowBytes::Constant(byte) => words.iter_mut().for_each(|word| word[place] = *byte),
            LowBytes::Each(bytes) => words.iter_mut().zip(*bytes).for_each(|(word, byte)| word[place] = *byte),
        }
    }
}

#[inline(always)]
fn join_heads<const W: usize, const R: u32>(layout: Layout, base: u16, symbols: &[u8], planes: &[&[u8]], low: [&[u8]; 2], out: &mut [u8]) {
    let words = out.as_chunks_mut::<W>().0;
    let n = symbols.len();
    let mut rest = planes.iter();
    let planes = [8, 4, 2, 1].map(|width| {
        if R & width != 0 {
            rest.next().copied().unwrap_or_default()
        } else {
            &[]
        }
    });
    // Whole groups of the narrowest plane are whole groups of all.
    let narrowest = group_words(1 << R.trailing_zeros());
    let n_whole = n / narrowest * narrowest;
    let runs = symbols[..n_whole].as_chunks::<RUN>().0.iter().zip(words.as_chunks_mut::<RUN>().0);
    for (run, (symbols, words)) in runs.enumerate() {
        let mut fields = [0u64; RUN / 8];
        put_fields::<8, R>(&mut fields, planes[0], run);
        put_fields::<4, R>(&mut fields, planes[1], run);
        put_fields::<2, R>(&mut fields, planes[2], run);
        put_fields::<1, R>(&mut fields, planes[3], run);
        let mut field_bytes = [0u8; RUN];
        for (bytes, field) in field_bytes.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *bytes = field.to_le_bytes();
        }
        let low = low.map(|bytes| bytes.get(run * RUN..).and_then(|rest| rest.get(..RUN)).unwrap_or(&[0; RUN]));
        put_heads::<W, R>(layout, base, symbols, &field_bytes, low, words);
    }
    if n_whole < n {
        let mut fields = vec![0; n - n_whole];
        for (width, plane) in [8, 4, 2, 1].into_iter().zip(planes).filter(|(width, _)| R & width != 0) {
            planes::unpack(width, &plane[plane_bytes(width, n_whole)..], &mut fields);
        }
        let zeros = vec![0; fields.len()];
        let low = low.map(|bytes| bytes.get(n_whole..).unwrap_or(&zeros));
        put_heads::<W, R>(layout, base, &symbols[n_whole..], &fields, low, &mut words[n_whole..]);
    }
}

/// Puts the fields of a run of words from a plane of width `W` below those in `fields`, if raw bits have such a plane. Eight bytes at a time:
/// fields never reach into the next byte, and what a shift brings from there is masked off.
#[inline(always)]
fn put_fields<const W: u32, const R: u32>(fields: &mut [u64; RUN / 8], plane: &[u8], run: usize) {
    if R & W == 0 {
        return;
    }
    let per_group = 8 / W as usize;
    let bytes: &[u8; RUN] = plane[run / per_group * RUN..][..RUN].try_into().expect("a run of bytes");
    let shift = (run % per_group) as u32 * W;
    let mask = u64::MAX / 255 * ((1 << W) - 1);
    for (field, bytes) in fields.iter_mut().zip(bytes.as_chunks::<8>().0) {
        let above = if W == 8 { 0 } else { *field << W };
        *field = above | u64::from_le_bytes(*bytes) >> shift & mask;
    }
}

/// Puts words together from symbols, raw bits and, for words of four bytes, two low bytes.
#[inline(always)]
fn put_heads<const W: usize, const R: u32>(
    layout: Layout,
    base: u16,
    symbols: &[u8],
    fields: &[u8],
    low: [&[u8]; 2],
    words: &mut [[u8; W]],
) {
    let heads = symbols.iter().zip(fields).map(|(&symbol, &field)| {
        let key = if layout.is_windowed() {
            key_of(symbol, base)
        } else {
            symbol as u16
        };
        key << R | field as u16
    });
    let words = words.iter_mut().zip(heads);
    // Whole words, so that vectors can store them.
    match W {
        1 => words.for_each(|(word, head)| word[0] = (head as u8).rotate_right(1)),
        2 => words.for_each(|(word, head)| *word = std::array::from_fn(|i| head.rotate_right(1).to_le_bytes()[i % 2])),
        4 => words.zip(low[0].iter().zip(low[1])).for_each(|((word, head), (&b0, &b1))| {
            let bytes = ((head.rotate_right(1) as u32) << 16 | (b1 as u32) << 8 | b0 as u32).to_le_bytes();
            *word = std::array::from_fn(|i| bytes[i % 4]);
        }),
        _ => words.for_each(|(word, head)| [word[W - 2], word[W - 1]] = head.rotate_right(1).to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_come_back_on_every_isa(layout in (0u8..9).prop_map(|id| Layout::from_id(id).unwrap()), n in 0usize..700, bytes in prop::collection::vec(any::<u8>(), 64), base in any::<u16>()) {
            let base = base % (layout.max_base() + 1);
            let words: Vec<u8> = (0..n * layout.word_bytes()).map(|i| bytes[i * 31 % 64].wrapping_add((i / 64) as u8)).collect();
            let mut first: Option<(Vec<u8>, Vec<u8>)> = None;
            for isa in Isa::available() {
                let mut seen = vec![0xEE; n];
                let missed = symbols(isa, layout, base, &words, &mut seen);
                let mut raw = vec![0xEE; planes::raw_bytes(layout.raw_bits(), n)];
                raw_planes(isa, layout, &words, &mut raw);
                let low: Vec<Vec<u8>> = (0..layout.low_bytes()).map(|place| {
                    let mut out = vec![0; n];
                    low_bytes(isa, layout, place, &words, &mut out);
                    out
                }).collect();
                let low: Vec<LowBytes> = low.iter().map(|b| LowBytes::Each(b)).collect();
                let mut back = vec![0xEE; words.len()];
                let mut rest = &raw[..];
                let planes: Vec<&[u8]> = widths(layout.raw_bits()).map(|width| rest.split_off(..plane_bytes(width, n)).unwrap()).collect();
                join(isa, layout, base, &seen, &planes, &low, &mut back);
                let mut any_missed = false;
                for (i, &seen) in seen.iter().enumerate() {
                    let key = key(layout, &words, i);
                    let symbol = if layout.is_windowed() { symbol_of(key, base) } else { Some(key as u8) };
                    prop_assert_eq!(seen, symbol.unwrap_or(0));
                    if symbol.is_none() {
                        set_key(layout, &mut back, i, key);
                        any_missed = true;
                    }
                }
                prop_assert_eq!(missed, any_missed);
                prop_assert_eq!(&back, &words, "{:?} {}", layout, isa);
                let first = first.get_or_insert_with(|| (seen.clone(), raw.clone()));
                prop_assert_eq!((&seen, &raw), (&first.0, &first.1));
            }
        }
    }
}
