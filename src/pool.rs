//! Threads, and telling the caller how far they are.

use crate::error::{Error, Result};
use crate::limits::MAX_THREADS;
use crate::options::Progress;
use rayon::ThreadPool;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a progress function is called.
const INTERVAL: Duration = Duration::from_millis(100);

/// Who may do a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread alone: for work under a lock that the pool's other work needs too.
    One,
    /// All threads of the pool that the caller runs in, if it runs in one.
    Pool,
}

impl Threads {
    /// How many they are.
    pub fn count(self) -> usize {
        // Without a pool of its own, rayon would start one for the whole process, which does not survive a fork.
        match self {
            Threads::Pool if rayon::current_thread_index().is_some() => rayon::current_num_threads(),
            _ => 1,
        }
    }

    /// Does `work` on each item. The results stand in the order of the items.
    pub fn map<T: Send, R: Send>(self, items: Vec<T>, work: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
        if self.count() > 1 {
            items.into_par_iter().map(work).collect()
        } else {
            items.into_iter().map(work).collect()
        }
    }
}

/// Counts work that is done, and knows whether to stop.
#[derive(Default)]
pub struct Ticker {
    done: AtomicU64,
    must_stop: AtomicBool,
}

impl Ticker {
    /// Adds to the work that is done.
    ///
    /// # Errors
    /// `Interrupted` if the progress function asked to stop.
    pub fn advance(&self, n_bytes: u64) -> Result<()> {
        self.done.fetch_add(n_bytes, Ordering::Relaxed);
        if self.must_stop.load(Ordering::Relaxed) {
            Err(Error::interrupted())
        } else {
            Ok(())
        }
    }
}

/// Runs `work` on `threads` threads (0: one for each core), while the calling thread reports progress.
///
/// # Errors
/// Those of `work`; `Option` if so many threads cannot be had.
pub fn run<T: Send>(threads: usize, total: u64, progress: Progress<'_>, work: impl FnOnce(&Ticker) -> Result<T> + Send) -> Result<T> {
    if threads > MAX_THREADS {
        return Err(Error::option(format!("{threads} threads are more than {MAX_THREADS}")));
    }
    let pool = if threads == 0 { shared()? } else { Arc::new(start(threads)?) };
    let ticker = Ticker::default();
    let (sender, receiver) = channel::<()>();
    std::thread::scope(|scope| {
        let ticker = &ticker;
        let worker = scope.spawn(move || {
            // Dropped at the end, also when `work` panics, which wakes the loop below.
            let _sender = sender;
            pool.install(|| work(ticker))
        });
        while let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(INTERVAL) {
            if !progress(ticker.done.load(Ordering::Relaxed).min(total), total) {
                ticker.must_stop.store(true, Ordering::Relaxed);
            }
        }
        let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Asked once more, while the output has not got its name yet.
        if result.is_ok() && !progress(total, total) {
            return Err(Error::interrupted());
        }
        result
    })
}

fn start(threads: usize) -> Result<ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| Error::option(format!("{threads} threads: {error}")))
}

/// The threads for whoever asks for one on each core: several callers at once share them instead of having as many each.
fn shared() -> Result<Arc<ThreadPool>> {
    static SHARED: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);
    let process = std::process::id();
    let mut shared = lock(&SHARED);
    if let Some((of, pool)) = &*shared
        && *of == process
    {
        return Ok(pool.clone());
    }
    let pool = Arc::new(start(0)?);
    // A forked process has its parent's pool without the threads, which cannot even be told to end.
    std::mem::forget(shared.replace((process, pool.clone())));
    Ok(pool)
}

/// The part of `bytes` that is done if `done` of `of` is.
pub fn scaled(done: u64, of: u64, bytes: u64) -> u64 {
    if of == 0 {
        0
    } else {
        (done as u128 * bytes as u128 / of as u128) as u64
    }
}

/// Locks. A panic of another holder is passed on where its thread is joined, and leaves nothing half-done behind these locks.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
