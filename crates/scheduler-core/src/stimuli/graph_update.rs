//! A graph comes in.
//!
//! Works in bulk: each key is hashed once, each edge is looked up once, and tasks that turn out to be
//! unreachable or lost are taken out again.

use std::collections::BTreeSet;
use std::sync::Arc;

use oxidask_key::Key;

use crate::Scheduler;
use crate::effect::{ChangeEffect, ClientMsg, Effect, GraphEffect, LoggedEvent};
use crate::graph::{GraphUpdate, LostDependencies, NewTask, SpanNotes, TaskOptions};
use crate::ids::{ClientId, TaskId};
use crate::sets::IdSet;
use crate::state::{Priority, Restrictions, Task};
use crate::task::TaskState;

/// One task of the graph being taken in.
struct Entry {
    id: TaskId,
    /// Index of the task in the submission.
    source: usize,
    /// The task did not exist before.
    new: bool,
    /// It has a spec in this graph, so its dependencies here count.
    has_spec: bool,
    reachable: bool,
    /// Its dependencies, a range of [`Intake::edges`].
    edges: std::ops::Range<usize>,
    /// One of its dependencies is unknown.
    lost: bool,
}

#[derive(Default)]
struct Intake {
    entries: Vec<Entry>,
    /// Serial numbers of the groups and prefixes it brought.
    new_groups: std::ops::Range<u64>,
    edges: Vec<TaskId>,
    /// Tasks of earlier graphs that this one refers to.
    referenced: Vec<TaskId>,
}

impl Scheduler {
    pub(super) fn update_graph(&mut self, mut update: GraphUpdate) {
        let mut tasks = std::mem::take(&mut update.tasks);
        let before = self.groups.last_serial();
        let mut intake = self.register(&tasks);
        intake.new_groups = before + 1..self.groups.last_serial() + 1;
        self.resolve_edges(&tasks, &mut intake);
        let mut wanted: Vec<TaskId> = Vec::with_capacity(update.keys.len());
        let mut lost: Vec<Key> = Vec::new();
        // Wanted keys often come in the order of the tasks: then no look-up is needed.
        let mut next = 0;
        for key in &update.keys {
            let known = match intake.entries.get(next) {
                Some(entry) if self.tasks[entry.id].key == *key => Some(entry.id),
                _ => self.tasks.id(key),
            };
            match known {
                Some(id) => {
                    wanted.push(id);
                    next = (self.tasks[id].scratch as usize).saturating_add(1);
                }
                None => lost.push(key.clone()),
            }
        }
        match update.lost_dependencies {
            LostDependencies::RefuseGraph => {
                self.mark_reachable(&wanted, &mut intake);
                let any = !lost.is_empty() || intake.entries.iter().any(|e| e.reachable && e.lost);
                if any {
                    self.log_graph(&update, None);
                    self.refuse(&update, intake);
                    return;
                }
            }
            LostDependencies::DropTasks => {
                self.drop_lost(&mut intake);
                wanted.retain(|&id| {
                    let keep = self.entry(&intake, id).is_none_or(|e| !e.lost);
                    if !keep && let Some(task) = self.tasks.get(id) {
                        lost.push(task.key.clone());
                    }
                    keep
                });
                self.mark_reachable(&wanted, &mut intake);
            }
        }
        self.discard_unreachable(&mut intake);
        let new = intake.entries.iter().filter(|e| e.new && e.reachable);
        let reachable = intake.entries.iter().filter(|e| e.reachable).count();
        self.log_graph(&update, Some((reachable, new.count())));
        let touched = self.connect(&mut tasks, &intake, &update);
        self.give_spans(&touched, &update.span_notes);
        drop(tasks);
        for &id in &wanted {
            self.add_interest(update.client, id);
        }
        self.note_graph(&update, &touched);
        let finished = self.finished_among(update.client, &touched);
        self.start(wanted);
        self.recommend_blamed(&touched);
        self.run_recommendations();
        self.report_finished(update.client, &finished);
        self.cancel_lost(update.client, lost);
    }

    fn give_spans(&mut self, touched: &[TaskId], notes: &SpanNotes) {
        self.spans.close_if_done(&self.groups);
        let concerned = self.adopt_groups(touched);
        self.spans.note(&concerned, notes);
        self.spans.trim();
    }

    /// Every group that these tasks are in has a span from now on; the spans concerned.
    pub(super) fn adopt_groups(&mut self, touched: &[TaskId]) -> BTreeSet<u64> {
        let mut last = None;
        let mut concerned = BTreeSet::new();
        for &id in touched {
            let task = &self.tasks[id];
            if last != Some(task.group) {
                last = Some(task.group);
                let path = task.options.as_ref().map(|options| &*options.span);
                let (path, groups) = (path.unwrap_or_default(), &mut self.groups);
                concerned.extend(self.spans.adopt(task.group, path, groups, self.now));
            }
        }
        concerned
    }

    fn note_graph(&mut self, update: &GraphUpdate, touched: &[TaskId]) {
        self.note_change(|this| {
            let tasks = touched.iter().filter_map(|&id| {
                let task = this.tasks.get(id)?;
                let annotations = task.options.as_ref().and_then(|o| o.annotations.as_ref());
                let priority = task.priority;
                Some((
                    task.key.clone(),
                    priority.is_set().then(|| priority.wire()),
                    annotations.map(|annotations| annotations.0.clone()),
                ))
            });
            Some(ChangeEffect::GraphUpdated(GraphEffect {
                client: Arc::clone(&this.clients.get(update.client)?.name),
                keys: update.keys.clone(),
                tasks: tasks.collect(),
                stimulus_id: Arc::clone(&update.stimulus_id),
            }))
        });
    }

    pub(super) fn log_graph(&mut self, update: &GraphUpdate, tasks: Option<(usize, usize)>) {
        let mut topics = vec![Arc::from("scheduler")];
        let client = self.clients.get(update.client);
        topics.extend(client.map(|client| Arc::clone(&client.name)));
        let event = LoggedEvent::UpdateGraph {
            stimulus_id: Arc::clone(&update.stimulus_id),
            received: update.received,
            tasks,
        };
        self.out.push(Effect::LogEvent { topics, event });
    }

    fn entry<'a>(&self, intake: &'a Intake, id: TaskId) -> Option<&'a Entry> {
        let scratch = self.tasks.get(id)?.scratch;
        intake.entries.get(scratch as usize)
    }

    /// Gives every task of the graph an id.
    fn register(&mut self, tasks: &[NewTask]) -> Intake {
        let mut intake = Intake::default();
        for (source, task) in tasks.iter().enumerate() {
            let has_spec = task.run_spec.is_some();
            let known = self.tasks.id(&task.key);
            let id = match known {
                Some(id) if self.tasks[id].scratch != Task::NO_SCRATCH => continue,
                Some(id) => id,
                // A mere reference to something that is not there.
                None if !has_spec => continue,
                None => self.new_task(task.key.clone(), None, TaskState::Released),
            };
            self.tasks[id].scratch = intake.entries.len() as u32;
            intake.entries.push(Entry {
                id,
                source,
                new: known.is_none(),
                has_spec,
                reachable: false,
                edges: 0..0,
                lost: false,
            });
        }
        intake
    }

    fn resolve_edges(&self, tasks: &[NewTask], intake: &mut Intake) {
        let Intake { entries, edges, .. } = intake;
        for entry in entries.iter_mut().filter(|e| e.has_spec) {
            let Some(task) = tasks.get(entry.source) else {
                continue;
            };
            let start = edges.len();
            for key in &task.dependencies {
                match self.tasks.id(key) {
                    // Some old clients list a task among its own dependencies.
                    Some(id) if id == entry.id => {}
                    Some(id) => edges.push(id),
                    None => entry.lost = true,
                }
            }
            entry.edges = start..edges.len();
        }
    }

    /// Walks from the wanted tasks along the edges of this graph. New groups are listed in the order
    /// of that walk, outputs first, whatever order the client sent tasks in.
    fn mark_reachable(&mut self, wanted: &[TaskId], intake: &mut Intake) {
        let mut stack: Vec<TaskId> = wanted.to_vec();
        let mut seen_referenced = IdSet::default();
        while let Some(id) = stack.pop() {
            let scratch = self.tasks[id].scratch;
            let Some(entry) = intake.entries.get_mut(scratch as usize) else {
                if seen_referenced.insert(id) {
                    intake.referenced.push(id);
                }
                continue;
            };
            if entry.reachable {
                continue;
            }
            entry.reachable = true;
            if !intake.new_groups.is_empty() {
                self.groups
                    .made_now(self.tasks[id].group, &intake.new_groups);
            }
            stack.extend_from_slice(intake.edges.get(entry.edges.clone()).unwrap_or_default());
        }
    }

    /// Lost dependencies make their dependents lost, to the end.
    fn drop_lost(&self, intake: &mut Intake) {
        let mut changed = intake.entries.iter().any(|e| e.lost);
        while changed {
            changed = false;
            for i in 0..intake.entries.len() {
                let Some(entry) = intake.entries.get(i) else {
                    break;
                };
                if entry.lost {
                    continue;
                }
                let lost = intake
                    .edges
                    .get(entry.edges.clone())
                    .unwrap_or_default()
                    .iter()
                    .any(|&d| self.entry(intake, d).is_some_and(|e| e.lost && e.new));
                if lost && let Some(entry) = intake.entries.get_mut(i) {
                    entry.lost = true;
                    changed = true;
                }
            }
        }
    }

    pub(super) fn cancel_lost(&mut self, client: ClientId, lost: Vec<Key>) {
        if lost.is_empty() {
            return;
        }
        for key in &lost {
            if let Some(id) = self.tasks.id(key) {
                self.release_from_client(id, client);
            }
        }
        self.tell(
            client,
            ClientMsg::CancelledKeys {
                keys: lost,
                reason: Some("lost dependencies".into()),
                msg: None,
            },
        );
        self.run_recommendations();
    }

    fn refuse(&mut self, update: &GraphUpdate, mut intake: Intake) {
        for entry in &mut intake.entries {
            entry.reachable = false;
        }
        self.discard_unreachable(&mut intake);
        self.refuse_keys(update);
    }

    /// Nothing that the client wants of a graph will be.
    pub(super) fn refuse_keys(&mut self, update: &GraphUpdate) {
        self.tell(
            update.client,
            ClientMsg::CancelledKeys {
                keys: update.keys.clone(),
                reason: Some("lost dependencies".into()),
                msg: None,
            },
        );
        for key in &update.keys {
            if let Some(id) = self.tasks.id(key) {
                self.release_from_client(id, update.client);
            }
        }
        self.run_recommendations();
        self.fill_open_slots();
    }

    /// Takes out new tasks that nobody needs, and gives the scratch field back.
    fn discard_unreachable(&mut self, intake: &mut Intake) {
        for entry in &intake.entries {
            let task = &mut self.tasks[entry.id];
            task.scratch = Task::NO_SCRATCH;
            if entry.new && !entry.reachable {
                let group = task.group;
                self.groups.undo_add_task(group, TaskState::Released);
                self.tasks.remove(entry.id);
                if let Some(group) = self.groups.remove_if_forgotten(group) {
                    self.spans.retire(group);
                }
            }
        }
    }

    /// Fills in specs, options, priorities and dependencies; the tasks concerned.
    fn connect(
        &mut self,
        tasks: &mut [NewTask],
        intake: &Intake,
        update: &GraphUpdate,
    ) -> Vec<TaskId> {
        let generation = self.generation_of(update);
        let release = self.release_id(&update.release);
        let mut touched = Vec::with_capacity(intake.entries.len());
        let mut shared = SharedRestrictions::default();
        for entry in intake.entries.iter().filter(|e| e.reachable) {
            let Some(new) = tasks.get_mut(entry.source) else {
                continue;
            };
            touched.push(entry.id);
            if !entry.has_spec {
                continue;
            }
            let edges = intake.edges.get(entry.edges.clone()).unwrap_or_default();
            let fresh = self.tasks[entry.id].run_spec.is_none();
            if fresh {
                let task = &mut self.tasks[entry.id];
                task.run_spec = new.run_spec.take();
                task.release = release;
                if let Some(options) = new.options.take() {
                    self.apply_options(entry.id, options, &mut shared);
                }
            } else {
                if new.options.as_ref().is_some_and(|o| o.actor) {
                    self.tasks[entry.id].actor = true;
                }
                if self.collides(entry.id, edges) {
                    continue;
                }
            }
            let task = &mut self.tasks[entry.id];
            if !task.priority.is_set() {
                let user = task
                    .options
                    .as_ref()
                    .and_then(|o| o.priority)
                    .unwrap_or(update.user_priority);
                task.priority = Priority(-user, generation, new.order);
            }
            self.add_dependencies(entry.id, edges);
        }
        touched.extend_from_slice(&intake.referenced);
        touched
    }

    /// Same key, other dependencies: the older task stays as it is.
    pub(super) fn collides(&self, id: TaskId, edges: &[TaskId]) -> bool {
        let new: IdSet<TaskId> = edges.iter().copied().collect();
        !new.same_members(&self.tasks[id].dependencies)
    }

    pub(super) fn add_dependencies(&mut self, id: TaskId, edges: &[TaskId]) {
        let group = self.tasks[id].group;
        let mut last = None;
        if self.tasks[id].dependencies.is_empty() {
            self.tasks[id].dependencies = IdSet::with_room(edges.len());
        }
        for &dependency in edges {
            self.tasks[id].dependencies.insert(dependency);
            let task = &mut self.tasks[dependency];
            task.dependents.insert(id);
            if last != Some(task.group) {
                last = Some(task.group);
                self.groups.add_dependency(group, task.group);
            }
        }
    }

    pub(super) fn apply_options(
        &mut self,
        id: TaskId,
        options: Arc<TaskOptions>,
        shared: &mut SharedRestrictions,
    ) {
        let restrictions = match &shared.last {
            Some((of, restrictions)) if Arc::ptr_eq(of, &options) => restrictions.clone(),
            _ => {
                let restrictions = self.restrictions_from(&options);
                shared.last = Some((Arc::clone(&options), restrictions.clone()));
                restrictions
            }
        };
        let task = &mut self.tasks[id];
        task.restrictions = restrictions;
        task.retries = options.retries;
        task.actor = options.actor;
        task.data_producer = options.data_producer;
        task.options = Some(options);
    }

    /// Earlier graphs run first; tasks submitted by a task come before its siblings.
    pub(super) fn generation_of(&mut self, update: &GraphUpdate) -> f64 {
        if let Some(key) = &update.submitting_task {
            return match self.tasks.id(key).map(|id| self.tasks[id].priority) {
                // Stock takes the first element of the priority here, not the generation.
                Some(priority) if priority.is_set() => priority.0 - 0.01,
                _ => self.generation,
            };
        }
        if self.last_graph + update.fifo_timeout < update.received.0 {
            self.generation += 1.0;
            self.last_graph = update.received.0;
        }
        self.generation
    }

    /// Has those of the tasks run that are neither done nor under way.
    pub(super) fn start(&mut self, mut tasks: Vec<TaskId>) {
        tasks.retain(|&id| self.tasks[id].state == TaskState::Released);
        // The last recommendation is followed first.
        tasks.sort_by_cached_key(|&id| std::cmp::Reverse(self.tasks[id].priority));
        for id in tasks {
            self.recommend(id, TaskState::Waiting);
        }
    }

    pub(super) fn recommend_blamed(&mut self, touched: &[TaskId]) {
        for &id in touched {
            if matches!(self.tasks[id].state, TaskState::Memory | TaskState::Erred) {
                continue;
            }
            let blame = self.tasks[id]
                .dependencies
                .iter()
                .find_map(|d| self.tasks[d].blame().cloned());
            if blame.is_some() {
                self.tasks[id].set_blame(blame);
                self.recommend(id, TaskState::Erred);
            }
        }
    }

    /// Those of the tasks that are done and wanted by the client. To be asked before anything follows from
    /// the graph: what ends then is told then.
    pub(super) fn finished_among(&self, client: ClientId, touched: &[TaskId]) -> Vec<TaskId> {
        let done = |id: &TaskId| {
            let task = &self.tasks[*id];
            let over = matches!(task.state, TaskState::Memory | TaskState::Erred);
            over && task.who_wants.contains(client)
        };
        touched.iter().copied().filter(done).collect()
    }

    pub(super) fn report_finished(&mut self, client: ClientId, finished: &[TaskId]) {
        for &id in finished {
            if self.tasks.get(id).is_some() {
                self.report(client, id);
            }
        }
    }
}

/// Restrictions of the options seen last: tasks of one submission mostly share theirs.
#[derive(Default)]
pub(super) struct SharedRestrictions {
    last: Option<(Arc<TaskOptions>, Option<Arc<Restrictions>>)>,
}
