//! Releases 2020.12.0 – 2023.3.2.1: packed layers, expanded natively where their class and layout are
//! known, else by Python of the client's release.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_graph::Limits;
use oxidask_graph::intake::packed::{self, Input, Item, PackedGraph, PackedIntake, PackedSpec};
use oxidask_graph::order::OrderTask;
use oxidask_key::Key;
use oxidask_key::numbering::Numbering;
use oxidask_scheduler_core::graph::NewTask;
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_wire::message::Message;
use oxidask_wire::message::worker::{LegacySpec, RunSpec};
use oxidask_wire::payload::Payload;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::options::{Layer, Options};
use super::{GraphError, Taken, by_python, g1, order};
use crate::context::Context;
use crate::python_host::{ExpandRequest, SubmittedGraph};

/// First release whose layers are known to have the layouts of 2022.12.0.
const KNOWN_LAYOUTS: Release = Release::new(2021, 12, 0);
/// Layers of up to this many entries are taken in where they are; more (or ones that may grow to
/// more) make room on their I/O thread for other work.
const SMALL: usize = 500;

type Object = Arc<Payload>;

/// The tasks of the layers.
pub(super) async fn expand(
    context: &Arc<Context>,
    release: Release,
    hlg: Value,
    fields: &Fields,
) -> Result<Taken, GraphError> {
    let work = || natively(&hlg, fields, release);
    let outcome = match is_small(&hlg) {
        true => work()?,
        false => tokio::task::block_in_place(work)?,
    };
    let reason = match outcome {
        Ok(taken) => return Ok(taken),
        Err(reason) => reason,
    };
    tracing::debug!("a graph goes to the Python host: {reason}");
    let message = Message::from_value(&Value::map([("hlg", hlg)]));
    let frames: Vec<Bytes> = message.frames().cloned().collect();
    let request = ExpandRequest {
        graph: SubmittedGraph::Layers { frames },
        keys: fields.keys.clone(),
        annotations: Vec::new(),
        release,
    };
    by_python::expand(context, request, fields).await
}

/// Whether there are few tasks, all of them in the message.
fn is_small(hlg: &Value) -> bool {
    let layers = hlg.get("layers").and_then(Value::as_seq).unwrap_or(&[]);
    let size = |layer: &Value| match layer.get("state")?.get("dsk")? {
        Value::Map(entries) => Some(entries.len()),
        _ => None,
    };
    let materialized = |layer: &Value| {
        let name = layer.get("__name__").and_then(Value::as_str);
        matches!(name, None | Some("MaterializedLayer"))
    };
    layers.iter().all(materialized) && layers.iter().filter_map(size).sum::<usize>() <= SMALL
}

/// The tasks, or why only Python can tell.
fn natively(
    hlg: &Value,
    fields: &Fields,
    release: Release,
) -> Result<Result<Taken, String>, GraphError> {
    if release < KNOWN_LAYOUTS {
        return Ok(Err(format!("layers of {release}")));
    }
    let Some(input) = input(hlg) else {
        return Ok(Err("a number beyond 64 bits".to_owned()));
    };
    match packed::expand(&input, Limits::default()) {
        PackedIntake::Split(graph) => taken(graph, fields, release).map(Ok),
        PackedIntake::NeedsPython(reason) => Ok(Err(reason.to_string())),
    }
}

/// Ordered before it is culled, as stock does.
fn taken(
    graph: PackedGraph<Object>,
    fields: &Fields,
    release: Release,
) -> Result<Taken, GraphError> {
    let tasks = &graph.tasks;
    let mut numbering = Numbering::of(tasks, |t| &t.key, |t| &t.dependencies, &fields.keys)?;
    let views = tasks.iter().map(OrderTask::from);
    let numbers = order::numbers(views, &numbering, fields, release)?;
    let needed = numbering.cull();
    let tasks = graph.tasks.into_iter().zip(numbers).zip(needed);
    let layers = graph.annotations.into_iter().map(|annotation| Layer {
        name: annotation.name,
        value: value(annotation.value),
        keys: annotation.keys,
    });
    let mut options = Options::of_layers(&Value::Nil, layers);
    let task = |(task, order): (packed::PackedTask<Object>, i64)| {
        Ok(NewTask {
            options: options.of(&task.key, fields),
            order,
            run_spec: Some(Opaque::new(RunSpec::from(run_spec(&task.key, task.spec)?))),
            dependencies: task.dependencies,
            key: task.key,
        })
    };
    let needed = tasks.filter_map(|(task, needed)| needed.then_some(task));
    let tasks: Result<Vec<NewTask>, GraphError> = needed.map(task).collect();
    Ok(Taken {
        tasks: tasks?,
        numbering,
    })
}

fn run_spec(key: &Key, spec: PackedSpec<Object>) -> Result<LegacySpec, GraphError> {
    Ok(match spec {
        PackedSpec::Given(given) => return g1::run_spec(key, value(given)),
        PackedSpec::Parts { function, args } => LegacySpec::Parts {
            function,
            args: Some(args),
            kwargs: None,
        },
        PackedSpec::Call { function, args } => LegacySpec::Call {
            function,
            args: items(args),
            kwargs: Value::Nil,
        },
        PackedSpec::Task(task) => LegacySpec::Task(items(task)),
        PackedSpec::PickledTask(pickle) => {
            LegacySpec::Serialized(Arc::new(Payload::pickle_object(pickle, Vec::new())))
        }
    })
}

fn items(items: Vec<Item<Object>>) -> Value {
    let item = |item: Item<Object>| match item {
        Item::Text(text) => Value::from(text),
        Item::Pickle(pickle) => Arc::new(Payload::pickle_object(pickle, Vec::new())).into(),
        Item::Payload(payload) => payload.into(),
    };
    Value::Array(items.into_iter().map(item).collect())
}

/// A value for the expansion, which shares bytes and serialised objects. Nothing for what it has no
/// word for: integers beyond `i64`.
fn input(value: &Value) -> Option<Input<Object>> {
    Some(match value {
        Value::Nil => Input::Nil,
        Value::Bool(flag) => Input::Bool(*flag),
        Value::Int(number) => Input::Int(*number),
        Value::UInt(_) => return None,
        Value::Float(number) => Input::Float(*number),
        Value::Str(text) => Input::Str(text.clone()),
        Value::Bin(bytes) => Input::Bin(bytes.clone()),
        Value::Payload(payload) => Input::Payload(Arc::clone(payload)),
        Value::Array(items) => Input::Array(items.iter().map(input).collect::<Option<_>>()?),
        Value::Map(entries) => {
            let entry = |(key, value): &(Value, Value)| Some((input(key)?, input(value)?));
            Input::Map(entries.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

fn value(input: Input<Object>) -> Value {
    match input {
        Input::Nil => Value::Nil,
        Input::Bool(flag) => Value::Bool(flag),
        Input::Int(number) => Value::Int(number),
        Input::Float(number) => Value::Float(number),
        Input::Str(text) => Value::Str(text),
        Input::Bin(bytes) => Value::Bin(bytes),
        Input::Payload(payload) => Value::Payload(payload),
        Input::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        Input::Map(entries) => {
            let entry = |(key, item)| (value(key), value(item));
            Value::Map(entries.into_iter().map(entry).collect())
        }
    }
}
