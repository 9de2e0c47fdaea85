//! Recordings: all events of a scheduler in a file, to be run again. The form is versioned; nothing
//! here reads or writes files.
//!
//! A recording is [`MAGIC`] and then entries: the length of each in four bytes, little end first, and
//! the [`Entry`] in msgpack. User data is not in it. Since the core depends on nothing but its events,
//! running them again gives the same effects; the digest after each event is the proof.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::config::CoreConfig;
use crate::effect::Effect;
use crate::event::Event;
use crate::ids::Timestamp;
use crate::{Effects, Scheduler};

/// How a recording of this version begins.
pub const MAGIC: &[u8] = b"oxidask-recording 2\n";
/// Larger entries are taken for damage.
const MAX_ENTRY: usize = 4 << 30;

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// The settings; the first entry.
    Config(Box<CoreConfig>),
    /// [`Scheduler::handle`] was called.
    Event(Timestamp, Event),
    /// [`Scheduler::handle_timeout`] was called.
    Timeout(Timestamp),
    /// What came of the call before.
    Outcome(Outcome),
}

/// What one call of the core led to, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How many effects.
    pub effects: u32,
    /// Hash over their printed form.
    pub digest: u64,
    /// Value of [`Scheduler::transition_counter`] afterwards.
    pub transitions: u64,
}

impl Outcome {
    /// Of the call that added `effects`.
    pub fn of(scheduler: &Scheduler, effects: &[Effect]) -> Self {
        let mut digest = Digest(0xcbf2_9ce4_8422_2325);
        for effect in effects {
            // Writing into a number does not fail.
            let _ = write!(digest, "{effect:?}");
        }
        Self {
            effects: u32::try_from(effects.len()).unwrap_or(u32::MAX),
            digest: digest.0,
            transitions: scheduler.transition_counter(),
        }
    }
}

/// FNV-1a: the same on every machine.
struct Digest(u64);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// Turns entries into bytes.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
}

impl Encoder {
    /// The beginning of a recording.
    pub fn new(config: &CoreConfig) -> Self {
        let mut encoder = Self {
            buffer: MAGIC.to_vec(),
        };
        encoder.push(&Entry::Config(Box::new(config.clone())));
        encoder
    }

    /// Appends an entry.
    pub fn push(&mut self, entry: &Entry) {
        let start = self.buffer.len();
        self.buffer.extend([0; 4]);
        let written = rmp_serde::encode::write(&mut self.buffer, entry);
        let length = u32::try_from(self.buffer.len() - start - 4);
        match (written, length) {
            (Ok(()), Ok(length)) => {
                if let Some(place) = self.buffer.get_mut(start..start + 4) {
                    place.copy_from_slice(&length.to_le_bytes());
                }
            }
            // An event of more than 4 GiB; the replay will say that it differs from here on.
            _ => self.buffer.truncate(start),
        }
    }

    /// Bytes not taken yet.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The bytes so far; the next ones follow on them.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It is something else, or of another version.
    #[error("this is no recording of version 2 (it does not begin with {:?})", String::from_utf8_lossy(MAGIC).trim_end())]
    Magic,
    /// It has no settings.
    #[error("the recording does not begin with the settings of the scheduler")]
    NoConfig,
    /// An entry is damaged.
    #[error("entry {index} cannot be read: {source}")]
    Entry {
        /// Which, counted from 0.
        index: usize,
        /// Why not.
        source: rmp_serde::decode::Error,
    },
}

/// The entries of a recording. One that was cut off in the middle of an entry ends before it.
pub struct Entries<'a> {
    rest: &'a [u8],
    index: usize,
}

impl<'a> Entries<'a> {
    /// The settings, and the entries after them.
    ///
    /// # Errors
    /// When this is no recording.
    pub fn open(bytes: &'a [u8]) -> Result<(CoreConfig, Self), RecordingError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(RecordingError::Magic)?;
        let mut entries = Self { rest, index: 0 };
        match entries.next().transpose()? {
            Some(Entry::Config(config)) => Ok((*config, entries)),
            _ => Err(RecordingError::NoConfig),
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_ENTRY || length > rest.len() {
            self.rest = &[];
            return None;
        }
        let (entry, rest) = rest.split_at(length);
        self.rest = rest;
        let index = self.index;
        self.index += 1;
        Some(rmp_serde::from_slice(entry).map_err(|source| RecordingError::Entry { index, source }))
    }
}

/// A recording run again.
pub struct Replay {
    /// The state at its end.
    pub scheduler: Scheduler,
    /// Events and time-outs handled.
    pub calls: u64,
    /// The first call with other effects than recorded: its number and the two outcomes. There is
    /// none unless the core has changed since.
    pub divergence: Option<(u64, Outcome, Outcome)>,
}

impl Replay {
    /// Runs all of a recording, and shows what each call led to.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn run(
        bytes: &[u8],
        mut show: impl FnMut(&Entry, &Effects),
    ) -> Result<Self, RecordingError> {
        let (config, entries) = Entries::open(bytes)?;
        let mut replay = Self {
            scheduler: Scheduler::new(config),
            calls: 0,
            divergence: None,
        };
        let mut outcome = None;
        for entry in entries {
            let entry = entry?;
            let mut effects = Effects::new();
            match &entry {
                Entry::Event(now, event) => {
                    replay.scheduler.handle(*now, event.clone(), &mut effects);
                }
                Entry::Timeout(now) => replay.scheduler.handle_timeout(*now, &mut effects),
                Entry::Outcome(recorded) => {
                    if let Some(outcome) = outcome.take().filter(|o| o != recorded)
                        && replay.divergence.is_none()
                    {
                        replay.divergence = Some((replay.calls, *recorded, outcome));
                    }
                    continue;
                }
                Entry::Config(_) => continue,
            }
            replay.calls += 1;
            outcome = Some(Outcome::of(&replay.scheduler, &effects));
            show(&entry, &effects);
        }
        Ok(replay)
    }
}
