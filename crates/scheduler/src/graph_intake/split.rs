//! Split graphs → tasks of the core: order, options, run specs.

use oxidask_graph::{Spec, SplitGraph, SplitTask};
use oxidask_scheduler_core::graph::NewTask;
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_wire::message::worker::RunSpec;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::options::Options;
use super::{Taken, order};

/// What the core is given for a graph that was split. Ordered before it is culled, as stock does.
pub(super) fn taken(mut graph: SplitGraph, annotations: &Value, fields: &Fields) -> Taken {
    let order = match &fields.order {
        Some(order) => order.clone(),
        None => {
            let tasks = graph.tasks.iter();
            order::depth_first(
                &tasks
                    .map(|t| (&t.key, &t.dependencies[..]))
                    .collect::<Vec<_>>(),
            )
        }
    };
    oxidask_graph::cull::cull(&mut graph.tasks, &fields.keys);
    let mut options = Options::new(annotations, graph.annotations);
    let task = |task: SplitTask| NewTask {
        options: options.of(&task.key, fields),
        order: order.get(&task.key).copied().unwrap_or(0),
        run_spec: Some(Opaque::new(run_spec(task.spec))),
        dependencies: task.dependencies,
        key: task.key,
    };
    Taken {
        tasks: graph.tasks.into_iter().map(task).collect(),
    }
}

fn run_spec(spec: Spec) -> RunSpec {
    match spec {
        Spec::Pickled { pickle, buffers } => RunSpec::Pickled {
            pickle: pickle.to_bytes(),
            buffers,
        },
        Spec::Parts {
            function,
            args,
            kwargs,
        } => RunSpec::Parts {
            function,
            args,
            kwargs,
        },
    }
}
