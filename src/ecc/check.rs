//! Checks of eight bytes, eight bytes of the message at a time.

use super::code;
use std::sync::LazyLock;

/// Bytes of a check.
pub const CHECK_BYTES: usize = 8;
/// Wrong bytes that are mended in a message and its check.
pub const MAX_ERRORS: usize = 3;

/// In table `k` for each byte, the remainder of its multiple of x^(8 + k), the highest coefficient in the highest byte.
static REMAINDERS: LazyLock<Box<[[u64; 256]; 8]>> = LazyLock::new(|| {
    let code = code::Code::<CHECK_BYTES>::new();
    let mut message = Vec::with_capacity(8);
    let mut tables = Box::new([[0; 256]; 8]);
    for (k, table) in tables.iter_mut().enumerate() {
        for (byte, remainder) in table.iter_mut().enumerate() {
            message.clear();
            message.push(byte as u8);
            message.resize(k + 1, 0);
            *remainder = u64::from_be_bytes(code.check(&message));
        }
    }
    tables
});

/// The check of a message of whole eights of bytes.
pub fn check(message: &[u8]) -> u64 {
    let tables = &**REMAINDERS;
    let (words, rest) = message.as_chunks::<8>();
    assert!(rest.is_empty());
    words.iter().fold(0, |state, word| {
        let [a, b, c, d, e, f, g, h] = (state ^ u64::from_be_bytes(*word)).to_be_bytes().map(usize::from);
        tables[7][a] ^ tables[6][b] ^ tables[5][c] ^ tables[4][d] ^ tables[3][e] ^ tables[2][f] ^ tables[1][g] ^ tables[0][h]
    })
}

/// Mends a message of whole eights of bytes and its check; tells how many bytes were wrong, or None for more than [`MAX_ERRORS`].
pub fn correct(message: &mut [u8], stored: &mut u64) -> Option<usize> {
    let remainder = check(message) ^ *stored;
    if remainder == 0 {
        return Some(0);
    }
    let errors = code::errors(&remainder.to_be_bytes(), message.len() + CHECK_BYTES, MAX_ERRORS)?;
    for &(at, value) in &errors {
        match at.checked_sub(message.len()) {
            None => message[at] ^= value,
            Some(at) => *stored ^= (value as u64) << (8 * (CHECK_BYTES - 1 - at)),
        }
    }
    Some(errors.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecc::code::Code;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_code_with_eight_bytes(
            words in prop::collection::vec(any::<u64>(), 1..=30),
            errors in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let code = Code::<8>::new();
            let mut message: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
            let mut stored = check(&message);
            prop_assert_eq!(stored.to_be_bytes(), code.check(&message));
            let n = message.len();
            for (at, value) in errors {
                match at.index(n + 8) {
                    at if at < n => message[at] ^= value,
                    at => stored ^= (value as u64) << (8 * (at - n)),
                }
            }
            let (mut slow_message, mut slow_check) = (message.clone(), stored.to_be_bytes());
            let slow = code.correct(&mut slow_message, &mut slow_check, MAX_ERRORS);
            prop_assert_eq!(correct(&mut message, &mut stored), slow);
            prop_assert_eq!((message, stored.to_be_bytes()), (slow_message, slow_check));
        }
    }
}
