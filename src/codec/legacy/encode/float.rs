//! Floats: sign and exponent as one symbol, the mantissa as another or as bytes; FP8 whole.

use super::codeword::Counts;
use super::{Coded, Form, compressed, put_sized};
use crate::codec::legacy::Codec;
use crate::codec::legacy::width::Width;
use crate::dtype::Dtype;
use rayon::prelude::*;

/// Level of the mantissas' frames.
const MANTISSA_LEVEL: i32 = 9;

/// How a 16-bit float is cut, and the widths of the numbers in its tables.
struct Half {
    mantissa_bits: u32,
    /// Of the number of signs with exponents, and of each.
    sign_exponent: [Width; 2],
    /// Of an exponent.
    exponent: Width,
    /// Of the number of mantissas, and of each.
    mantissa: [Width; 2],
}

const BF16: Half = Half {
    mantissa_bits: 7,
    sign_exponent: [Width::U16, Width::U16],
    exponent: Width::U16,
    mantissa: [Width::U8, Width::U8],
};

const F16: Half = Half {
    mantissa_bits: 10,
    sign_exponent: [Width::U8, Width::U8],
    exponent: Width::U8,
    mantissa: [Width::U16, Width::U16],
};

/// Encodes a tensor of floats; None for other dtypes, and where a length does not fit its field. An empty tensor has an empty blob.
pub fn encode(dtype: Dtype, words: &[u8]) -> Option<Coded> {
    let (codec, blob) = match dtype {
        Dtype::BF16 => (Codec::Bf16Ac, halves(&BF16, words.as_chunks().0)),
        Dtype::F16 => (Codec::F16Ac, halves(&F16, words.as_chunks().0)),
        Dtype::F32 => (Codec::F32Ac, singles(words.as_chunks().0)),
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => (Codec::F8Cat, bytes(words)),
        _ => return None,
    };
    Some(Coded {
        form: Form::Float(codec),
        blob: if words.is_empty() { Vec::new() } else { blob? },
    })
}

fn number(n: usize) -> Option<[u8; 4]> {
    Some(u32::try_from(n).ok()?.to_le_bytes())
}

fn halves(half: &Half, words: &[[u8; 2]]) -> Option<Vec<u8>> {
    let mut blob = number(words.len())?.to_vec();
    let word = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) as usize;
    // That of every word tells those of its parts.
    let mut counts = vec![0u32; 1 << 16];
    words.iter().for_each(|bytes| counts[word(bytes)] += 1);
    let n_mantissas = 1usize << half.mantissa_bits;
    let n_exponents = (1 << 15) / n_mantissas;
    let sign_exponents: Vec<u32> = counts.chunks(n_mantissas).map(|counts| counts.iter().sum()).collect();
    let buckets: Vec<Vec<u32>> = (0..n_exponents)
        .map(|exponent| {
            let of = |sign: usize| &counts[(sign * n_exponents + exponent) * n_mantissas..][..n_mantissas];
            of(0).iter().zip(of(1)).map(|(plus, minus)| plus + minus).collect()
        })
        .collect();
    let starts: Vec<usize> = buckets
        .iter()
        .scan(0, |start, bucket| {
            let at = *start;
            *start += bucket.iter().map(|&count| count as usize).sum::<usize>();
            Some(at)
        })
        .collect();
    let (mut signs, mut mantissas) = (Vec::new(), Vec::new());
    let table = Counts(&sign_exponents);
    table.put(&mut signs, half.sign_exponent[0], half.sign_exponent[1]);
    let code_signs = || table.put_codeword(&mut signs, words.iter().map(|bytes| (word(bytes) / n_mantissas) as u16));
    let code_mantissas = || {
        let mut sorted = vec![0u16; words.len()];
        let mut next = starts.clone();
        for bytes in words {
            let at = &mut next[word(bytes) / n_mantissas % n_exponents];
            sorted[*at] = (word(bytes) % n_mantissas) as u16;
            *at += 1;
        }
        let occurring: Vec<usize> = (0..n_exponents).filter(|&exponent| next[exponent] > starts[exponent]).collect();
        let coded = occurring.par_iter().map(|&exponent| {
            let own = &sorted[starts[exponent]..next[exponent]];
            let mut coded = number(own.len())?.to_vec();
            let table = Counts(&buckets[exponent]);
            table.put(&mut coded, half.mantissa[0], half.mantissa[1]);
            table.put_codeword(&mut coded, own.iter().copied())?;
            Some(coded)
        });
        let coded: Vec<Vec<u8>> = coded.collect::<Option<_>>()?;
        mantissas.extend(number(occurring.len())?);
        occurring.iter().for_each(|&exponent| half.exponent.put(&mut mantissas, exponent));
        mantissas.extend(coded.concat());
        Some(())
    };
    let (coded, others) = rayon::join(code_signs, code_mantissas);
    coded.and(others)?;
    blob.extend(signs);
    put_sized(&mut blob, &mantissas)?;
    Some(blob)
}

fn singles(words: &[[u8; 4]]) -> Option<Vec<u8>> {
    let mut blob = number(words.len())?.to_vec();
    let symbol = |bytes: &[u8; 4]| (u32::from_le_bytes(*bytes) >> 23) as usize;
    let mut counts = vec![0u32; 1 << 9];
    words.iter().for_each(|bytes| counts[symbol(bytes)] += 1);
    let table = Counts(&counts);
    table.put(&mut blob, Width::U16, Width::U16);
    let plane = |place: usize| {
        // The highest bit of the third byte belongs to the exponent.
        let mask = if place == 2 { 0x7f } else { 0xff };
        let bytes: Vec<u8> = words.iter().map(|word| word[place] & mask).collect();
        compressed(&bytes, MANTISSA_LEVEL)
    };
    let (coded, planes) = rayon::join(
        || table.put_codeword(&mut blob, words.iter().map(|bytes| symbol(bytes) as u16)),
        || (0..3).into_par_iter().map(plane).collect::<Vec<_>>(),
    );
    coded?;
    planes.iter().try_for_each(|plane| put_sized(&mut blob, plane))?;
    Some(blob)
}

fn bytes(words: &[u8]) -> Option<Vec<u8>> {
    let mut blob = number(words.len())?.to_vec();
    let mut counts = vec![0u32; 1 << 8];
    words.iter().for_each(|&byte| counts[byte as usize] += 1);
    let table = Counts(&counts);
    table.put(&mut blob, Width::U16, Width::U8);
    table.put_codeword(&mut blob, words.iter().map(|&byte| byte.into()))?;
    Some(blob)
}
