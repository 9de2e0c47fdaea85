//! From each era's submission to a [`GraphUpdate`]: natively where possible, through the Python
//! host where not.
//!
//! One file per era: `g1` (≤ 2.30.1, one dump per task), `g2` (2020.12.0 – 2023.3.2.1, layers),
//! `g3` (2023.4.0 – 2025.3.1, pickled `HighLevelGraph`), `g4` (≥ 2025.4.0, pickled expression).
//! `fields` reads what they have in common, `options` what is asked for single tasks, `spans` what
//! parts of the client's work they belong to, `portions` gives it all to the core.

mod by_python;
mod fields;
mod g1;
mod g2;
mod g3;
mod g4;
mod options;
mod order;
mod portions;
mod spans;
mod split;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use oxidask_key::Key;
use oxidask_key::numbering::{Numbering, TooLarge};
use oxidask_scheduler_core::effect::{ClientMsg, TaskError};
use oxidask_scheduler_core::graph::{GraphUpdate, LostDependencies, NewTask};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_wire::message::{ErrorObject, Message};
use oxidask_wire::pickle::Exception;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::aside::aside;
use crate::clients::ClientEntry;
use crate::clock;
use crate::computations::{Computations, GroupNames};
use crate::context::Context;
use crate::python_host::HostError;
use crate::releases::compatibility;
use crate::session::stimulus;
use fields::Fields;

/// First release whose clients want a graph with lost dependencies refused as a whole.
const REFUSES_LOST: Release = Release::new(2025, 3, 0);

/// Why a graph was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The message is not what its era sends.
    #[error("malformed graph submission: {0}")]
    Malformed(String),
    /// The graph cannot be read.
    #[error(transparent)]
    Intake(#[from] oxidask_graph::IntakeError),
    /// It cannot even be counted.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It can never be computed.
    #[error(transparent)]
    Cycle(#[from] oxidask_graph::order::Cycle),
    /// The client's certificate does not allow it.
    #[error("permission denied: {0}")]
    Denied(String),
    /// It needs Python, which failed.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What was submitted so far, for the metrics page.
#[derive(Debug, Default)]
pub struct GraphCounts {
    /// Graphs that went to the core.
    pub taken: AtomicU64,
    /// Graphs that could not be taken in.
    pub refused: AtomicU64,
    /// Tasks of the former.
    pub tasks: AtomicU64,
    /// Microseconds all this took.
    pub micros: AtomicU64,
}

/// Tasks of a submission, before they go to the core.
struct Taken {
    tasks: Vec<NewTask>,
    numbering: Numbering,
}

/// Takes a graph in. When that fails, every key the client wants fails with the reason, as in
/// stock, and nothing else notices.
pub async fn update_graph(context: &Arc<Context>, client: &Arc<ClientEntry>, message: Value) {
    context.active_graphs.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let result = take_in(context, client, message).await;
    context.active_graphs.fetch_sub(1, Ordering::Relaxed);
    let counts = &context.graph_counts;
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    counts.micros.fetch_add(took, Ordering::Relaxed);
    let ended = match &result {
        Ok(()) => &counts.taken,
        Err(_) => &counts.refused,
    };
    ended.fetch_add(1, Ordering::Relaxed);
    if let Err((keys, error)) = result {
        tracing::error!(target: "distributed.scheduler", "graph of client {}: {error}", client.name);
        let event = Value::map([
            ("action", Value::from("update-graph")),
            ("stimulus_id", stimulus("update-graph").into()),
            ("status", "error".into()),
        ]);
        context.log_event(&["scheduler", &client.name], &event);
        refuse(client, keys, &error);
    }
}

async fn take_in(
    context: &Arc<Context>,
    client: &Arc<ClientEntry>,
    mut message: Value,
) -> Result<(), (Vec<Key>, GraphError)> {
    let received = clock::now();
    let release = match &client.connection {
        Some(connection) => connection.release,
        None => Release::NEWEST,
    };
    let keys = message
        .get("keys")
        .and_then(Value::as_seq)
        .map_or(0, <[_]>::len);
    let mut fields = match aside(keys, || Fields::take(&mut message)) {
        Ok(fields) => fields,
        Err(error) => return Err((Vec::new(), error)),
    };
    let taken = match expand(context, release, &mut message, &mut fields).await {
        Ok(taken) => taken,
        Err(error) => return Err((fields.keys, error)),
    };
    drop(message);
    for extension in &context.extensions {
        extension.graph_updated(context, &fields.keys);
    }
    let size = taken.tasks.len();
    let groups = aside(size, || {
        GroupNames::of(taken.tasks.iter().map(|task| &task.key))
    });
    Computations::note(context, groups, &fields.code, &fields.annotations);
    let tasks = u64::try_from(taken.tasks.len()).unwrap_or(u64::MAX);
    context
        .graph_counts
        .tasks
        .fetch_add(tasks, Ordering::Relaxed);
    let span_notes = spans::notes(&fields);
    let update = GraphUpdate {
        client: client.id,
        tasks: taken.tasks,
        keys: fields.keys,
        submitting_task: fields.submitting_task,
        fifo_timeout: fields.fifo_timeout,
        user_priority: fields.user_priority,
        lost_dependencies: if release >= REFUSES_LOST {
            LostDependencies::RefuseGraph
        } else {
            LostDependencies::DropTasks
        },
        received,
        release: compatibility(release).into(),
        span_notes,
        stimulus_id: format!("update-graph-{}", received.0).into(),
    };
    // An error means that the scheduler ends.
    let _ = portions::hand_over(&context.core, update, taken.numbering).await;
    Ok(())
}

/// Finds the era by what is in the message.
async fn expand(
    context: &Arc<Context>,
    release: Release,
    message: &mut Value,
    fields: &mut Fields,
) -> Result<Taken, GraphError> {
    if let Some(expr) = message.remove("expr_ser") {
        return g4::expand(context, release, expr, fields).await;
    }
    if let Some(header) = message.remove("graph_header") {
        let frames = message.remove("graph_frames").unwrap_or_default();
        return g3::expand(context, release, &header, &frames, fields).await;
    }
    match message.remove("hlg") {
        None | Some(Value::Nil) => {
            let tasks = message.get("tasks").and_then(Value::as_map);
            let size = tasks.map_or(0, <[_]>::len);
            aside(size, || g1::expand(message, fields))
        }
        Some(hlg) => g2::expand(context, release, hlg, fields).await,
    }
}

/// Fails every wanted key with the reason.
fn refuse(client: &ClientEntry, keys: Vec<Key>, error: &GraphError) {
    let Some(connection) = &client.connection else {
        return;
    };
    let error = task_error(error);
    let erred = |key| ClientMsg::TaskErred {
        key,
        error: error.clone(),
    };
    let erred = keys.into_iter().map(erred).collect();
    connection.outbox.send_core(erred);
}

/// Fails every wanted key of a graph that the client may not submit.
pub fn deny_graph(client: &ClientEntry, mut message: Value, reason: String) {
    if let Ok(fields) = Fields::take(&mut message) {
        refuse(client, fields.keys, &GraphError::Denied(reason));
    }
}

/// What the client raises: the exception of the Python host's code itself, or a text.
fn task_error(error: &GraphError) -> TaskError {
    let exception = match error {
        GraphError::Denied(_) => Exception::permission_error(error.to_string()),
        _ => Exception::runtime_error(error.to_string()),
    };
    let mut told = TaskError::Remote {
        exception: Opaque::new(ErrorObject::Pickle(exception.pickle())),
        traceback: None,
        exception_text: exception.repr().into(),
        traceback_text: Arc::default(),
    };
    if let GraphError::Host(HostError::Raised(raised)) = error
        && let TaskError::Remote {
            exception,
            traceback,
            traceback_text,
            ..
        } = &mut told
    {
        let message = Message::from_frames(raised.message.clone().into_iter());
        if let Ok(map) = message.and_then(|message| message.value()) {
            let object = |name: &str| match map.get(name)? {
                Value::Payload(payload) => Some(ErrorObject::Payload(Arc::clone(payload))),
                Value::Bin(pickle) => Some(ErrorObject::Pickle(pickle.clone())),
                _ => None,
            };
            if let Some(original) = object("exception") {
                *exception = Opaque::new(original);
                *traceback = object("traceback").map(Opaque::new);
            }
        }
        *traceback_text = raised.traceback.as_str().into();
    }
    told
}
