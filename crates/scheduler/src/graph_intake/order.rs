//! Order numbers for graphs whose client gave none, as the client's release would compute them.

use std::collections::HashMap;

use oxidask_graph::order::{Algorithm, Cycle, OrderTask, order};
use oxidask_key::Key;
use oxidask_key::numbering::Numbering;
use oxidask_wire::release::Release;

use super::fields::Fields;
use crate::aside::aside;

/// First release with the newer algorithm.
const NEWER: Release = Release::new(2024, 1, 0);

/// The number of each task: what the client says, else the static order of its release.
pub(super) fn numbers<'a>(
    tasks: impl ExactSizeIterator<Item = OrderTask<'a>>,
    numbering: &'a Numbering,
    fields: &Fields,
    release: Release,
) -> Result<Vec<i64>, Cycle> {
    if let Some(given) = &fields.order {
        return Ok(from(given, tasks));
    }
    let algorithm = match release >= NEWER {
        true => Algorithm::V2026,
        false => Algorithm::V2022,
    };
    aside(tasks.len(), || order(tasks, numbering, algorithm))
}

fn from<'a>(given: &HashMap<Key, i64>, tasks: impl Iterator<Item = OrderTask<'a>>) -> Vec<i64> {
    let number = |task: OrderTask<'_>| given.get(task.key).copied().unwrap_or(0);
    tasks.map(number).collect()
}
