//! Split graphs → tasks of the core: order, options, run specs.

use oxidask_graph::order::OrderTask;
use oxidask_graph::{Spec, SplitGraph};
use oxidask_scheduler_core::graph::NewTask;
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_wire::message::worker::{Pickle, RunSpec};
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::options::{Layer, Options};
use super::{GraphError, Taken, order};

/// What the core is given for a graph that was split. Ordered before it is culled, as stock does.
pub(super) fn taken(
    graph: SplitGraph,
    annotations: &Value,
    fields: &Fields,
    release: Release,
) -> Result<Taken, GraphError> {
    let SplitGraph {
        tasks,
        mut numbering,
        annotations: layers,
    } = graph;
    let views = tasks.iter().map(OrderTask::from);
    let numbers = order::numbers(views, &numbering, fields, release)?;
    let needed = numbering.cull();
    let mut options = Options::of_layers(annotations, layers.into_iter().map(Layer::from));
    let mut taken = Vec::with_capacity(tasks.len());
    for ((task, order), needed) in tasks.into_iter().zip(numbers).zip(needed) {
        if needed {
            taken.push(NewTask {
                options: options.of(&task.key, fields),
                order,
                run_spec: Some(Opaque::new(run_spec(task.spec))),
                dependencies: task.dependencies,
                key: task.key,
            });
        }
    }
    Ok(Taken {
        tasks: taken,
        numbering,
    })
}

fn run_spec(spec: Spec) -> RunSpec {
    let Spec { pickle, buffers } = spec;
    let pickle = Pickle {
        prefix: pickle.prefix,
        body: pickle.body,
    };
    RunSpec::pickled(pickle, buffers)
}
