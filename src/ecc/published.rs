//! The sidecar of the published Python package.

use super::code::Code;
use crate::digest::Md5Writer;
use crate::error::{Error, Kind, Result};
use crate::pool::Ticker;
use crate::sink::WriteAt;
use crate::source::ReadAt;
use rayon::prelude::*;

pub const MAGIC: &[u8; 8] = b"BSECC1__";
const VERSION: u16 = 1;
/// Bytes of a chunk of the file, and of its check.
const CHUNK_BYTES: usize = 223;
const CHECK_BYTES: usize = 32;
const HEADER_BYTES: u64 = 42;
/// Chunks that are mended between two reads.
const BATCH_CHUNKS: u64 = 1 << 14;

/// What its header says.
pub struct Published {
    n_chunks: u64,
    md5: [u8; 16],
}

impl Published {
    /// Whether a sidecar is one of these.
    pub fn is_one(sidecar: &impl ReadAt) -> Result<bool> {
        let mut magic = [0; MAGIC.len()];
        if sidecar.n_bytes() < HEADER_BYTES {
            return Ok(false);
        }
        sidecar.read_at(&mut magic, 0)?;
        Ok(magic == *MAGIC)
    }

    /// Reads the header.
    ///
    /// # Errors
    /// `Io`, `Version`, `Format`; `Corrupt` if the file has another length than the one that was protected.
    pub fn open(file: &impl ReadAt, sidecar: &impl ReadAt) -> Result<Self> {
        let mut header = [0; HEADER_BYTES as usize];
        sidecar.read_at(&mut header, 0)?;
        let field = |start: usize, n: usize| {
            header[start..start + n]
                .iter()
                .rev()
                .fold(0u64, |value, &byte| value << 8 | byte as u64)
        };
        let (version, chunk_bytes, check_bytes, n_chunks) = (field(8, 2), field(10, 4), field(14, 4), field(18, 8));
        if (version, chunk_bytes, check_bytes) != (VERSION as u64, CHUNK_BYTES as u64, CHECK_BYTES as u64) {
            let message =
                format!("a sidecar of version {version} with {check_bytes} bytes for each {chunk_bytes} is not read by this release");
            return Err(Error::new(Kind::Version, message));
        }
        let needed = n_chunks
            .checked_mul(CHECK_BYTES as u64)
            .and_then(|bytes| bytes.checked_add(HEADER_BYTES));
        if needed != Some(sidecar.n_bytes()) {
            return Err(Error::format("the sidecar is damaged: it has another length than its header says"));
        }
        if file.n_bytes().div_ceil(CHUNK_BYTES as u64) != n_chunks {
            return Err(Error::corrupt(format!(
                "cannot be mended: the file has {} bytes, which are not {n_chunks} chunks of {CHUNK_BYTES}; this kind of sidecar mends no change of length",
                file.n_bytes()
            )));
        }
        let md5 = header[26..].try_into().expect("the header ends with the md5");
        Ok(Self { n_chunks, md5 })
    }

    /// Hands the mended file on, part by part. Advances by its bytes.
    ///
    /// # Errors
    /// `Io`; `Corrupt` if a chunk cannot be mended, or the whole does not match its md5.
    fn mend(
        &self,
        file: &impl ReadAt,
        sidecar: &impl ReadAt,
        ticker: &Ticker,
        mut each: impl FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<()> {
        let code = Code::<CHECK_BYTES>::new();
        let mut digest = Md5Writer::default();
        let (mut n_lost, mut first_lost) = (0u64, None);
        for first in (0..self.n_chunks).step_by(BATCH_CHUNKS as usize) {
            let n = (self.n_chunks - first).min(BATCH_CHUNKS) as usize;
            let start = first * CHUNK_BYTES as u64;
            let there = (file.n_bytes() - start).min((n * CHUNK_BYTES) as u64) as usize;
            let (mut chunks, mut checks) = (vec![0; n * CHUNK_BYTES], vec![0; n * CHECK_BYTES]);
            file.read_at(&mut chunks[..there], start)?;
            sidecar.read_at(&mut checks, HEADER_BYTES + first * CHECK_BYTES as u64)?;
            let lost: Vec<usize> = (chunks.par_chunks_mut(CHUNK_BYTES))
                .zip(checks.as_chunks_mut::<CHECK_BYTES>().0)
                .enumerate()
                .filter_map(|(i, (chunk, check))| code.correct(chunk, check, CHECK_BYTES / 2).is_none().then_some(i))
                .collect();
            n_lost += lost.len() as u64;
            first_lost = first_lost.or(lost.iter().min().map(|&i| start + (i * CHUNK_BYTES) as u64));
            digest.update(&chunks[..there]);
            each(&chunks[..there], start)?;
            ticker.advance(there as u64)?;
        }
        if let Some(first) = first_lost {
            return Err(Error::corrupt(format!(
                "cannot be mended: {n_lost} chunks of {CHUNK_BYTES} bytes, the first of them at byte {first}, have more than {} wrong bytes",
                CHECK_BYTES / 2
            )));
        }
        if digest.finish().0 != self.md5 {
            return Err(Error::corrupt("what can be restored is not the file that the sidecar was made of"));
        }
        Ok(())
    }

    /// Whether the file can be mended, and whether it is as it was. Advances by its bytes.
    ///
    /// # Errors
    /// Those of [`Self::mend`].
    pub fn examine(&self, file: &impl ReadAt, sidecar: &impl ReadAt, ticker: &Ticker) -> Result<bool> {
        let mut is_intact = true;
        let mut original = Vec::new();
        self.mend(file, sidecar, ticker, |mended, start| {
            original.resize(mended.len(), 0);
            file.read_at(&mut original, start)?;
            is_intact &= original == mended;
            Ok(())
        })?;
        Ok(is_intact)
    }

    /// Writes the file as it was. Advances by its bytes.
    ///
    /// # Errors
    /// Those of [`Self::mend`].
    pub fn restore(&self, file: &impl ReadAt, sidecar: &impl ReadAt, out: &impl WriteAt, ticker: &Ticker) -> Result<()> {
        self.mend(file, sidecar, ticker, |mended, start| out.write_at(mended, start))
    }
}
