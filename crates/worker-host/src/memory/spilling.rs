//! Writing data to disk, one value at a time: Python pickles it, a thread for blocking work compresses
//! and writes it, and only then it leaves the store's memory. Whoever wants it meanwhile gets it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::numbers::{Activity, Numbers};
use super::policy::{Measured, Round, Seldom, Step};
use super::spilled::{Packed, Spilled};
use super::{MemorySettings, format_bytes};
use crate::clock::now;
use crate::interpreter::Interpreter;
use crate::landing::Pool;
use crate::metrics::resident_bytes;
use crate::store::{Store, Victim};

/// After a disk that was full, or a limit that was reached, nothing is tried for so long. Then it is tried
/// again even without new data, each time after twice as long up to the longest.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const UNMANAGED: &str = "Unmanaged memory use is high. This may indicate a memory leak or the memory may not be \
     released to the OS; see https://distributed.dask.org/en/latest/worker-memory.html#memory-not-released-back-to-the-os \
     for more information.";

/// Keeps data and process within their limits. One per worker.
pub struct Memory {
    pub(super) settings: MemorySettings,
    pub(super) store: Store,
    pub(super) interpreter: Arc<dyn Interpreter>,
    /// Memory that data of peers comes into.
    pub(super) landing: Pool,
    /// What spilling has cost.
    pub(super) numbers: Arc<Numbers>,
    folder: PathBuf,
    next_file: AtomicU64,
    wake: Notify,
    process_is_large: AtomicBool,
    /// Whether there is too much data in memory, and some of it on its way out.
    full: watch::Sender<bool>,
    /// No use to try before that.
    not_before: Mutex<Option<Instant>>,
}

/// Why a value stays in memory.
#[derive(Debug, thiserror::Error)]
enum StayError {
    #[error("{0}")]
    Unpicklable(String),
    #[error("Spill file on disk reached capacity; keeping data in memory")]
    Capacity,
    #[error("Spill to disk failed; keeping data in memory: {0}")]
    Disk(#[from] io::Error),
    #[error("the worker is ending")]
    Ending,
}

/// When something was last said.
struct Told {
    unmanaged: Seldom,
    capacity: Seldom,
    disk: Seldom,
}

impl Memory {
    /// Files go to the folder `storage` of the worker's, which is made when the first one is written.
    pub(crate) fn new(
        settings: MemorySettings,
        store: Store,
        interpreter: Arc<dyn Interpreter>,
        local_directory: &str,
    ) -> Arc<Self> {
        Arc::new(Self {
            landing: Pool::new(&settings.thresholds),
            settings,
            store,
            interpreter,
            numbers: Arc::default(),
            folder: PathBuf::from(local_directory).join("storage"),
            next_file: AtomicU64::new(0),
            wake: Notify::new(),
            process_is_large: AtomicBool::new(false),
            full: watch::Sender::new(false),
            not_before: Mutex::new(None),
        })
    }

    /// Memory that large messages are read into.
    pub fn landing(&self) -> &Pool {
        &self.landing
    }

    /// Settings in force.
    pub fn settings(&self) -> &MemorySettings {
        &self.settings
    }

    /// What spilling has cost: `(activity, unit, value)`, in stock's names.
    pub fn cumulative(&self) -> Vec<(&'static str, &'static str, f64)> {
        let sizes = self.store.sizes();
        let mut all = self.numbers.all();
        if self.settings.thresholds.spills() && sizes.memory_reads > 0 {
            all.push(("memory-read", "count", sizes.memory_reads as f64));
            all.push(("memory-read", "bytes", sizes.memory_read_bytes as f64));
        }
        all
    }

    /// What is larger than this is the first to go.
    pub(crate) fn most_managed(&self) -> u64 {
        self.settings.thresholds.most_managed()
    }

    /// Data came in: spills if it is too much.
    pub(crate) fn check(&self) {
        let limited = self.settings.thresholds.target.is_some();
        if limited && self.has_too_much() && !self.is_failing() {
            self.full.send_replace(true);
            self.wake.notify_one();
        }
    }

    /// The process was measured and is too large.
    pub(super) fn shrink_process(&self) {
        if !self.is_failing() {
            self.process_is_large.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    /// Whether a task may begin at once. If not, data is on its way to disk.
    pub(crate) fn has_room(&self) -> bool {
        !*self.full.borrow()
    }

    /// Waits until there is room for results of more tasks, or none can be made.
    pub(crate) async fn room(&self) {
        self.full.subscribe().wait_for(|full| !full).await.ok();
    }

    fn has_too_much(&self) -> bool {
        self.store.sizes().memory > self.most_managed()
    }

    fn is_failing(&self) -> bool {
        let not_before = *self.not_before.lock();
        not_before.is_some_and(|at| Instant::now() < at)
    }

    /// Spills whenever it has to, until the worker ends.
    pub(crate) async fn spill(self: Arc<Self>) {
        let mut told = Told {
            unmanaged: Seldom::new(300.0),
            capacity: Seldom::new(10.0),
            disk: Seldom::new(10.0),
        };
        let mut pause = Duration::ZERO;
        loop {
            let again = async {
                match self.is_failing() && self.has_too_much() {
                    true => tokio::time::sleep(pause).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = again => {}
            }
            self.round(&mut told).await;
            self.full.send_replace(false);
            pause = match self.is_failing() {
                true => (pause * 2).clamp(PAUSE_AFTER_FAILURE, LONGEST_PAUSE),
                false => Duration::ZERO,
            };
        }
    }

    async fn round(&self, told: &mut Told) {
        let thresholds = &self.settings.thresholds;
        let mut round = Round::default();
        loop {
            if self.process_is_large.swap(false, Ordering::Relaxed) {
                round.process_is_large(thresholds, process());
            }
            let measured = Measured {
                process: if round.is_for_process() { process() } else { 0 },
                managed: self.store.sizes().memory,
            };
            match round.step(thresholds, measured) {
                Step::Done => return,
                Step::Collect => {
                    self.interpreter.forget(Vec::new(), true).await.ok();
                    round.has_collected();
                }
                Step::Evict => {
                    let Some(victim) = self.store.oldest() else {
                        if round.may_collect() {
                            self.interpreter.forget(Vec::new(), true).await.ok();
                            round.has_collected();
                            continue;
                        }
                        if round.is_for_process() && told.unmanaged.now(now().0) {
                            self.tell_unmanaged(measured);
                        }
                        return;
                    };
                    match self.evict(&victim).await {
                        Ok(()) => round.has_spilled(victim.nbytes),
                        Err(error) => {
                            if !self.stays(&victim, &error, told) {
                                return;
                            }
                        }
                    }
                    if !self.has_too_much() {
                        self.full.send_replace(false);
                    }
                }
            }
        }
    }

    /// Says why, and whether to go on with others.
    fn stays(&self, victim: &Victim, error: &StayError, told: &mut Told) -> bool {
        let unpicklable = matches!(error, StayError::Unpicklable(_));
        match error {
            StayError::Unpicklable(traceback) => {
                let key = victim.key.repr();
                tracing::error!(target: "distributed.spill", "Failed to pickle {key}\n{traceback}");
            }
            StayError::Capacity if told.capacity.now(now().0) => {
                tracing::warn!(target: "distributed.spill", "{error}");
            }
            StayError::Disk(_) if told.disk.now(now().0) => {
                tracing::error!(target: "distributed.spill", "{error}");
            }
            _ => {}
        }
        self.store.stays(victim, unpicklable);
        if !unpicklable {
            *self.not_before.lock() = Some(Instant::now() + PAUSE_AFTER_FAILURE);
        }
        unpicklable
    }

    async fn evict(&self, victim: &Victim) -> Result<(), StayError> {
        let start = Instant::now();
        let packed = self.interpreter.pack(victim.object.clone()).await;
        let frames = packed
            .map_err(|_| StayError::Ending)?
            .map_err(StayError::Unpicklable)?;
        self.numbers.took(Activity::Serialize, start.elapsed());
        let name = self.next_file.fetch_add(1, Ordering::Relaxed);
        let (folder, numbers) = (self.folder.clone(), Arc::clone(&self.numbers));
        let compression = self.settings.compression;
        let used = self.store.sizes().spilled_disk;
        let room = self.settings.max_spill.map(|max| max.saturating_sub(used));
        let written = tokio::task::spawn_blocking(move || {
            let packed = Packed::new(frames, compression, &numbers);
            let length = packed.len();
            if room.is_some_and(|room| length > room) {
                return Err(StayError::Capacity);
            }
            let path = folder.join(name.to_string());
            numbers.timed(Activity::DiskWrite, || {
                std::fs::create_dir_all(&folder)?;
                packed.write(&path)
            })?;
            numbers.add(Activity::DiskWrite, length);
            Ok((path, length))
        });
        let (path, length) = written.await.map_err(|_| StayError::Ending)??;
        let file = Spilled::new(path, length, &victim.object);
        let mut out = vec![victim.object.clone()];
        out.extend(self.store.spilled(victim, file));
        // Only when Python has let go of it is the memory free.
        self.interpreter.forget(out, false).await.ok();
        Ok(())
    }

    fn tell_unmanaged(&self, measured: Measured) {
        let limit = self.settings.thresholds.limit.unwrap_or(0);
        let unmanaged = measured.process.saturating_sub(measured.managed);
        tracing::warn!(
            target: "distributed.worker.memory",
            "{UNMANAGED} -- Unmanaged memory: {} -- Worker memory limit: {}",
            format_bytes(unmanaged),
            format_bytes(limit),
        );
    }
}

fn process() -> u64 {
    resident_bytes().unwrap_or_default()
}
