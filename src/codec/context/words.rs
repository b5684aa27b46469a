//! The words of a chunk, of `W` bytes each: those to code, or those to fill in.

/// Words by their index.
pub trait Words {
    /// The word, where words are known.
    fn get(&self, i: usize) -> u64;

    /// Fills in the word, where they are not.
    fn set(&mut self, i: usize, word: u64);
}

/// Words to code.
pub struct Source<'a, const W: usize>(pub &'a [u8]);

/// Words to fill in.
pub struct Target<'a, const W: usize>(pub &'a mut [u8]);

impl<const W: usize> Words for Source<'_, W> {
    #[inline(always)]
    fn get(&self, i: usize) -> u64 {
        let mut word = [0; 8];
        word[..W].copy_from_slice(&self.0[i * W..][..W]);
        u64::from_le_bytes(word)
    }

    #[inline(always)]
    fn set(&mut self, _: usize, _: u64) {}
}

impl<const W: usize> Words for Target<'_, W> {
    #[inline(always)]
    fn get(&self, _: usize) -> u64 {
        0
    }

    #[inline(always)]
    fn set(&mut self, i: usize, word: u64) {
        self.0[i * W..][..W].copy_from_slice(&word.to_le_bytes()[..W]);
    }
}
