//! The inner loops, one file for each instruction set. Each gives the symbols, words and states of `scalar`, which defines them.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use super::decode::{DecodeTable, Stream};
use super::encode::{EncodeTable, Encoder};
use crate::simd::{Isa, Level};

/// A stream to be decoded: its table, itself, and room for its symbols.
pub type Decoding<'a, 'b> = (&'a DecodeTable, &'a mut Stream<'b>, &'a mut [u8]);

/// Decodes `symbols.len()` symbols. False if the words do not suffice; the symbols are then unspecified.
fn decode(isa: Isa, table: &DecodeTable, stream: &mut Stream<'_>, symbols: &mut [u8]) -> bool {
    match isa.level() {
        Level::Scalar => scalar::decode(table, stream, symbols),
        // SAFETY: holding an `Isa` of that level proves that the machine has its instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::decode(table, stream, symbols) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512::decode([(table, stream, symbols)]) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => unsafe { neon::decode(table, stream, symbols) },
    }
}

/// Decodes streams side by side, where that hides the latency of one step behind those of the others.
pub fn decode_together<const N: usize>(isa: Isa, streams: [Decoding<'_, '_>; N]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512 {
        // SAFETY: holding an `Isa` of that level proves that the machine has its instructions.
        return unsafe { avx512::decode(streams) };
    }
    streams
        .into_iter()
        .all(|(table, stream, symbols)| decode(isa, table, stream, symbols))
}

/// A stream to be encoded: its table, in which each symbol must have a frequency, its symbols, and what takes them.
pub type Encoding<'a, 'b> = (&'a EncodeTable, &'a [u8], &'b mut Encoder);

/// Encodes all symbols of a stream.
fn encode(isa: Isa, (table, symbols, encoder): Encoding<'_, '_>) {
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512 && table.is_exact {
        // SAFETY: holding an `Isa` of that level proves that the machine has its instructions.
        return unsafe { avx512::encode([(table, symbols, encoder)]) };
    }
    let _ = isa;
    scalar::encode(table, symbols, encoder);
}

/// Encodes streams side by side, for the same reason as [`decode_together`].
pub fn encode_together<const N: usize>(isa: Isa, streams: [Encoding<'_, '_>; N]) {
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512 && streams.iter().all(|(table, ..)| table.is_exact) {
        // SAFETY: holding an `Isa` of that level proves that the machine has its instructions.
        return unsafe { avx512::encode(streams) };
    }
    streams.into_iter().for_each(|stream| encode(isa, stream));
}

#[cfg(test)]
mod tests {
    use super::super::{FreqTable, LANES, SEED_BYTES, STATE_MIN, histogram};
    use super::*;
    use proptest::prelude::*;

    fn coded(isa: Isa, table: &FreqTable, symbols: &[u8], seed: &[u8; SEED_BYTES]) -> ([u8; super::super::STATES_BYTES], Vec<u8>) {
        let mut encoder = Encoder::default();
        encoder.begin(symbols.len(), seed);
        encode_together(isa, [(&EncodeTable::new(table), symbols, &mut encoder)]);
        let (states, words) = encoder.finish();
        (states, words.iter().flat_map(|w| w.to_le_bytes()).collect())
    }

    fn table_of(symbols: &[u8]) -> Option<FreqTable> {
        let mut counts = [0; 256];
        histogram::count(symbols, &mut counts);
        // No symbol may be left out, as a patch would be.
        counts.iter_mut().for_each(|n| *n *= 4096);
        FreqTable::fit(&counts).map(|(table, _)| table)
    }

    fn symbols() -> impl Strategy<Value = Vec<u8>> {
        (1u32..256, 0u32..8, 0usize..3000, any::<u64>()).prop_map(|(alphabet, skew, n, seed)| {
            let mut x = seed | 1;
            (0..n)
                .map(|_| {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    let zeros = (x >> 32).leading_zeros().saturating_sub(32).min(skew) as u8;
                    (((x as u32 & 0xFFFF) * alphabet) >> 16) as u8 >> zeros
                })
                .collect()
        })
    }

    /// The states `STATE_MIN`, `STATE_MIN + 1`, … as they are stored.
    fn lowest_states() -> [u8; super::super::STATES_BYTES] {
        std::array::from_fn(|i| (STATE_MIN + i as u32 / 4).to_le_bytes()[i % 4])
    }

    #[test]
    fn only_states_below_the_bound_take_a_word() {
        let mut counts = [0; 256];
        (counts[3], counts[7]) = (4095 << 12, 1 << 12);
        let (table, _) = FreqTable::fit(&counts).unwrap();
        assert_eq!(table.freq(3), 4095);
        for isa in Isa::available() {
            let mut stream = Stream::new(&lowest_states(), &[0; 4 * LANES]).unwrap();
            let mut out = [0; LANES];
            assert!(decode(isa, &DecodeTable::new(&table), &mut stream, &mut out));
            // Lane i comes to 16 · 4095 + i, and 16 · 4096 is the bound.
            let states: [u32; LANES] = std::array::from_fn(|i| if i < 16 { (65_520 + i as u32) << 16 } else { 65_520 + i as u32 });
            assert_eq!((stream.states, stream.words.len()), (states, 4 * LANES - 2 * 16), "{isa}");
            assert_eq!(out, [3; LANES], "{isa}");
        }
    }

    #[test]
    fn no_word_is_taken_from_behind_the_last() {
        // Eight bits a symbol: from the lowest states, all lanes take a word in one step and none in the next.
        let (table, _) = FreqTable::fit(&[1 << 12; 256]).unwrap();
        let memory = [0x5A; 8 * LANES];
        for (isa, n_words) in Isa::available().into_iter().flat_map(|isa| (0..=3 * LANES).map(move |n| (isa, n))) {
            let mut stream = Stream::new(&lowest_states(), &memory[..2 * n_words]).unwrap();
            let is_whole = decode(isa, &DecodeTable::new(&table), &mut stream, &mut [0; 4 * LANES]);
            let left = is_whole.then_some(stream.words.len() / 2);
            assert_eq!(left, n_words.checked_sub(2 * LANES), "{isa} {n_words}");
        }
    }

    proptest! {
        #[test]
        fn kernels_agree_and_come_back(symbols in symbols(), seed in any::<[u8; 32]>()) {
            let Some(table) = table_of(&symbols) else { return Ok(()) };
            if symbols.iter().any(|&s| table.freq(s) == 0) { return Ok(()) }
            let seed: [u8; SEED_BYTES] = std::array::from_fn(|i| seed[i % 32].wrapping_mul(i as u8 | 1));
            let (states, words) = coded(Isa::SCALAR, &table, &symbols, &seed);
            let slots = DecodeTable::new(&table);
            for isa in Isa::available() {
                prop_assert_eq!(&coded(isa, &table, &symbols, &seed), &(states, words.clone()), "{}", isa);
                let mut out = vec![0; symbols.len()];
                let mut stream = Stream::new(&states, &words).unwrap();
                prop_assert!(decode(isa, &slots, &mut stream, &mut out));
                prop_assert_eq!(&out, &symbols, "{}", isa);
                prop_assert_eq!(stream.finish(), Some(seed));

                let half = symbols.len() / 2;
                let (states_b, words_b) = coded(Isa::SCALAR, &table, &symbols[..half], &seed);
                let (mut a, mut b) = (Stream::new(&states, &words).unwrap(), Stream::new(&states_b, &words_b).unwrap());
                let mut pair = [Encoder::default(), Encoder::default()];
                pair[0].begin(symbols.len(), &seed);
                pair[1].begin(half, &seed);
                let coder = EncodeTable::new(&table);
                let [first, second] = &mut pair;
                encode_together(isa, [(&coder, &symbols, first), (&coder, &symbols[..half], second)]);
                prop_assert_eq!(pair[0].finish().0, states);
                prop_assert_eq!(pair[1].finish().0, states_b);
                prop_assert_eq!(pair[1].finish().1.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>(), words_b.clone());
                let mut out_b = vec![0; half];
                out.fill(0);
                prop_assert!(decode_together(isa, [(&slots, &mut a, &mut out), (&slots, &mut b, &mut out_b)]));
                prop_assert_eq!(&out, &symbols, "{}", isa);
                prop_assert_eq!(&out_b, &symbols[..half], "{}", isa);
                prop_assert_eq!((a.finish(), b.finish()), (Some(seed), Some(seed)));

                // Another table of the same symbols, and streams that end one after the other.
                let other = table_of(&[&symbols[half..], &[0, 255]].concat()).filter(|other| symbols.iter().all(|&s| other.freq(s) > 0));
                let tables = [&table, other.as_ref().unwrap_or(&table), &table, &table];
                let starts = [0, half / 2, half, symbols.len() / 3];
                let coded: [_; 4] = std::array::from_fn(|k| coded(isa, tables[k], &symbols[starts[k]..], &seed));
                let slots = tables.map(DecodeTable::new);
                let mut outs = starts.map(|start| vec![0; symbols.len() - start]);
                let mut streams = coded.each_ref().map(|(states, words)| Stream::new(states, words).unwrap());
                let mut jobs = slots.iter().zip(&mut streams).zip(&mut outs);
                let together = std::array::from_fn(|_| jobs.next().map(|((table, stream), out)| (&**table, stream, &mut out[..])).unwrap());
                prop_assert!(decode_together::<4>(isa, together));
                for (out, start) in outs.iter().zip(starts) {
                    prop_assert_eq!(&out[..], &symbols[start..], "{}", isa);
                }
                prop_assert!(streams.into_iter().all(|stream| stream.finish() == Some(seed)));
            }
        }

        #[test]
        fn damaged_words_are_decoded_alike(symbols in symbols(), cut in 0usize..64, flip in any::<(u16, u8)>()) {
            let Some(table) = table_of(&symbols) else { return Ok(()) };
            if symbols.iter().any(|&s| table.freq(s) == 0) { return Ok(()) }
            let (states, mut words) = coded(Isa::SCALAR, &table, &symbols, &[0; SEED_BYTES]);
            words.truncate(words.len().saturating_sub(2 * cut));
            if !words.is_empty() {
                let at = flip.0 as usize % words.len();
                words[at] ^= flip.1;
            }
            let slots = DecodeTable::new(&table);
            let all: Vec<_> = Isa::available().into_iter().map(|isa| {
                let mut out = vec![0; symbols.len()];
                let mut stream = Stream::new(&states, &words).unwrap();
                let is_whole = decode(isa, &slots, &mut stream, &mut out);
                is_whole.then(|| (out, stream.finish()))
            }).collect();
            prop_assert!(all.iter().all(|one| one == &all[0]));
        }
    }
}
