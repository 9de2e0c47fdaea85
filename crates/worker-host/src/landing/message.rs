//! A message on its way into memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use oxidask_wire::connection::Landing;

use super::Area;
use super::mapping::{Mapping, Pages};

/// What is to be aligned in a message is aligned to so many bytes.
pub(super) const ALIGNMENT: usize = 64;
/// With more pages than this to be provided, a thread has them provided ahead of the data: the system
/// needs as long for that as for the data itself.
const AHEAD_FROM: usize = 16 << 20;
/// How far it is ahead at most. Never further than as much again as has arrived.
const AHEAD: usize = 64 << 20;
/// How much it asks for at once.
const STEP: usize = 2 << 20;

/// A message on its way.
pub(super) struct Incoming {
    area: Area,
    /// Where it begins, how much has arrived of it, and its length.
    start: usize,
    arrived: usize,
    length: usize,
    ahead: Option<Ahead>,
}

impl Incoming {
    /// The first `present` bytes of the memory are provided already. The memory must have room for the
    /// message and [`ALIGNMENT`] bytes.
    pub(super) fn new(area: Area, present: usize, length: usize, aligned: usize) -> Self {
        let start = (ALIGNMENT - aligned % ALIGNMENT) % ALIGNMENT;
        let missing = length.saturating_sub(present);
        let mapping = area.mapping.as_ref();
        let ahead = mapping.filter(|_| missing >= AHEAD_FROM);
        let ahead = ahead.and_then(|mapping| Ahead::start(mapping, present, length));
        Self {
            area,
            start,
            arrived: 0,
            length,
            ahead,
        }
    }
}

impl Landing for Incoming {
    fn room(&mut self) -> &mut [u8] {
        let (from, to) = (self.start + self.arrived, self.start + self.length);
        self.area.bytes_mut().get_mut(from..to).unwrap_or(&mut [])
    }

    fn filled(&mut self, nbytes: usize) {
        self.arrived = self.arrived.saturating_add(nbytes).min(self.length);
        if let Some(ahead) = &mut self.ahead {
            ahead.arrived(self.arrived);
        }
    }

    fn whole(self: Box<Self>) -> Bytes {
        let Self {
            mut area,
            start,
            length,
            ..
        } = *self;
        area.used = true;
        Bytes::from_owner(area).slice(start..start + length)
    }
}

/// A thread that has pages provided before data arrives for them.
struct Ahead {
    arrived: Arc<AtomicUsize>,
    told: usize,
    thread: JoinHandle<()>,
}

impl Ahead {
    fn start(mapping: &Mapping, present: usize, length: usize) -> Option<Self> {
        let arrived = Arc::new(AtomicUsize::new(0));
        let (pages, seen) = (mapping.pages(), Arc::clone(&arrived));
        let thread = thread::Builder::new().name("landing-ahead".into());
        let work = move || go_ahead(&pages, &seen, present, length);
        Some(Self {
            arrived,
            told: 0,
            thread: thread.spawn(work).ok()?,
        })
    }

    /// So many bytes of the message are here.
    fn arrived(&mut self, bytes: usize) {
        self.arrived.store(bytes, Ordering::Release);
        if bytes - self.told >= STEP || self.told == 0 {
            self.told = bytes;
            self.thread.thread().unpark();
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.arrived.store(usize::MAX, Ordering::Release);
        self.thread.thread().unpark();
    }
}

fn go_ahead(pages: &Pages, arrived: &AtomicUsize, present: usize, length: usize) {
    let mut done = present;
    loop {
        let here = arrived.load(Ordering::Acquire);
        done = done.max(here);
        if done >= length {
            return;
        }
        let goal = length.min(here + here.min(AHEAD));
        if done >= goal {
            thread::park();
            continue;
        }
        let next = goal.min(done + STEP);
        if !pages.populate(done, next) {
            return;
        }
        done = next;
    }
}
