//! The tables: tasks, groups and prefixes, workers, clients, the queue. Data and its bookkeeping,
//! no decisions.

mod clients;
mod groups;
mod open_graphs;
mod queue;
mod spans;
mod tasks;
mod workers;

pub(crate) use clients::{Client, ClientTable};
pub(crate) use groups::{
    Group, GroupId, GroupTable, Prefix, PrefixId, StateCounts, Totals, TypeName,
};
pub(crate) use open_graphs::{Begun, Collected, Member, OpenGraph, OpenGraphs};
pub(crate) use queue::TaskQueue;
pub(crate) use spans::{Span, SpanTable};
pub(crate) use tasks::{Failure, Priority, ReleaseId, Restrictions, Task, TaskTable};
pub(crate) use workers::{STEAL_LEVELS, Worker, WorkerTable};
