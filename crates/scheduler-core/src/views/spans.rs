//! Spans.

use std::sync::Arc;

use oxidask_key::Key;

use super::GroupView;
use crate::Scheduler;
use crate::ids::Timestamp;
use crate::opaque::Opaque;
use crate::state::Span;

/// A named part of a client's work. What is in it: groups with its id, and what is here.
#[derive(Clone, Copy)]
pub struct SpanView<'a> {
    scheduler: &'a Scheduler,
    span: &'a Span,
}

impl<'a> SpanView<'a> {
    pub(super) fn new(scheduler: &'a Scheduler, span: &'a Span) -> Self {
        Self { scheduler, span }
    }

    /// Unique, unlike its name.
    pub fn id(&self) -> &'a Arc<str> {
        &self.span.id
    }
    /// Its name: tags of the spans it is in, outermost first, and its own.
    pub fn name(&self) -> &'a [Arc<str>] {
        &self.span.tags
    }
    /// Id of the span it is in.
    pub fn parent(&self) -> Option<&'a Arc<str>> {
        Some(&self.scheduler.spans.parent(self.span)?.id)
    }
    /// When its first task, or that of a span in it, was submitted.
    pub fn enqueued(&self) -> Timestamp {
        self.span.enqueued
    }
    /// What workers measured: what, how much, and whether it is a count.
    pub fn metrics(&self) -> impl Iterator<Item = (&'a Key, f64, bool)> + use<'a> {
        let metrics = self.span.metrics.iter();
        metrics.map(|(what, &(value, whole))| (what, value, whole))
    }
    /// What clients said of its graphs.
    pub fn metadata(&self) -> impl Iterator<Item = &'a Opaque> + use<'a> {
        self.span.metadata.iter().map(|note| &note.data)
    }
    /// Source code that submitted its graphs.
    pub fn code(&self) -> impl Iterator<Item = &'a Opaque> + use<'a> {
        self.span.code.iter().map(|note| &note.data)
    }
    /// Groups that were forgotten, one for those of the same name. They have no prefix any more.
    pub fn past_groups(&self) -> impl Iterator<Item = GroupView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        let groups = self.span.past_groups.values();
        groups.map(move |group| GroupView { scheduler, group })
    }
}
