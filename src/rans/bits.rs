//! Bit strings, lowest bit first, and variable-length integers.

/// Appends bits to bytes.
#[derive(Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    n_bits: usize,
}

impl BitWriter {
    /// Appends one bit.
    pub fn bit(&mut self, bit: bool) {
        if self.n_bits.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if bit {
            *self.bytes.last_mut().expect("a byte was just pushed") |= 1 << (self.n_bits % 8);
        }
        self.n_bits += 1;
    }

    /// The bytes, the last one filled with zeros.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads bits from bytes.
pub struct BitReader<'a> {
    bytes: &'a [u8],
    n_bits: usize,
}

impl<'a> BitReader<'a> {
    /// Starts at the lowest bit of the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, n_bits: 0 }
    }

    /// The next bit, or None at the end.
    pub fn bit(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.n_bits / 8)?;
        let bit = byte >> (self.n_bits % 8) & 1 != 0;
        self.n_bits += 1;
        Some(bit)
    }

    /// Bytes begun so far, or None if the rest of the last one is not zero.
    pub fn finish(self) -> Option<usize> {
        let n = self.n_bits.div_ceil(8);
        let rest = self.n_bits % 8;
        (rest == 0 || self.bytes[n - 1] >> rest == 0).then_some(n)
    }
}

/// Appends an unsigned LEB128 integer.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes an unsigned LEB128 integer off the front of `bytes`.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = (byte & 0x7F) as u64;
        if i == 9 && part > 1 {
            return None;
        }
        value |= part << (7 * i);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Takes `n` bytes off the front of `bytes`.
pub fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(head)
}

/// Takes one byte off the front of `bytes`.
pub fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    take(bytes, 1).map(|b| b[0])
}

/// Takes a u32 off the front of `bytes`.
pub fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes, 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_overlong_ones_do_not() {
        for value in [0, 1, 127, 128, 300, u32::MAX as u64, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut rest = &bytes[..];
            assert_eq!(take_varint(&mut rest), Some(value));
            assert!(rest.is_empty());
            assert_eq!(take_varint(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(take_varint(&mut &[0xFF; 11][..]), None);
    }
}
