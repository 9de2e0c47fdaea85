//! Graphs that are being taken in in portions.

use std::collections::BTreeSet;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use oxidask_key::Key;

use super::{GroupId, ReleaseId};
use crate::graph::portions::{GraphId, OtherTask};
use crate::graph::{GraphUpdate, NewTask};
use crate::ids::{ClientId, TaskId};

/// A task of such a graph, or one that it refers to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// None if there is no such task: its dependents can not run.
    pub(crate) id: Option<TaskId>,
    /// Dependents in this graph that are still to come.
    pub(crate) to_come: u32,
}

/// One graph, between its first and its last portion.
#[derive(Debug)]
pub(crate) struct OpenGraph {
    pub(crate) graph: GraphId,
    /// The submission without its tasks.
    pub(crate) update: GraphUpdate,
    pub(crate) release: ReleaseId,
    pub(crate) generation: f64,
    /// How many tasks of earlier graphs it refers to.
    pub(crate) others: usize,
    /// By number.
    pub(crate) members: Vec<Member>,
    /// Its groups, and how many of its tasks in them are still to come.
    pub(crate) groups: Vec<(GroupId, u32)>,
    /// Spans that were told what the client says of the graph.
    pub(crate) noted: BTreeSet<u64>,
    /// Tasks that the state did not know before.
    pub(crate) new: usize,
    /// The last task, if more of its dependencies are to come.
    pub(crate) begun: Option<Begun>,
    /// Collected to be applied in one piece.
    pub(crate) collected: Option<Collected>,
}

/// A task whose dependencies come little by little. It does not run before all are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// None if they are of no consequence: the task was there before this graph, can not run, or was forgotten.
    pub(crate) id: Option<TaskId>,
    /// Its place among the members.
    pub(crate) member: usize,
}

/// Tasks so far, and the keys by number.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) others: Vec<OtherTask>,
    pub(crate) tasks: Vec<NewTask>,
}

/// All of them; mostly none, rarely more than one.
#[derive(Debug, Default)]
pub(crate) struct OpenGraphs {
    graphs: Vec<OpenGraph>,
    /// Unknown keys that clients want meanwhile, in the order of their wishes: they may be among those
    /// that are to come, which another client was told of by whoever submits them.
    awaited: Vec<(ClientId, Key)>,
}

impl OpenGraphs {
    pub(crate) fn put(&mut self, graph: OpenGraph) {
        self.graphs.push(graph);
    }

    pub(crate) fn take(&mut self, graph: GraphId) -> Option<OpenGraph> {
        let at = self.graphs.iter().position(|open| open.graph == graph)?;
        Some(self.graphs.swap_remove(at))
    }

    /// Takes one that this client submits.
    pub(crate) fn take_of(&mut self, client: ClientId) -> Option<OpenGraph> {
        let mut graphs = self.graphs.iter();
        let at = graphs.position(|open| open.update.client == client)?;
        Some(self.graphs.swap_remove(at))
    }

    pub(crate) fn take_any(&mut self) -> Option<OpenGraph> {
        self.graphs.pop()
    }

    /// The task is forgotten.
    pub(crate) fn forget(&mut self, id: TaskId) {
        let begun = self.graphs.iter_mut().flat_map(|graph| &mut graph.begun);
        for begun in begun.filter(|begun| begun.id == Some(id)) {
            begun.id = None;
        }
        let members = self.graphs.iter_mut().flat_map(|graph| &mut graph.members);
        for member in members.filter(|member| member.id == Some(id)) {
            member.id = None;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &OpenGraph> {
        self.graphs.iter()
    }

    /// The client wants a key that is unknown so far; nothing comes of it if no graph is open.
    pub(crate) fn wait_for(&mut self, client: ClientId, key: &Key) {
        if !self.graphs.is_empty() {
            self.awaited.push((client, key.clone()));
        }
    }

    /// The client no longer wants keys that it may be waiting for.
    pub(crate) fn wait_no_more(&mut self, client: ClientId, keys: &[Key]) {
        if !self.awaited.is_empty() {
            let keys: HashSet<&Key, FixedState> = keys.iter().collect();
            let waits = |(by, key): &(ClientId, Key)| *by != client || !keys.contains(key);
            self.awaited.retain(waits);
        }
    }

    /// Takes what is waited for, if nothing is left to come.
    pub(crate) fn take_awaited(&mut self) -> Vec<(ClientId, Key)> {
        match self.graphs.is_empty() {
            true => std::mem::take(&mut self.awaited),
            false => Vec::new(),
        }
    }
}
