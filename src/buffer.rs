//! Memory for decoded tensors.

use crate::error::{Error, Result};
use crate::limits::ALIGN;

/// Bytes from which a buffer is a map of its own, which comes zeroed, in large pages where the system has them, and goes back when dropped.
const MAP_BYTES: usize = 1 << 18;

/// Zeroed bytes that are needed for a while: the allocator has memory that was used before, where that of a [`Buffer`] is fresh from the
/// system, which takes longer than filling it.
///
/// # Errors
/// `Io` of kind `OutOfMemory` if there is not enough.
pub fn scratch(n_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let room = usize::try_from(n_bytes).ok().and_then(|n| bytes.try_reserve_exact(n).ok());
    room.ok_or_else(|| Error::out_of_memory(n_bytes))?;
    bytes.resize(n_bytes as usize, 0);
    Ok(bytes)
}

/// Zeroed bytes that begin at a multiple of 64.
pub struct Buffer {
    store: Store,
    n_bytes: usize,
}

enum Store {
    Map(memmap2::MmapMut),
    Heap { bytes: Vec<u8>, start: usize },
}

impl Buffer {
    /// Takes memory.
    ///
    /// # Errors
    /// `Io` of kind `OutOfMemory` if there is not enough.
    pub fn new(n_bytes: u64) -> Result<Self> {
        let out_of_memory = || Error::out_of_memory(n_bytes);
        let n_bytes = usize::try_from(n_bytes).map_err(|_| out_of_memory())?;
        if n_bytes >= MAP_BYTES {
            let map = memmap2::MmapMut::map_anon(n_bytes).map_err(|_| out_of_memory())?;
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Ok(Self {
                store: Store::Map(map),
                n_bytes,
            });
        }
        let bytes = vec![0; n_bytes + ALIGN as usize];
        let start = bytes.as_ptr().align_offset(ALIGN as usize);
        Ok(Self {
            store: Store::Heap { bytes, start },
            n_bytes,
        })
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.store {
            Store::Map(map) => map,
            Store::Heap { bytes, start } => &bytes[*start..][..self.n_bytes],
        }
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.store {
            Store::Map(map) => map,
            Store::Heap { bytes, start } => &mut bytes[*start..][..self.n_bytes],
        }
    }
}
