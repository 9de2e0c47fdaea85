//! Spans (since 2023.6.0): the parts of their work that clients gave a name (`distributed.span`), and
//! what is known of each. Workers label what they measure with a task's span, so every group of tasks
//! belongs to one: tasks of clients that name none to a default span.
//!
//! Spans outlive their tasks, within bounds; the oldest are forgotten first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashMap;
use indexmap::IndexMap;
use oxidask_key::Key;

use super::{Group, GroupId, GroupTable, PrefixId};
use crate::graph::{SpanNote, SpanNotes, SpanTag};
use crate::ids::Timestamp;
use crate::sets::IdSet;

/// Bytes that all spans may have, as counted here.
const MAX_BYTES: usize = 16 << 20;
/// Default spans kept. A client that computes one thing after the other makes many of them.
const MAX_DEFAULTS: usize = 1000;
/// Names of forgotten groups that a span keeps; more are counted as one.
const MAX_PAST_GROUPS: usize = 1000;
/// What clients said of a span: this many times code, and as often metadata.
const MAX_NOTES: usize = 100;
/// Outer spans of a span that are kept, and the span itself.
const MAX_DEPTH: usize = 100;
/// Changes of the number of threads that are kept.
const MAX_THREAD_CHANGES: usize = 10_000;

/// Bytes of a span, a forgotten group, a measurement and a note besides their texts.
const SPAN_BYTES: usize = 400;
const GROUP_BYTES: usize = 700;
const METRIC_BYTES: usize = 100;
const NOTE_BYTES: usize = 150;

/// Name of the group that stands for forgotten ones that are too many.
const MERGED: &str = "(merged)";

/// A span.
pub(crate) struct Span {
    pub(crate) id: Arc<str>,
    /// Of the outer spans and its own.
    pub(crate) tags: Vec<Arc<str>>,
    parent: Option<u64>,
    pub(crate) enqueued: Timestamp,
    /// What workers measured and whether it was always a whole number.
    pub(crate) metrics: IndexMap<Key, (f64, bool), foldhash::fast::FixedState>,
    pub(crate) metadata: Vec<SpanNote>,
    /// Without repetitions.
    pub(crate) code: Vec<SpanNote>,
    /// Its groups that were forgotten, by name: those of one name are one.
    pub(crate) past_groups: IndexMap<Arc<str>, Box<Group>, foldhash::fast::FixedState>,
    /// Its groups that exist.
    pub(crate) live_groups: usize,
    children: usize,
    bytes: usize,
}

impl Span {
    fn is_over(&self) -> bool {
        self.live_groups == 0 && self.children == 0
    }
}

/// All spans, by order of creation.
pub(crate) struct SpanTable {
    spans: BTreeMap<u64, Span>,
    by_id: HashMap<Arc<str>, u64, foldhash::fast::FixedState>,
    made: u64,
    bytes: usize,
    random: FixedState,
    defaults: VecDeque<u64>,
    /// The default span that is under way.
    open: Option<u64>,
    /// Its groups that were not done when last looked at.
    open_groups: IdSet<GroupId>,
    threads: VecDeque<(Timestamp, u64)>,
}

impl SpanTable {
    /// Default spans of different seeds have different ids.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            spans: BTreeMap::new(),
            by_id: HashMap::default(),
            made: 0,
            bytes: 0,
            random: FixedState::with_seed(seed),
            defaults: VecDeque::new(),
            open: None,
            open_groups: IdSet::default(),
            threads: VecDeque::new(),
        }
    }

    /// All of them, oldest first; a span comes after those it is in.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Span> {
        self.spans.values()
    }

    pub(crate) fn parent(&self, span: &Span) -> Option<&Span> {
        self.spans.get(&span.parent?)
    }

    /// The number of threads in the cluster since each time, oldest first.
    pub(crate) fn thread_changes(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        self.threads.iter().copied()
    }

    pub(crate) fn threads_changed(&mut self, now: Timestamp, threads: u64) {
        if self.threads.len() == MAX_THREAD_CHANGES {
            self.threads.pop_front();
        }
        self.threads.push_back((now, threads));
    }

    /// Closes the default span if all that it holds is done. To be called before a graph's tasks
    /// count.
    pub(crate) fn close_if_done(&mut self, groups: &GroupTable) {
        let Some(open) = self.open.and_then(|serial| self.spans.get(&serial)) else {
            self.open = None;
            return;
        };
        while let Some(group) = self.open_groups.first() {
            // Ids of groups are used again.
            let still = groups.get(group);
            if still.is_some_and(|g| g.span_id.as_ref() == Some(&open.id) && !g.done()) {
                return;
            }
            self.open_groups.remove(group);
        }
        self.open = None;
    }

    /// Has a group that tasks of a graph are in belong to a span: the one it has, that of `path`
    /// (outermost first), or the default one. Returns it.
    pub(crate) fn adopt(
        &mut self,
        id: GroupId,
        path: &[SpanTag],
        groups: &mut GroupTable,
        now: Timestamp,
    ) -> Option<u64> {
        let group = groups.group_mut(id);
        let serial = match &group.span_id {
            Some(span) => *self.by_id.get(span)?,
            None => {
                let serial = match path {
                    [] => self.default_span(now),
                    path => self.span_of(path, now)?,
                };
                let span = self.spans.get_mut(&serial)?;
                span.live_groups += 1;
                group.span_id = Some(Arc::clone(&span.id));
                serial
            }
        };
        if self.open == Some(serial) {
            self.open_groups.insert(id);
        }
        Some(serial)
    }

    fn span_of(&mut self, path: &[SpanTag], now: Timestamp) -> Option<u64> {
        if let Some(serial) = self.by_id.get(&path.last()?.id) {
            return Some(*serial);
        }
        let path = path
            .get(path.len().saturating_sub(MAX_DEPTH)..)
            .unwrap_or_default();
        let mut tags = Vec::new();
        let mut parent = None;
        for SpanTag { tag, id } in path {
            tags.push(Arc::clone(tag));
            parent = Some(match self.by_id.get(id) {
                Some(serial) => *serial,
                None => self.add(Arc::clone(id), tags.clone(), parent, now),
            });
        }
        parent
    }

    fn default_span(&mut self, now: Timestamp) -> u64 {
        match self.open {
            Some(serial) => serial,
            None => {
                let id = self.random_id();
                let serial = self.add(id, vec!["default".into()], None, now);
                self.defaults.push_back(serial);
                self.open = Some(serial);
                serial
            }
        }
    }

    fn add(
        &mut self,
        id: Arc<str>,
        tags: Vec<Arc<str>>,
        parent: Option<u64>,
        enqueued: Timestamp,
    ) -> u64 {
        self.made += 1;
        // The tags of the outer spans are shared with these.
        let tag = tags.last().map_or(0, |tag| tag.len());
        let bytes = SPAN_BYTES + id.len() + tag + tags.len() * size_of::<Arc<str>>();
        let outer = parent.and_then(|serial| self.spans.get_mut(&serial));
        if let Some(outer) = outer {
            outer.children += 1;
        }
        self.bytes += bytes;
        self.by_id.insert(Arc::clone(&id), self.made);
        self.spans.insert(
            self.made,
            Span {
                id,
                tags,
                parent,
                enqueued,
                metrics: IndexMap::default(),
                metadata: Vec::new(),
                code: Vec::new(),
                past_groups: IndexMap::default(),
                live_groups: 0,
                children: 0,
                bytes,
            },
        );
        self.made
    }

    fn random_id(&self) -> Arc<str> {
        let bits = |half: u8| u128::from(self.random.hash_one((self.made, half)));
        let bits = bits(0) << 64 | bits(1);
        // As stock's ids: random UUIDs (version 4).
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            bits >> 96,
            bits >> 80 & 0xffff,
            bits >> 68 & 0xfff,
            bits >> 52 & 0x3fff | 0x8000,
            bits & 0xffff_ffff_ffff,
        )
        .into()
    }

    /// What a client says of a graph counts for the spans of its tasks.
    pub(crate) fn note(&mut self, spans: &BTreeSet<u64>, notes: &SpanNotes) {
        for serial in spans {
            let Some(span) = self.spans.get_mut(serial) else {
                continue;
            };
            let mut keep = |notes: &mut Vec<SpanNote>, note: &SpanNote| {
                let bytes = NOTE_BYTES + note.bytes;
                if notes.len() < MAX_NOTES && self.bytes + bytes <= MAX_BYTES {
                    notes.push(note.clone());
                    span.bytes += bytes;
                    self.bytes += bytes;
                }
            };
            if let Some(metadata) = &notes.metadata {
                keep(&mut span.metadata, metadata);
            }
            if let Some(code) = &notes.code
                && !span.code.iter().any(|known| known.digest == code.digest)
            {
                keep(&mut span.code, code);
            }
        }
    }

    /// A worker measured something for a span. Nothing if the span is unknown.
    pub(crate) fn measured(&mut self, span: &str, what: Key, value: f64, whole: bool) {
        let span = self.by_id.get(span).copied();
        let Some(span) = span.and_then(|serial| self.spans.get_mut(&serial)) else {
            return;
        };
        if let Some((total, always_whole)) = span.metrics.get_mut(&what) {
            *total += value;
            *always_whole &= whole;
            return;
        }
        let bytes = METRIC_BYTES + what.heap_bytes();
        if self.bytes + bytes <= MAX_BYTES {
            span.metrics.insert(what, (value, whole));
            span.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// A group is forgotten; its span keeps what came of it.
    pub(crate) fn retire(&mut self, mut group: Box<Group>) {
        let serial = group.span_id.as_ref().and_then(|id| self.by_id.get(id));
        let Some(span) = serial.and_then(|serial| self.spans.get_mut(serial)) else {
            return;
        };
        span.live_groups = span.live_groups.saturating_sub(1);
        if let Some(known) = span.past_groups.get_mut(&group.name) {
            known.absorb(&group);
            return;
        }
        let bytes = GROUP_BYTES + group.name.len();
        if span.past_groups.len() >= MAX_PAST_GROUPS || self.bytes + bytes > MAX_BYTES {
            if let Some(merged) = span.past_groups.get_mut(MERGED) {
                merged.absorb(&group);
                return;
            }
            group.name = MERGED.into();
        }
        group.dependencies.clear();
        group.dependents.clear();
        // Prefixes may be used again.
        group.prefix = PrefixId(u32::MAX);
        span.bytes += bytes;
        self.bytes += bytes;
        span.past_groups.insert(Arc::clone(&group.name), group);
    }

    /// Forgets spans of which there are too many.
    pub(crate) fn trim(&mut self) {
        while self.defaults.len() > MAX_DEFAULTS {
            let is_over = |serial: &u64| self.spans.get(serial).is_none_or(Span::is_over);
            let Some(at) = self.defaults.iter().position(is_over) else {
                break;
            };
            if let Some(serial) = self.defaults.remove(at) {
                self.forget(serial);
            }
        }
        while self.bytes > MAX_BYTES / 8 * 7 {
            let oldest = self.spans.iter().find(|(_, span)| span.is_over());
            let Some((&serial, _)) = oldest else { break };
            self.defaults.retain(|&default| default != serial);
            self.forget(serial);
        }
    }

    /// Takes a span out, and those it is in as far as nothing else was in them.
    fn forget(&mut self, serial: u64) {
        let mut next = Some(serial);
        while let Some(span) = next.and_then(|serial| self.spans.remove(&serial)) {
            self.by_id.remove(&span.id);
            self.bytes = self.bytes.saturating_sub(span.bytes);
            let outer = span.parent.and_then(|serial| self.spans.get_mut(&serial));
            next = outer.and_then(|outer| {
                outer.children = outer.children.saturating_sub(1);
                let empty = outer.is_over() && outer.past_groups.is_empty();
                empty.then_some(span.parent).flatten()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(5.0);

    fn path(names: &[&str]) -> Vec<SpanTag> {
        let tag = |name: &&str| SpanTag {
            tag: (*name).into(),
            id: format!("id of {name}").into(),
        };
        names.iter().map(tag).collect()
    }

    /// Adds a group to a span.
    fn begin(spans: &mut SpanTable, groups: &mut GroupTable, group: &str, names: &[&str]) {
        let id = groups.group_for(&Key::from(group));
        groups.add_task(id, crate::task::TaskState::Waiting);
        spans.close_if_done(groups);
        spans.adopt(id, &path(names), groups, NOW);
        spans.trim();
    }

    /// Forgets the only task of a group.
    fn end(spans: &mut SpanTable, groups: &mut GroupTable, group: &str) {
        use crate::task::TaskState::{Forgotten, Waiting};
        let id = groups.group_for(&Key::from(group));
        groups.change_state(id, Waiting, Forgotten);
        spans.retire(groups.remove_if_forgotten(id).expect("the group"));
    }

    fn names(spans: &SpanTable) -> Vec<String> {
        spans.iter().map(|span| span.tags.join("/")).collect()
    }

    #[test]
    fn default_spans_are_bounded_and_others_stay() {
        let (mut spans, mut groups) = (SpanTable::new(0), GroupTable::new(&[]));
        begin(&mut spans, &mut groups, "named", &["a", "b"]);
        end(&mut spans, &mut groups, "named");
        begin(&mut spans, &mut groups, "open", &[]);
        for i in 0..MAX_DEFAULTS + 50 {
            // Closes the default span though "open" is there.
            spans.open = None;
            spans.open_groups.clear();
            let name = format!("x{i}");
            begin(&mut spans, &mut groups, &name, &[]);
            end(&mut spans, &mut groups, &name);
        }
        assert_eq!(names(&spans)[..3], ["a", "a/b", "default"]);
        assert_eq!(spans.spans.len(), MAX_DEFAULTS + 2);
        let open = spans.iter().find(|span| span.live_groups > 0);
        assert!(open.is_some(), "a span lives as long as its groups");
    }

    #[test]
    fn the_oldest_spans_go_when_there_is_no_room() {
        let (mut spans, mut groups) = (SpanTable::new(0), GroupTable::new(&[]));
        let long = "x".repeat(1 << 20);
        begin(&mut spans, &mut groups, "kept", &["kept"]);
        for i in 0..20 {
            let inner = format!("{i}{long}");
            begin(&mut spans, &mut groups, "past", &["outer", &inner]);
            end(&mut spans, &mut groups, "past");
        }
        assert!(spans.bytes <= MAX_BYTES);
        let names: Vec<String> = names(&spans).iter().map(|n| n.replace(&long, "")).collect();
        assert_eq!(names[..2], ["kept", "outer"]);
        assert_eq!(names.last().map(String::as_str), Some("outer/19"));
        assert!(!names.contains(&"outer/0".to_owned()));
        let all: usize = spans.iter().map(|span| span.bytes).sum();
        assert_eq!(spans.bytes, all);
        // The outer one goes with the last inner one.
        for serial in spans.spans.keys().copied().collect::<Vec<_>>() {
            if spans.spans.get(&serial).is_some_and(Span::is_over) {
                spans.forget(serial);
            }
        }
        assert_eq!(spans.spans.len(), 1);
    }

    #[test]
    fn forgotten_groups_of_one_name_are_one_and_too_many_as_well() {
        let (mut spans, mut groups) = (SpanTable::new(0), GroupTable::new(&[]));
        let many = (0..MAX_PAST_GROUPS + 5).map(|i| format!("x{i}"));
        for name in many.chain(["x0".to_owned(), "x0".to_owned()]) {
            begin(&mut spans, &mut groups, &name, &["a"]);
            let id = groups.group_for(&Key::from(name.as_str()));
            groups.update_nbytes(id, 10);
            groups.add_duration(id, &"compute".into(), 100.0, 101.0);
            end(&mut spans, &mut groups, &name);
        }
        let span = spans.iter().next().expect("the span");
        let gone = crate::task::TaskState::Forgotten;
        let totals = |name: &str| {
            let group = span.past_groups.get(name).expect("the group");
            let totals = &group.totals;
            (
                totals.states.get(gone),
                totals.nbytes_total,
                totals.duration,
            )
        };
        assert_eq!(totals("x0"), (3, 30, 3_000_000));
        assert_eq!(totals(MERGED), (5, 50, 5_000_000));
        assert_eq!(span.live_groups, 0);
    }

    #[test]
    fn measurements_add_up_and_code_is_kept_once() {
        let (mut spans, mut groups) = (SpanTable::new(0), GroupTable::new(&[]));
        begin(&mut spans, &mut groups, "x", &["a"]);
        spans.measured("id of a", "bytes".into(), 3.0, true);
        spans.measured("id of a", "bytes".into(), 4.0, true);
        spans.measured("id of a", "seconds".into(), 1.0, true);
        spans.measured("id of a", "seconds".into(), 0.5, false);
        spans.measured("id of b", "seconds".into(), 0.5, false);
        let note = |digest| {
            Some(SpanNote {
                data: crate::opaque::Opaque::new(digest),
                bytes: 1,
                digest,
            })
        };
        for digest in [1, 2, 1] {
            let notes = SpanNotes {
                metadata: note(7),
                code: note(digest),
            };
            spans.note(&BTreeSet::from([1]), &notes);
        }
        let span = spans.iter().next().expect("the span");
        assert_eq!(span.metrics.get(&Key::from("bytes")), Some(&(7.0, true)));
        assert_eq!(span.metrics.get(&Key::from("seconds")), Some(&(1.5, false)));
        assert_eq!((span.code.len(), span.metadata.len()), (2, 3));
    }
}
