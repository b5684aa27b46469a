//! Decoded words that the next reads may want again.

use crate::buffer::Buffer;
use crate::error::Result;
use crate::limits::KEPT_BYTES;
use crate::pool::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Decoded words by slot, of which some are kept.
pub struct Kept {
    slots: Vec<Mutex<Option<Arc<Buffer>>>>,
    /// Which are kept and their bytes, oldest first.
    order: Mutex<VecDeque<(usize, usize)>>,
}

impl Kept {
    /// Room for so many slots.
    pub fn new(n_slots: usize) -> Self {
        Self {
            slots: (0..n_slots).map(|_| Mutex::default()).collect(),
            order: Mutex::default(),
        }
    }

    /// The words of a slot. Whoever asks first decodes them, others wait. As they hold a lock meanwhile, `decode` must not wait for other
    /// work of the threads that may ask too.
    pub fn get(&self, slot: usize, decode: impl FnOnce() -> Result<Buffer>) -> Result<Arc<Buffer>> {
        let mut held = lock(&self.slots[slot]);
        if let Some(words) = &*held {
            return Ok(words.clone());
        }
        let words = Arc::new(decode()?);
        *held = Some(words.clone());
        drop(held);
        self.forget_old(slot, words.len());
        Ok(words)
    }

    /// The words of a slot, if they are there.
    pub fn find(&self, slot: usize) -> Option<Arc<Buffer>> {
        lock(&self.slots[slot]).clone()
    }

    /// Keeps the words of a slot.
    pub fn keep(&self, slot: usize, words: Arc<Buffer>) {
        let n_bytes = words.len();
        if lock(&self.slots[slot]).replace(words).is_none() {
            self.forget_old(slot, n_bytes);
        }
    }

    /// Notes that a slot has words now, and forgets the oldest of others if they are too many.
    fn forget_old(&self, slot: usize, n_bytes: usize) {
        let mut order = lock(&self.order);
        order.push_back((slot, n_bytes));
        while order.len() > 1 && order.iter().map(|(_, bytes)| bytes).sum::<usize>() > KEPT_BYTES {
            if let Some((oldest, _)) = order.pop_front() {
                *lock(&self.slots[oldest]) = None;
            }
        }
    }
}
