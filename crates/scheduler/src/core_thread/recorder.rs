//! `--record FILE`: the events of the core on their way to a file. The core thread encodes, a thread
//! of its own writes; a slow disk holds back the core rather than fill the memory.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::effect::Effect;
use oxidask_scheduler_core::recording::{Encoder, Entry, Outcome};

/// Bytes collected before they go to the writer.
const CHUNK: usize = 256 << 10;
/// Chunks that may wait for the disk.
const WAITING: usize = 64;
/// Longest time that bytes stay with the core while events come in.
const DELAY: Duration = Duration::from_secs(1);

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    encoder: Encoder,
    left: u64,
    flushed: Instant,
    chunks: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
}

impl Recorder {
    /// A recording in a new file, of at most `max_bytes`.
    ///
    /// # Errors
    /// When the file cannot be made, or there is no thread.
    pub fn create(path: &Path, config: &CoreConfig, max_bytes: u64) -> std::io::Result<Self> {
        let file = File::create(path)?;
        let (chunks, received) = sync_channel(WAITING);
        let path = path.to_owned();
        let writer = std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || write(file, &path, &received))?;
        Ok(Self {
            encoder: Encoder::new(config),
            left: max_bytes,
            flushed: Instant::now(),
            chunks: Some(chunks),
            writer: Some(writer),
        })
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        if self.chunks.is_some() {
            self.encoder.push(entry);
        }
    }

    pub(super) fn outcome(&mut self, state: &Scheduler, effects: &[Effect]) {
        if self.chunks.is_some() {
            let outcome = Outcome::of(state, effects);
            self.encoder.push(&Entry::Outcome(outcome));
            if self.encoder.len() >= CHUNK {
                self.flush();
            }
        }
    }

    /// Called after each batch of events.
    pub(super) fn tick(&mut self) {
        if self.flushed.elapsed() >= DELAY {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.flushed = Instant::now();
        let Some(chunks) = self.chunks.as_ref().filter(|_| !self.encoder.is_empty()) else {
            return;
        };
        let chunk = self.encoder.take();
        let length = chunk.len() as u64;
        let full = length > self.left;
        self.left = self.left.saturating_sub(length);
        if full || chunks.send(chunk).is_err() {
            if full {
                tracing::warn!(target: "distributed.scheduler", "The recording is as long as oxidask.scheduler.record-max-bytes allows; it ends here");
            }
            // The writer has said why when it is the one that ended.
            self.chunks = None;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
        self.chunks = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(mut file: File, path: &Path, chunks: &Receiver<Vec<u8>>) {
    for chunk in chunks {
        if let Err(error) = file.write_all(&chunk) {
            tracing::error!(target: "distributed.scheduler", "The recording ends here: cannot write {}: {error}", path.display());
            return;
        }
    }
}
