//! Graphs that only Python can expand: what the Python host made of them → tasks of the core.

use std::sync::Arc;

use oxidask_graph::TaskKind;
use oxidask_graph::order::OrderTask;
use oxidask_key::Key;
use oxidask_key::numbering::Numbering;
use oxidask_scheduler_core::graph::{NewTask, OpaqueAnnotations, TaskOptions};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_wire::message::Message;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::{GraphError, Taken, order, spans};
use crate::aside::aside;
use crate::context::Context;
use crate::python_host::{Annotations, ExpandRequest, ExpandedGraph};

/// Has the graph expanded.
pub(super) async fn expand(
    context: &Arc<Context>,
    request: ExpandRequest,
    fields: &Fields,
) -> Result<Taken, GraphError> {
    let graph = context.python.expand(&request).await?;
    let size = graph.tasks.len();
    aside(size, || taken(graph, fields, request.release))
}

fn taken(graph: ExpandedGraph, fields: &Fields, release: Release) -> Result<Taken, GraphError> {
    let tasks = &graph.tasks;
    let numbering = Numbering::of(tasks, |t| &t.key, |t| &t.dependencies, &fields.keys)?;
    let views = tasks.iter().map(|task| OrderTask {
        key: &task.key,
        kind: TaskKind::Task,
    });
    let numbers = order::numbers(views, &numbering, fields, release)?;
    let plain: Vec<Arc<TaskOptions>> = graph
        .annotations
        .iter()
        .map(|annotations| Arc::new(options(annotations, false)))
        .collect();
    let of = |annotations: Option<usize>, key: &Key| {
        let shared = annotations.and_then(|i| plain.get(i));
        if !(fields.has_actors() && fields.is_actor(key)) {
            return shared.cloned();
        }
        let own = annotations.and_then(|i| graph.annotations.get(i));
        Some(Arc::new(match own {
            Some(annotations) => options(annotations, true),
            None => TaskOptions {
                actor: true,
                ..TaskOptions::default()
            },
        }))
    };
    let tasks = graph.tasks.into_iter().zip(numbers);
    let tasks = tasks.map(|(task, order)| NewTask {
        options: of(task.annotations, &task.key),
        order,
        run_spec: Some(Opaque::new(task.run_spec)),
        dependencies: task.dependencies,
        key: task.key,
    });
    Ok(Taken {
        tasks: tasks.collect(),
        numbering,
    })
}

fn options(annotations: &Annotations, actor: bool) -> TaskOptions {
    let text = |text: &String| Arc::from(text.as_str());
    let whole = whole(annotations);
    TaskOptions {
        priority: annotations.priority,
        workers: annotations
            .workers
            .as_ref()
            .map(|workers| workers.iter().map(text).collect()),
        allow_other_workers: annotations.allow_other_workers,
        retries: annotations.retries,
        resources: annotations
            .resources
            .iter()
            .map(|(name, amount)| (text(name), *amount))
            .collect(),
        actor,
        data_producer: false,
        span: spans::path(&whole),
        annotations: whole
            .as_map()
            .is_some_and(|map| !map.is_empty())
            .then(|| OpaqueAnnotations(Opaque::new(whole.encode()))),
    }
}

/// The annotations as a map. What msgpack cannot express is left out: workers only look at a few
/// entries that it can.
fn whole(annotations: &Annotations) -> Value {
    let message = Message::from_frames(annotations.encoded.clone().into_iter());
    let Ok(Value::Map(mut entries)) = message.and_then(|message| message.value()) else {
        return Value::Nil;
    };
    entries.retain(|(_, value)| value.as_payload().is_none());
    Value::Map(entries)
}
