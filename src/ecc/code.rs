//! Reed–Solomon codes over bytes: a message, followed by its check.
//!
//! The check is what makes the word a multiple of g(x) = (x − 1)(x − 2)(x − 4)…, so a word r(x) that was changed shows it by the remainder of its
//! division by g. The remainder's values at the roots of g, the *syndromes*, depend on the errors alone. Berlekamp and Massey's algorithm finds
//! from them the polynomial whose roots tell where the errors are, Chien's search these roots, and Forney's formula the errors' values.

use super::field::{self, ORDER};

/// A code with checks of `C` bytes.
pub struct Code<const C: usize> {
    /// For each byte, the remainder of that multiple of x^C.
    remainders: Box<[[u8; C]; 256]>,
}

impl<const C: usize> Code<C> {
    /// The code.
    pub fn new() -> Self {
        // Highest coefficient first, without the leading 1.
        let mut generator = [0; C];
        for degree in 0..C {
            // Times (x − 2^degree).
            let root = field::power(degree);
            let mut product = [0; C];
            for k in 0..=degree.min(C - 1) {
                let above = if k < degree { generator[k] } else { 0 };
                let here = if k == 0 { 1 } else { generator[k - 1] };
                product[k] = above ^ field::mul(here, root);
            }
            generator = product;
        }
        let mut remainders = Box::new([[0; C]; 256]);
        for (byte, remainder) in remainders.iter_mut().enumerate() {
            *remainder = generator.map(|c| field::mul(byte as u8, c));
        }
        Self { remainders }
    }

    /// The check of a message.
    pub fn check(&self, message: &[u8]) -> [u8; C] {
        message.iter().fold([0; C], |state, &byte| {
            let row = &self.remainders[(state[0] ^ byte) as usize];
            std::array::from_fn(|i| row[i] ^ state.get(i + 1).copied().unwrap_or(0))
        })
    }

    /// Mends a word of a message and its check with at most `max_errors` wrong bytes; tells how many there were, or None for more.
    pub fn correct(&self, message: &mut [u8], check: &mut [u8; C], max_errors: usize) -> Option<usize> {
        let remainder: [u8; C] = {
            let computed = self.check(message);
            std::array::from_fn(|i| computed[i] ^ check[i])
        };
        let errors = errors(&remainder, message.len() + C, max_errors)?;
        for &(at, value) in &errors {
            match at.checked_sub(message.len()) {
                None => message[at] ^= value,
                Some(at) => check[at] ^= value,
            }
        }
        Some(errors.len())
    }
}

/// Places and values of the errors in a word of `n_bytes` that leaves this remainder, if there are at most `max_errors`.
pub fn errors(remainder: &[u8], n_bytes: usize, max_errors: usize) -> Option<Vec<(usize, u8)>> {
    assert!(n_bytes <= ORDER && 2 * max_errors <= remainder.len());
    if remainder.iter().all(|&byte| byte == 0) {
        return Some(Vec::new());
    }
    let syndromes: Vec<u8> = (0..remainder.len())
        .map(|i| remainder.iter().fold(0, |sum, &c| field::mul(sum, field::power(i)) ^ c))
        .collect();
    let locator = locator(&syndromes).filter(|locator| (2..=max_errors + 1).contains(&locator.len()))?;
    let n_errors = locator.len() - 1;
    let mut evaluator = vec![0; n_errors];
    for (i, sum) in evaluator.iter_mut().enumerate() {
        *sum = (0..=i).fold(0, |sum, k| sum ^ field::mul(locator[k], syndromes[i - k]));
    }
    let mut found = Vec::with_capacity(n_errors);
    for degree in 0..n_bytes {
        let inverse = field::power(ORDER - degree);
        if field::value(&locator, inverse) != 0 {
            continue;
        }
        // Only odd powers are left of a derivative where 1 + 1 = 0.
        let derivative = (1..locator.len())
            .step_by(2)
            .rev()
            .fold(0, |sum, i| field::mul(sum, field::mul(inverse, inverse)) ^ locator[i]);
        if derivative == 0 {
            return None;
        }
        let value = field::mul(field::power(degree), field::div(field::value(&evaluator, inverse), derivative));
        found.push((n_bytes - 1 - degree, value));
    }
    // Fewer roots than the degree: some errors would lie outside the word, so there were more than can be told.
    (found.len() == n_errors).then_some(found)
}

/// The polynomial with roots at the inverses of 2 to the powers of the errors' degrees, by Berlekamp and Massey; lowest coefficient, which is 1, first.
/// None if it has not as many roots as there would have to be errors.
fn locator(syndromes: &[u8]) -> Option<Vec<u8>> {
    let (mut current, mut before) = (vec![1], vec![1]);
    let (mut n_errors, mut shift, mut last) = (0, 1, 1);
    for i in 0..syndromes.len() {
        let discrepancy = (0..current.len().min(i + 1)).fold(0, |sum, k| sum ^ field::mul(current[k], syndromes[i - k]));
        if discrepancy == 0 {
            shift += 1;
            continue;
        }
        let factor = field::div(discrepancy, last);
        let mut next = current.clone();
        next.resize(next.len().max(before.len() + shift), 0);
        for (k, &c) in before.iter().enumerate() {
            next[k + shift] ^= field::mul(factor, c);
        }
        if 2 * n_errors <= i {
            n_errors = i + 1 - n_errors;
            before = std::mem::replace(&mut current, next);
            last = discrepancy;
            shift = 1;
        } else {
            current = next;
            shift += 1;
        }
    }
    current.truncate(current.iter().rposition(|&c| c != 0).unwrap_or(0) + 1);
    (current.len() == n_errors + 1).then_some(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The check by division as it is done by hand.
    fn divided<const C: usize>(message: &[u8]) -> Vec<u8> {
        let generator = (0..C).fold(vec![1], |g: Vec<u8>, i| {
            let mut product = vec![0; g.len() + 1];
            for (k, &c) in g.iter().enumerate() {
                product[k] ^= c;
                product[k + 1] ^= field::mul(c, field::power(i));
            }
            product
        });
        let mut rest = [message, &[0; C]].concat();
        for at in 0..message.len() {
            let factor = rest[at];
            for (k, &c) in generator.iter().enumerate() {
                rest[at + k] ^= field::mul(factor, c);
            }
        }
        rest.split_off(message.len())
    }

    fn mends<const C: usize>(mut message: Vec<u8>, errors: &BTreeMap<usize, u8>, max_errors: usize) {
        let code = Code::<C>::new();
        let whole = message.clone();
        let check = code.check(&message);
        assert_eq!(check[..], divided::<C>(&message)[..]);
        let mut damaged = check;
        let n = message.len() + C;
        let errors: BTreeMap<usize, u8> = errors.iter().map(|(at, value)| (at % n, *value)).collect();
        for (&at, &value) in &errors {
            if at < message.len() {
                message[at] ^= value;
            } else {
                damaged[at - message.len()] ^= value;
            }
        }
        match code.correct(&mut message, &mut damaged, max_errors) {
            Some(n) => {
                // More errors than can be mended may look like fewer of another word.
                assert!(n <= max_errors);
                assert_eq!(code.check(&message), damaged);
                if errors.len() <= max_errors {
                    assert_eq!((n, message, damaged), (errors.len(), whole, check));
                }
            }
            None => assert!(errors.len() > max_errors),
        }
    }

    proptest! {
        #[test]
        fn as_many_errors_as_promised_are_mended(
            message in prop::collection::vec(any::<u8>(), 1..=192),
            errors in prop::collection::btree_map(any::<usize>(), 1..=255u8, 0..30),
        ) {
            mends::<8>(message.clone(), &errors, 3);
            mends::<8>(message.clone(), &errors, 4);
            mends::<32>(message.clone(), &errors, 16);
            mends::<48>(message, &errors, 24);
        }
    }
}
