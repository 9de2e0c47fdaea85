//! Sessions that follow what happens in the scheduler because plugins live in them: which hooks they
//! want, and the queue in front of each.
//!
//! Nothing here waits for Python. What happened is queued in order, and sent in batches as fast as the
//! session takes them. A session that falls [`MAX_WAITING`] hooks behind is told no more: its plugins
//! would be wrong whichever hooks were left out, and the scheduler goes on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_scheduler_core::effect::{ChangeEffect, GraphEffect, TransitionEffect};
use oxidask_wire::message::Message;
use oxidask_wire::value::Value;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::mirror::{new_worker, state_code};
use super::session::SessionHandle;
use crate::context::Context;
use crate::observers::Observed;

/// Hooks that may wait for a session which does not take them.
const MAX_WAITING: usize = 1_000_000;
/// Hooks in one message.
const MAX_BATCH: usize = 10_000;
/// Hooks are collected for so long while they come fast, so that a busy scheduler sends few messages.
const COLLECT: Duration = Duration::from_millis(20);
/// Between two looks of somebody who waits for the session to catch up.
const HURRY: Duration = Duration::from_millis(1);
/// How long a function waits for plugins to be told what happened before.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the plugins of a session want to be told. What nobody wants is not even noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// `transition`.
    pub(super) transitions: bool,
    /// With what the workers told with each result.
    pub(super) details: bool,
    /// `add_worker`, `remove_worker`, `add_client`, `remove_client`, `restart`.
    pub(super) peers: bool,
    /// `update_graph`.
    pub(super) graphs: bool,
    /// `log_event`.
    pub(super) events: bool,
    /// `valid_workers_downscaling`, which is asked and not told.
    pub(super) downscaling: bool,
}

impl Wants {
    /// From the names of the hooks that the plugins implement.
    pub(super) fn from_hooks(hooks: &[Value], details: bool) -> Self {
        let has = |names: &[&str]| {
            hooks
                .iter()
                .any(|hook| hook.as_str().is_some_and(|hook| names.contains(&hook)))
        };
        let transitions = has(&["transition"]);
        Self {
            transitions,
            details: details && transitions,
            peers: has(&[
                "add_worker",
                "remove_worker",
                "add_client",
                "remove_client",
                "restart",
            ]),
            graphs: has(&["update_graph"]),
            events: has(&["log_event"]),
            downscaling: has(&["valid_workers_downscaling"]),
        }
    }

    fn changes(self) -> bool {
        self.peers || self.graphs
    }
}

/// All sessions with plugins.
#[derive(Default)]
pub(super) struct Followers {
    all: Mutex<Vec<Follower>>,
    /// Some follower is there: saves a lock for each transition when there is none.
    any: AtomicBool,
    /// How many want entries of the event log.
    events: AtomicUsize,
}

struct Follower {
    session: SessionHandle,
    wants: Wants,
    waiting: VecDeque<Hook>,
    news: Arc<Notify>,
    /// Somebody waits: do not collect.
    hurry: Arc<Notify>,
}

/// One call of a hook: its name and arguments, and frames of what is encoded.
struct Hook {
    item: Value,
    frames: Vec<Bytes>,
}

impl Hook {
    fn new(name: &str, arguments: Vec<Value>, encoded: Option<&Value>) -> Self {
        let frames: Vec<Bytes> = match encoded {
            Some(value) => Message::from_value(value).frames().cloned().collect(),
            None => Vec::new(),
        };
        let item = [Value::from(name), frames.len().into()];
        Self {
            item: Value::Array(item.into_iter().chain(arguments).collect()),
            frames,
        }
    }
}

impl Followers {
    /// A session wants these hooks from now on, and no others.
    pub(super) fn follow(
        self: &Arc<Self>,
        context: &Context,
        session: &SessionHandle,
        wants: Wants,
    ) {
        let mut all = self.all.lock();
        let before = match all.iter_mut().find(|f| f.session.id == session.id) {
            Some(follower) => std::mem::replace(&mut follower.wants, wants),
            None => {
                let (news, hurry) = (Arc::<Notify>::default(), Arc::<Notify>::default());
                let (told, hurried) = (Arc::clone(&news), Arc::clone(&hurry));
                all.push(Follower {
                    session: session.clone(),
                    wants,
                    waiting: VecDeque::new(),
                    news,
                    hurry,
                });
                let session = session.clone();
                tokio::spawn(pass_on(Arc::downgrade(self), session, told, hurried));
                Wants::default()
            }
        };
        self.any.store(true, Ordering::Release);
        self.account(context, before, wants);
    }

    /// A session wants nothing any more.
    pub(super) fn leave(&self, context: Option<&Context>, session: u64) {
        let mut all = self.all.lock();
        let Some(at) = all.iter().position(|f| f.session.id == session) else {
            return;
        };
        let follower = all.swap_remove(at);
        self.any.store(!all.is_empty(), Ordering::Release);
        drop(all);
        self.let_go(context, &follower);
    }

    fn let_go(&self, context: Option<&Context>, follower: &Follower) {
        if let Some(context) = context {
            self.account(context, follower.wants, Wants::default());
        }
        // Lets its task see that it is gone.
        follower.news.notify_one();
    }

    /// Has the core tell what is newly wanted, and no longer what is not.
    fn account(&self, context: &Context, before: Wants, after: Wants) {
        match (before.transitions, after.transitions) {
            (false, true) => context.observe_transitions(),
            (true, false) => context.unobserve_transitions(),
            _ => {}
        }
        match (before.changes(), after.changes()) {
            (false, true) => context.observe_changes(),
            (true, false) => context.unobserve_changes(),
            _ => {}
        }
        let count = |counter: &AtomicUsize, before: bool, after: bool| match (before, after) {
            (false, true) => drop(counter.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(counter.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        };
        count(&context.recorders, before.details, after.details);
        count(&self.events, before.events, after.events);
    }

    /// Sessions whose plugins have a say in which workers may go.
    pub(super) fn choosers(&self) -> Vec<u64> {
        let all = self.all.lock();
        let choosers = all.iter().filter(|follower| follower.wants.downscaling);
        choosers.map(|follower| follower.session.id).collect()
    }

    /// Whether this session follows.
    pub(super) fn has(&self, session: u64) -> bool {
        self.any.load(Ordering::Acquire) && self.all.lock().iter().any(|f| f.session.id == session)
    }

    /// Waits until what has been queued for this session was sent, but not for a slow one.
    pub(super) async fn catch_up(&self, session: u64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            {
                let all = self.all.lock();
                let follower = all.iter().find(|f| f.session.id == session);
                match follower {
                    Some(follower) if !follower.waiting.is_empty() => follower.hurry.notify_one(),
                    _ => return,
                }
            }
            tokio::time::sleep(HURRY).await;
        }
    }

    /// Something happened in the core.
    pub(super) fn observed(&self, context: Option<&Context>, observed: &Observed) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        match observed {
            Observed::Transition(transition) => self.push(
                context,
                |wants| wants.transitions,
                |wants| transition_hook(context, transition, wants.details),
            ),
            Observed::WorkerAdded(worker) => self.push(
                context,
                |wants| wants.peers,
                |_| {
                    let address = Value::from(&worker.info.address);
                    Hook::new("add_worker", vec![address, new_worker(worker)], None)
                },
            ),
            Observed::WorkerRemoved {
                worker,
                stimulus_id,
            } => self.push(
                context,
                |wants| wants.peers,
                |_| {
                    let arguments = vec![(&worker.info.address).into(), stimulus_id.into()];
                    Hook::new("remove_worker", arguments, None)
                },
            ),
            Observed::Change(change) => self.changed(context, change),
            Observed::Log { .. }
            | Observed::WorkerUnresponsive { .. }
            | Observed::Suspicious(_)
            | Observed::Settled(_) => {}
        }
    }

    fn changed(&self, context: Option<&Context>, change: &ChangeEffect) {
        let peers = |wants: Wants| wants.peers;
        match change {
            ChangeEffect::ClientAdded { client } => self.push(context, peers, |_| {
                Hook::new("add_client", vec![client.into()], None)
            }),
            ChangeEffect::ClientRemoved { client } => self.push(context, peers, |_| {
                Hook::new("remove_client", vec![client.into()], None)
            }),
            ChangeEffect::Restarted => {
                self.push(context, peers, |_| Hook::new("restart", Vec::new(), None));
            }
            ChangeEffect::GraphUpdated(graph) => {
                self.push(context, |wants| wants.graphs, |_| graph_hook(graph));
            }
            // Arrives as an observation of its own.
            ChangeEffect::WorkerAdded { .. } => {}
        }
    }

    /// An entry was written to the event log.
    pub(super) fn event_logged(&self, context: Option<&Context>, topics: &[Key], event: &Value) {
        if self.events.load(Ordering::Relaxed) == 0 {
            return;
        }
        for topic in topics {
            self.push(
                context,
                |wants| wants.events,
                |_| Hook::new("log_event", vec![topic.into()], Some(event)),
            );
        }
    }

    fn push(
        &self,
        context: Option<&Context>,
        wanted: impl Fn(Wants) -> bool,
        hook: impl Fn(Wants) -> Hook,
    ) {
        let mut all = self.all.lock();
        let mut full = None;
        for (at, follower) in all.iter_mut().enumerate() {
            if !wanted(follower.wants) {
                continue;
            }
            follower.waiting.push_back(hook(follower.wants));
            follower.news.notify_one();
            if follower.waiting.len() > MAX_WAITING {
                full = Some(at);
            }
        }
        if let Some(at) = full {
            let follower = all.swap_remove(at);
            drop(all);
            tracing::error!(
                "plugins of the Python host are {MAX_WAITING} hooks behind the scheduler; they are told no more"
            );
            self.let_go(context, &follower);
        }
    }

    /// What waits for this session; nothing when it follows no more.
    fn take_waiting(&self, session: u64) -> Option<(Vec<Hook>, bool)> {
        let mut all = self.all.lock();
        let follower = all.iter_mut().find(|f| f.session.id == session)?;
        let count = follower.waiting.len().min(MAX_BATCH);
        let taken = follower.waiting.drain(..count).collect();
        Some((taken, !follower.waiting.is_empty()))
    }
}

fn transition_hook(
    context: Option<&Context>,
    transition: &TransitionEffect,
    details: bool,
) -> Hook {
    let worker = transition.worker.and_then(|id| context?.workers.get(id));
    let details = transition.raw.as_ref().filter(|_| details);
    let arguments = vec![
        Value::from(transition.counter),
        (&transition.key).into(),
        u64::from(state_code(transition.start)).into(),
        u64::from(state_code(transition.finish)).into(),
        (&transition.stimulus_id).into(),
        worker.map_or(Value::Nil, |worker| (&worker.info.address).into()),
    ];
    let details = details.and_then(|raw| raw.get::<Value>());
    Hook::new("transition", arguments, details)
}

fn graph_hook(graph: &GraphEffect) -> Hook {
    let tasks = Value::array(graph.tasks.iter().map(|(key, ..)| key));
    let priorities = graph.tasks.iter().map(|(_, priority, _)| match priority {
        Some(priority) => Value::array(*priority),
        None => Value::Nil,
    });
    let annotations: Vec<Value> = graph
        .tasks
        .iter()
        .enumerate()
        .filter_map(|(at, (.., annotations))| {
            let annotations = annotations.as_ref()?.get::<Bytes>()?;
            Some(Value::Array(vec![
                (at as u64).into(),
                annotations.clone().into(),
            ]))
        })
        .collect();
    let arguments = vec![
        (&graph.client).into(),
        Value::array(graph.keys.iter()),
        tasks,
        Value::array(priorities),
        Value::Array(annotations),
        (&graph.stimulus_id).into(),
    ];
    Hook::new("update_graph", arguments, None)
}

/// Sends hooks to a session in batches, the next one when the last one was taken.
async fn pass_on(
    followers: Weak<Followers>,
    session: SessionHandle,
    news: Arc<Notify>,
    hurry: Arc<Notify>,
) {
    loop {
        news.notified().await;
        // What comes alone is told at once.
        let mut more = true;
        while more {
            while session.is_behind() {
                tokio::time::sleep(COLLECT).await;
            }
            let taken = followers.upgrade().and_then(|f| f.take_waiting(session.id));
            let Some((hooks, left)) = taken else {
                return;
            };
            more = left;
            if hooks.is_empty() {
                continue;
            }
            let mut items = Vec::new();
            let mut frames = Vec::new();
            for hook in hooks {
                items.push(hook.item);
                frames.extend(hook.frames);
            }
            let header = Value::map([("op", Value::from("hooks")), ("items", Value::Array(items))]);
            session.push_hooks(&header, frames);
        }
        // Without a hurry either way.
        let _ = tokio::time::timeout(COLLECT, hurry.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(hooks: &[&str]) -> Wants {
        let hooks: Vec<Value> = hooks.iter().map(|hook| Value::from(*hook)).collect();
        Wants::from_hooks(&hooks, true)
    }

    #[test]
    fn only_what_plugins_implement_is_wanted() {
        assert_eq!(wants(&[]), Wants::default());
        assert_eq!(
            wants(&["add_worker"]),
            Wants {
                peers: true,
                ..Wants::default()
            }
        );
        assert_eq!(
            wants(&["transition", "update_graph", "log_event"]),
            Wants {
                transitions: true,
                details: true,
                graphs: true,
                events: true,
                ..Wants::default()
            }
        );
        assert!(wants(&["valid_workers_downscaling"]).downscaling);
    }
}
