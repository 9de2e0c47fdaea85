//! Going on with another holder when a worker is lost in the middle of its answer.
//!
//! By then the client knows the lengths of all frames and has some of the bytes, so only an answer
//! that begins with the same bytes and has the same lengths will do. Then what the client gets is
//! exactly the other holder's answer, whatever the first one would have sent.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_scheduler_core::task::TaskState;
use oxidask_wire::value::Value;

use super::search::{BUSY_PAUSE, Frames, Part, get_data};
use crate::context::Context;
use crate::peers::PeerError;

/// How often a holder is tried again that cannot be reached or breaks off.
const MAX_TRIES: u32 = 3;
/// Pause between looks for a holder, e.g. while a lost result is computed again.
const PAUSE: Duration = Duration::from_millis(200);

/// Where the frames of each key stand in an answer of a worker.
#[derive(Debug, Default)]
pub(super) struct Layout {
    entries: Vec<(Key, Range<usize>)>,
    lengths: Vec<usize>,
}

impl Layout {
    /// Of an answer as it came. Empty if the frames of keys are not apart: then nobody can go on.
    pub(super) fn of(part: &Part) -> Self {
        let start =
            |(key, value): &(Key, Value)| Some((key.clone(), value.marker()?.checked_sub(1)?));
        let starts: Option<Vec<(Key, usize)>> = part.data.iter().map(start).collect();
        let mut starts = starts.unwrap_or_default();
        starts.sort_by_key(|(_, start)| *start);
        let ends = starts.iter().skip(1).map(|(_, start)| *start);
        let ends: Vec<usize> = ends.chain([part.lengths.len()]).collect();
        let apart = starts.first().is_some_and(|(_, start)| *start == 0)
            && starts
                .iter()
                .zip(&ends)
                .all(|((_, start), end)| start < end);
        if !apart {
            return Self::default();
        }
        let entry = |((key, start), end)| (key, start..end);
        Self {
            entries: starts.into_iter().zip(ends).map(entry).collect(),
            lengths: part.lengths.clone(),
        }
    }

    fn lengths(&self, entry: usize) -> Option<&[usize]> {
        let (_, frames) = self.entries.get(entry)?;
        self.lengths.get(frames.clone())
    }

    fn size(&self, entry: usize) -> Option<usize> {
        let lengths = self.lengths(entry)?.iter();
        Some(lengths.fold(0, |sum, length| sum.saturating_add(*length)))
    }
}

/// How much of an answer the client has.
pub(super) struct Progress {
    layout: Layout,
    /// The key whose frames are being sent.
    entry: usize,
    /// Bytes of it that were sent, and what they were.
    sent: usize,
    check: crc32fast::Hasher,
}

impl Progress {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            entry: 0,
            sent: 0,
            check: crc32fast::Hasher::new(),
        }
    }

    /// These bytes go to the client.
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while let Some(size) = self.layout.size(self.entry) {
            let left = size.saturating_sub(self.sent);
            let (here, next) = bytes.split_at(left.min(bytes.len()));
            self.check.update(here);
            self.sent += here.len();
            if self.sent < size {
                return;
            }
            (self.entry, self.sent) = (self.entry + 1, 0);
            self.check.reset();
            bytes = next;
        }
    }

    /// Whether the client has everything.
    pub(super) fn is_complete(&self) -> bool {
        !self.layout.entries.is_empty() && self.entry >= self.layout.entries.len()
    }

    /// Keys that the client does not have completely.
    fn left(&self) -> impl Iterator<Item = &Key> {
        let left = self.layout.entries.iter().skip(self.entry);
        left.map(|(key, _)| key)
    }

    /// Whether an answer has the next keys, in the same order and with frames as long.
    fn is_continued_by(&self, other: &Layout) -> bool {
        let mut both = other.entries.iter().zip(self.left()).enumerate();
        !other.entries.is_empty()
            && both.all(|(i, ((theirs, _), ours))| {
                theirs == ours && other.lengths(i) == self.layout.lengths(self.entry + i)
            })
    }
}

/// Somebody who goes on with an answer.
pub(super) struct Successor {
    /// Bytes that were read already.
    pub(super) first: Option<Bytes>,
    pub(super) frames: Frames,
}

/// Looks for successors, for one gather.
pub(super) struct Succession<'a> {
    context: &'a Context,
    serializers: Value,
    /// How often each holder was tried; those whose results are others count as tried enough.
    tries: HashMap<Arc<str>, u32>,
    /// Ask for one key at a time.
    one_by_one: bool,
}

enum Candidate {
    /// This worker has so many of the next keys.
    Worker(Arc<str>, usize),
    /// Nobody yet.
    Later,
    Nobody,
}

enum Opened {
    Same(Successor),
    Busy,
    Different,
}

impl<'a> Succession<'a> {
    pub(super) fn new(context: &'a Context, serializers: Option<&Value>) -> Self {
        Self {
            context,
            serializers: serializers.cloned().unwrap_or_default(),
            tries: HashMap::new(),
            one_by_one: false,
        }
    }

    /// Somebody with the bytes that the client does not have yet, if there is anybody. Waits for
    /// results that are being computed again.
    pub(super) async fn after(&mut self, progress: &Progress) -> Option<Successor> {
        let keys: Vec<Key> = progress.left().cloned().collect();
        loop {
            let (worker, count) = match self.candidate(&keys).await {
                Candidate::Worker(worker, count) => (worker, count),
                Candidate::Later => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Candidate::Nobody => return None,
            };
            let asked = keys.get(..count).unwrap_or(&keys);
            match self.open(&worker, asked, progress).await {
                Ok(Opened::Same(successor)) => {
                    tracing::info!(target: "distributed.scheduler", "Results lost while a client was sent them: {worker} goes on");
                    return Some(successor);
                }
                Ok(Opened::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
                // Perhaps one of the later keys only.
                Ok(Opened::Different) if count > 1 => self.one_by_one = true,
                Ok(Opened::Different) => {
                    self.tries.insert(worker, MAX_TRIES);
                }
                Err(error) => {
                    tracing::info!(target: "distributed.scheduler", "Could not gather from {worker}: {error}");
                    *self.tries.entry(worker).or_default() += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Who to ask for the first of `keys`, and how many of those behind it the worker has, too.
    async fn candidate(&self, keys: &[Key]) -> Candidate {
        let (keys, tries) = (keys.to_vec(), self.tries.clone());
        let most = if self.one_by_one { 1 } else { keys.len() };
        let found = self.context.core.query(move |state| {
            let Some(first) = keys.first().and_then(|key| state.task(key)) else {
                return Candidate::Nobody;
            };
            if matches!(first.state(), TaskState::Erred | TaskState::Forgotten) {
                return Candidate::Nobody;
            }
            let tried = |worker: &Arc<str>| tries.get(worker).copied().unwrap_or_default();
            let holders = first.who_has().map(|worker| worker.address());
            let Some(worker) = holders.min_by_key(|worker| tried(worker)) else {
                return Candidate::Later;
            };
            if tried(worker) >= MAX_TRIES {
                return Candidate::Nobody;
            }
            let has = |key: &&Key| {
                let task = state.task(key);
                task.is_some_and(|task| task.who_has().any(|w| w.address() == worker))
            };
            let count = keys.iter().take(most).take_while(has).count();
            Candidate::Worker(Arc::clone(worker), count)
        });
        found.await.unwrap_or(Candidate::Nobody)
    }

    async fn open(
        &self,
        worker: &Arc<str>,
        keys: &[Key],
        progress: &Progress,
    ) -> Result<Opened, PeerError> {
        // Nothing is read ahead.
        let room = AtomicUsize::new(0);
        let serializers = self.serializers.clone();
        let Some(part) = get_data(self.context, worker, keys, serializers, &room).await? else {
            return Ok(Opened::Busy);
        };
        if !progress.is_continued_by(&Layout::of(&part)) {
            return Ok(Opened::Different);
        }
        let mut frames = part.frames;
        let (mut known, mut first) = (progress.sent, None);
        let mut check = crc32fast::Hasher::new();
        while known > 0 {
            let Some(mut piece) = frames.next().await? else {
                return Ok(Opened::Different);
            };
            let again = piece.split_to(known.min(piece.len()));
            check.update(&again);
            known -= again.len();
            first = (!piece.is_empty()).then_some(piece);
        }
        if check.finalize() != progress.check.clone().finalize() {
            return Ok(Opened::Different);
        }
        Ok(Opened::Same(Successor { first, frames }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key and the lengths of its frames.
    type Framed<'a> = (&'a str, &'a [usize]);

    /// An answer with these keys.
    fn part(keys: &[Framed<'_>]) -> Part {
        let mut part = Part {
            data: Vec::new(),
            lengths: Vec::new(),
            frames: Frames::Read(Default::default()),
        };
        for (key, lengths) in keys {
            let index = part.lengths.len() + 1;
            let marker = Value::map([("__Serialized__", index)]);
            part.data.push((Key::from(*key), marker));
            part.lengths.extend_from_slice(lengths);
        }
        part
    }

    fn left(progress: &Progress) -> (Vec<String>, usize) {
        (progress.left().map(Key::to_text).collect(), progress.sent)
    }

    #[test]
    fn what_the_client_has_is_known_by_key() {
        let answer = part(&[("a", &[2, 3]), ("b", &[4]), ("c", &[1, 0])]);
        let mut progress = Progress::new(Layout::of(&answer));
        let texts = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        progress.add(b"1234");
        assert_eq!(left(&progress), (texts(&["a", "b", "c"]), 4));
        progress.add(b"567");
        assert_eq!(left(&progress), (texts(&["b", "c"]), 2));
        let mut same = crc32fast::Hasher::new();
        same.update(b"67");
        assert_eq!(progress.check.clone().finalize(), same.finalize());
        progress.add(b"89x");
        assert_eq!(left(&progress), (texts(&[]), 0));
        progress.add(b"more than there is");
        assert_eq!(left(&progress), (texts(&[]), 0));
    }

    #[test]
    fn another_answer_must_have_the_same_keys_and_lengths() {
        let answer = part(&[("a", &[2]), ("b", &[4, 1]), ("c", &[1])]);
        let mut progress = Progress::new(Layout::of(&answer));
        progress.add(b"aab");
        let table: [(&[Framed<'_>], bool); 6] = [
            (&[("b", &[4, 1])], true),
            (&[("b", &[4, 1]), ("c", &[1])], true),
            (&[("b", &[4, 1]), ("c", &[2])], false),
            (&[("b", &[5])], false),
            (&[("c", &[1]), ("b", &[4, 1])], false),
            (&[], false),
        ];
        for (keys, expected) in table {
            let other = Layout::of(&part(keys));
            assert_eq!(progress.is_continued_by(&other), expected, "{keys:?}");
        }
    }

    #[test]
    fn answers_of_another_form_cannot_be_continued() {
        let mut mixed = part(&[("a", &[2]), ("b", &[4])]);
        mixed.data.reverse();
        assert_eq!(
            Layout::of(&mixed).entries.len(),
            2,
            "the order of frames counts"
        );
        for strange in [
            Value::Nil,
            Value::map([("__Serialized__", 2)]),
            Value::map([("__Serialized__", 70)]),
            Value::map([("__Serialized__", -1)]),
        ] {
            let mut part = part(&[("a", &[2]), ("b", &[4])]);
            part.data[0].1 = strange;
            let layout = Layout::of(&part);
            assert!(layout.entries.is_empty(), "{layout:?}");
            let mut progress = Progress::new(layout);
            progress.add(b"12");
            assert_eq!(left(&progress), (vec![], 0));
        }
    }
}
