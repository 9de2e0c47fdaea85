//! The span of tasks to which no client gave one (since 2023.6.0). Workers label what they measure with
//! a task's span, so every group of tasks needs one.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;

use super::{GroupId, GroupTable};
use crate::sets::IdSet;

/// One span after the other: the next begins when everything in the last one is done.
pub(crate) struct DefaultSpan {
    id: Option<Arc<str>>,
    made: u64,
    random: FixedState,
    /// Groups of the span that were not done when last looked at.
    open: IdSet<GroupId>,
}

impl DefaultSpan {
    /// Spans of different seeds have different ids.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            id: None,
            made: 0,
            random: FixedState::with_seed(seed),
            open: IdSet::default(),
        }
    }

    /// Closes the span if all that it holds is done. To be called before a graph's tasks count.
    pub(crate) fn close_if_done(&mut self, groups: &GroupTable) {
        let Some(id) = &self.id else { return };
        while let Some(group) = self.open.first() {
            // Ids of groups are used again.
            let still = groups.get(group);
            if still.is_some_and(|g| g.span_id.as_ref() == Some(id) && !g.done()) {
                return;
            }
            self.open.remove(group);
        }
        self.id = None;
    }

    /// Has a group that tasks of a graph are in belong to a span.
    pub(crate) fn adopt(&mut self, id: GroupId, groups: &mut GroupTable) {
        let group = groups.group_mut(id);
        match (&group.span_id, &self.id) {
            (Some(its), Some(own)) if its == own => {}
            (Some(_), _) => return,
            (None, _) => {
                let span = match &self.id {
                    Some(span) => Arc::clone(span),
                    None => self.begin(),
                };
                group.span_id = Some(span);
            }
        }
        self.open.insert(id);
    }

    fn begin(&mut self) -> Arc<str> {
        self.made += 1;
        let bits = |half: u8| u128::from(self.random.hash_one((self.made, half)));
        let bits = bits(0) << 64 | bits(1);
        // As stock's ids: random UUIDs (version 4).
        let id: Arc<str> = format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            bits >> 96,
            bits >> 80 & 0xffff,
            bits >> 68 & 0xfff,
            bits >> 52 & 0x3fff | 0x8000,
            bits & 0xffff_ffff_ffff,
        )
        .into();
        self.id = Some(Arc::clone(&id));
        id
    }
}
