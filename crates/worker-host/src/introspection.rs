//! The state of the worker as values, under stock's names: what `worker.state`, `get_story` and
//! `dump_state` show. Keys that are tuples are arrays here.

use oxidask_key::Key;
use oxidask_wire::Value;
use oxidask_worker_core::Worker;
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_core::story::{Step, StoryEntry};
use oxidask_worker_core::task::TaskState;
use oxidask_worker_core::views::TaskView;

/// A task, or nothing if it is not known here.
pub fn task(core: &Worker, key: &Key) -> Option<Value> {
    let Some(task) = core.task(key) else {
        // What goes on and is not wanted any more.
        let state = core.state_of(key)?;
        return Some(Value::map([
            ("key", Value::from(key)),
            ("state", state.as_str().into()),
        ]));
    };
    let mut value = view(core, task);
    if let Some(state) = core.state_of(key) {
        value.insert("state", state.as_str());
    }
    Some(value)
}

/// All tasks; what goes on and is not wanted any more is not among them.
pub fn tasks(core: &Worker) -> Value {
    Value::array(core.tasks().map(|task| view(core, task)))
}

/// The names of all tasks.
pub fn keys(core: &Worker) -> Vec<Key> {
    core.tasks().map(|task| task.key().clone()).collect()
}

fn view(core: &Worker, task: TaskView<'_>) -> Value {
    let mut value = Value::map([
        ("key", Value::from(task.key())),
        ("state", task.state().as_str().into()),
        ("nbytes", task.nbytes().into()),
        ("dependencies", Value::array(task.dependencies())),
        ("dependents", Value::array(task.dependents())),
        ("waiting_for_data", Value::array(task.waiting_for_data())),
        ("who_has", Value::array(task.who_has())),
        ("actor", task.is_actor().into()),
    ]);
    if let Some(run_id) = task.run_id() {
        value.insert("run_id", run_id.0);
    }
    if let Some(from) = task.coming_from() {
        value.insert("coming_from", from);
    }
    if let Some(order) = task.order() {
        value.insert("priority", Value::array(order.priority));
        let resources = order.resource_restrictions.iter();
        value.insert(
            "resource_restrictions",
            resources.map(|(name, n)| (name, *n)).collect::<Value>(),
        );
        let annotations = order.annotations.as_ref().and_then(Opaque::get::<Value>);
        value.insert("annotations", annotations.cloned().unwrap_or_default());
        value.insert(
            "span_id",
            order.span_id.as_ref().map(Value::from).unwrap_or_default(),
        );
    }
    if let Some(attempt) = task.attempt() {
        let attempt = core.attempts().find(|a| a.attempt == attempt);
        value.insert("start_time", attempt.map(|a| a.started.0));
    }
    value
}

/// Counts, queues and resources.
pub fn state(core: &Worker) -> Value {
    let t = core.transfer_figures();
    let in_state = |wanted: TaskState| {
        let tasks = core.tasks().filter(move |task| task.state() == wanted);
        Value::array(tasks.map(TaskView::key))
    };
    let pairs = |what: fn((&str, f64, f64)) -> f64| -> Value {
        let resources = core.resources();
        resources
            .map(|(name, total, used)| (name, what((name, total, used))))
            .collect()
    };
    Value::map([
        ("status", Value::from(core.status().as_str())),
        ("nthreads", core.config().nthreads.into()),
        ("nbytes", core.nbytes().into()),
        ("executing_count", core.executing_count().into()),
        ("executed_count", core.executed_total().into()),
        ("ready", Value::array(core.ready().map(TaskView::key))),
        ("constrained", in_state(TaskState::Constrained)),
        ("executing", in_state(TaskState::Executing)),
        ("long_running", in_state(TaskState::LongRunning)),
        ("waiting", in_state(TaskState::Waiting)),
        ("in_flight_tasks", in_state(TaskState::Flight)),
        ("missing_dep_flight", in_state(TaskState::Missing)),
        ("total_resources", pairs(|(_, total, _)| total)),
        (
            "available_resources",
            pairs(|(_, total, used)| total - used),
        ),
        ("transfer_incoming_bytes", t.incoming_bytes.into()),
        ("transfer_incoming_count", t.incoming_count.into()),
        (
            "transfer_incoming_count_total",
            t.incoming_count_total.into(),
        ),
        ("transfer_outgoing_bytes", t.outgoing_bytes.into()),
        ("transfer_outgoing_count", t.outgoing_count.into()),
        (
            "transfer_outgoing_count_total",
            t.outgoing_count_total.into(),
        ),
        ("transition_counter", core.transition_counter().into()),
        (
            "task_counts",
            core.task_counts()
                .map(|(state, count)| (state.as_str(), count))
                .collect(),
        ),
    ])
}

/// What happened to these keys, and what these stimuli did, oldest first, as tuples of stock's form.
pub fn story(core: &Worker, keys: &[Key], stimuli: &[String]) -> Value {
    let stimuli: Vec<&str> = stimuli.iter().map(String::as_str).collect();
    Value::array(core.story(keys, &stimuli).iter().map(entry))
}

/// All that is remembered, oldest first, at most `limit` entries.
pub fn log(core: &Worker, limit: usize) -> Value {
    let mut last: Vec<_> = core.log_entries().rev().take(limit).map(entry).collect();
    last.reverse();
    Value::array(last)
}

/// `(key, start, recommended, finish, recommendations, stimulus_id, time)`, or `(key, what, stimulus_id, time)`.
fn entry(entry: &StoryEntry) -> Value {
    let key = Value::from(&entry.key);
    let mut items = vec![key];
    match entry.step {
        Step::Transition(start, finish) => {
            let (start, finish) = (start.as_str(), finish.as_str());
            items.extend([start.into(), finish.into(), finish.into()]);
            items.push(Value::Map(Vec::new()));
        }
        Step::Told(what) => items.push(what.into()),
    }
    items.push(Value::from(&entry.stimulus_id));
    items.push(entry.time.0.into());
    Value::array(items)
}
