//! Split graphs → tasks of the core: order, options, run specs.

use std::collections::HashMap;

use oxidask_graph::{Spec, SplitGraph, SplitTask};
use oxidask_key::Key;
use oxidask_scheduler_core::graph::NewTask;
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_wire::message::worker::RunSpec;
use oxidask_wire::value::Value;

use super::Taken;
use super::fields::Fields;
use super::options::Options;

/// What the core is given for a graph that was split. Ordered before it is culled, as stock does.
pub(super) fn taken(mut graph: SplitGraph, annotations: &Value, fields: &Fields) -> Taken {
    let order = match &fields.order {
        Some(order) => order.clone(),
        None => order_of(&graph.tasks),
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

/// A depth-first order: a task comes after what it needs, and soon after it.
fn order_of(tasks: &[SplitTask]) -> HashMap<Key, i64> {
    let index: HashMap<&Key, usize> = tasks.iter().enumerate().map(|(i, t)| (&t.key, i)).collect();
    let mut order = HashMap::with_capacity(tasks.len());
    let mut entered = vec![false; tasks.len()];
    for start in 0..tasks.len() {
        // (task, next dependency to look at); explicit, as graphs may be deep.
        let mut stack = vec![(start, 0)];
        while let Some((i, next)) = stack.pop() {
            let Some(task) = tasks.get(i) else { continue };
            if next == 0 && std::mem::replace(&mut entered[i], true) {
                continue;
            }
            match task.dependencies.get(next) {
                Some(dependency) => {
                    stack.push((i, next + 1));
                    if let Some(&d) = index.get(dependency)
                        && !entered[d]
                    {
                        stack.push((d, 0));
                    }
                }
                None => {
                    let number = i64::try_from(order.len()).unwrap_or(i64::MAX);
                    order.insert(task.key.clone(), number);
                }
            }
        }
    }
    order
}
