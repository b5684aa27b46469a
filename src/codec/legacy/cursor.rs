//! Fields of a blob, one after the other.

use super::damaged;
use super::width::Width;
use crate::error::Result;

/// What is left of a blob.
#[derive(Clone, Copy)]
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, n_bytes: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n_bytes).ok_or_else(|| damaged("the blob ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes were taken"))
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of that width.
    pub fn number(&mut self, width: Width) -> Result<u16> {
        match width {
            Width::U8 => self.u8().map(u16::from),
            Width::U16 => self.u16(),
        }
    }

    /// Bytes behind a u32 that tells how many they are.
    pub fn prefixed(&mut self) -> Result<&'a [u8]> {
        let n_bytes = self.u32()? as usize;
        self.take(n_bytes)
    }

    /// `n` numbers of that width.
    pub fn numbers(&mut self, n: usize, width: Width) -> Result<Vec<u16>> {
        Ok(match width {
            Width::U8 => self.take(n)?.iter().map(|&byte| byte.into()).collect(),
            Width::U16 => chunks(self.take(2 * n)?).iter().map(|&pair| u16::from_le_bytes(pair)).collect(),
        })
    }

    /// `n` numbers of 32 bits.
    pub fn u32s(&mut self, n: usize) -> Result<Vec<u32>> {
        let bytes = self.take(n.checked_mul(4).ok_or_else(|| damaged("the blob ends early"))?)?;
        Ok(chunks(bytes).iter().map(|&word| u32::from_le_bytes(word)).collect())
    }

    /// The counts of an alphabet, of which the blob has those of `n` symbols: first their indices, then their counts.
    pub fn counts(&mut self, n: usize, index: Width, alphabet: usize) -> Result<Vec<u32>> {
        let indices = self.numbers(n, index)?;
        let counts = self.u32s(n)?;
        scattered(&indices, &counts, alphabet)
    }

    /// Parts of the rest, whose offsets stand before them: `n` and one more.
    pub fn parts(&mut self, n: usize) -> Result<Vec<&'a [u8]>> {
        let offsets = self.u32s(n.checked_add(1).ok_or_else(|| damaged("the blob ends early"))?)?;
        offsets
            .windows(2)
            .map(|pair| self.0.get(pair[0] as usize..pair[1] as usize))
            .collect::<Option<_>>()
            .ok_or_else(|| damaged("its parts do not lie in the blob"))
    }
}

/// Counts at their indices, zeros elsewhere.
pub fn scattered(indices: &[u16], counts: &[u32], alphabet: usize) -> Result<Vec<u32>> {
    let mut all = vec![0; alphabet];
    for (&index, &count) in indices.iter().zip(counts) {
        *all.get_mut(index as usize)
            .ok_or_else(|| damaged("a table names a symbol outside its alphabet"))? = count;
    }
    Ok(all)
}

/// Bytes in words of `N`; the callers take whole ones.
pub fn chunks<const N: usize>(bytes: &[u8]) -> &[[u8; N]] {
    bytes.as_chunks().0
}

/// [`chunks`], to be filled.
pub fn chunks_mut<const N: usize>(bytes: &mut [u8]) -> &mut [[u8; N]] {
    bytes.as_chunks_mut().0
}
