//! What the threads of a worker process run at the moment, in memory that outlives the process: its nanny
//! reads it when the process has died, and can say what it died of.
//!
//! A thread writes the key into its own slot when a task begins, and empties the slot when there is nothing
//! to do: one call of the system per task as long as there are tasks.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes of a slot: the length of the text, then the text.
const SLOT: usize = 256;
/// Bytes of the length.
const LENGTH: usize = 2;
/// Threads beyond these are not written of.
const MAX_SLOTS: u64 = 512;

/// The worker's side.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    used: u64,
    free: Vec<u64>,
}

impl Ledger {
    /// An empty one.
    ///
    /// # Errors
    /// When the system has no such memory.
    pub fn create() -> io::Result<Self> {
        let file = memfd_create("oxidask-running", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self {
            file: file.into(),
            slots: Mutex::default(),
        })
    }

    /// By which the nanny finds it.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// A slot for a thread; none if there are too many.
    pub fn slot(self: &Arc<Self>) -> Option<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match slots.free.pop() {
            Some(number) => number,
            None if slots.used < MAX_SLOTS => {
                slots.used += 1;
                slots.used - 1
            }
            None => return None,
        };
        Some(Slot {
            ledger: Arc::clone(self),
            number,
            filled: false,
        })
    }
}

/// A thread's slot; free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    ledger: Arc<Ledger>,
    number: u64,
    filled: bool,
}

impl Slot {
    /// The thread runs this now. Text that is too long is cut.
    pub fn fill(&mut self, text: &str) {
        let mut end = text.len().min(SLOT - LENGTH);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.as_bytes().get(..end).unwrap_or_default();
        let mut bytes = Vec::with_capacity(SLOT);
        bytes.extend(u16::try_from(end).unwrap_or_default().to_le_bytes());
        bytes.extend(text);
        self.write(&bytes);
        self.filled = true;
    }

    /// The thread runs nothing.
    pub fn empty(&mut self) {
        if std::mem::take(&mut self.filled) {
            self.write(&[0; LENGTH]);
        }
    }

    fn write(&self, bytes: &[u8]) {
        // Without memory for it the nanny knows a little less.
        let at = self.number * SLOT as u64;
        self.ledger.file.write_all_at(bytes, at).ok();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.empty();
        let slots = self.ledger.slots.lock();
        let mut slots = slots.unwrap_or_else(PoisonError::into_inner);
        slots.free.push(self.number);
    }
}

/// The nanny's side.
#[derive(Debug)]
pub struct LedgerReader(File);

impl LedgerReader {
    /// The ledger that a running process has under this descriptor.
    ///
    /// # Errors
    /// When the process is gone, or its files may not be looked at.
    pub fn open(pid: u32, descriptor: RawFd) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/fd/{descriptor}")).map(Self)
    }

    /// What runs, or ran when the process died.
    pub fn running(&self) -> Vec<String> {
        let mut running = Vec::new();
        let mut slot = [0; SLOT];
        for number in 0..MAX_SLOTS {
            let read = self.0.read_at(&mut slot, number * SLOT as u64);
            let read = read.unwrap_or(0);
            let Some(([low, high], text)) = slot.get(..read).and_then(<[u8]>::split_first_chunk)
            else {
                break;
            };
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            // Nothing, or it was dying as it wrote.
            if let Some(text) = text.get(..length).filter(|text| !text.is_empty()) {
                running.push(String::from_utf8_lossy(text).into_owned());
            }
        }
        running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_can_be_read_by_another_process() {
        let ledger = Arc::new(Ledger::create().expect("memory"));
        let reader = LedgerReader::open(std::process::id(), ledger.descriptor()).expect("opened");
        assert!(reader.running().is_empty());
        let mut first = ledger.slot().expect("a slot");
        let mut second = ledger.slot().expect("a slot");
        first.fill("x");
        second.fill("inc-1");
        assert_eq!(reader.running(), ["x", "inc-1"]);
        first.fill("a longer key");
        first.empty();
        assert_eq!(reader.running(), ["inc-1"]);
        drop(first);
        let mut third = ledger.slot().expect("a slot");
        third.fill(&"é".repeat(300));
        assert_eq!(reader.running(), ["é".repeat(127).as_str(), "inc-1"]);
    }

    #[test]
    fn there_is_an_end_to_slots() {
        let ledger = Arc::new(Ledger::create().expect("memory"));
        let slots: Vec<Option<Slot>> = (0..=MAX_SLOTS).map(|_| ledger.slot()).collect();
        assert_eq!(slots.iter().flatten().count() as u64, MAX_SLOTS);
        drop(slots);
        assert!(ledger.slot().is_some());
    }
}
