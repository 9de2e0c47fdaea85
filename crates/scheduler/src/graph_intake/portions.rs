//! Handing a graph to the core: large ones in portions, between which it does other things.

use std::sync::atomic::{AtomicU64, Ordering};

use oxidask_key::Key;
use oxidask_key::numbering::Numbering;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::GraphUpdate;
use oxidask_scheduler_core::graph::portions::{GraphId, Portions};
use oxidask_scheduler_core::task::TaskState;

use crate::aside::aside;
use crate::core_thread::{Applied, CoreHandle, CoreStopped};
use crate::memory;

/// Tasks and dependencies in one portion: some milliseconds of the core, which nobody notices.
const PORTION: usize = 1000;

/// Resolves when the core has the whole graph.
///
/// # Errors
/// When the core has stopped.
pub(super) async fn hand_over(
    core: &CoreHandle,
    update: GraphUpdate,
    numbering: Numbering,
) -> Result<(), CoreStopped> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let size = update.tasks.len();
    let cut = aside(size, || {
        let graph = GraphId(NEXT.fetch_add(1, Ordering::Relaxed));
        Portions::of(update, numbering, graph, PORTION)
    });
    let mut portions = match cut {
        Ok(portions) => portions,
        Err(update) => {
            core.send(Event::UpdateGraph(update));
            return Ok(());
        }
    };
    let states = known(core, &portions).await?;
    aside(size, || portions.found(&states));
    let (outline, rest) = portions.begin();
    core.apply(vec![Event::BeginGraph(Box::new(outline))])
        .await?;
    let mut applied: Option<Applied> = None;
    for portion in rest {
        // The next one is made while the core has this one, and waits until that is done.
        let portion = Event::ContinueGraph(Box::new(portion));
        if let Some(before) = applied.take() {
            before.done().await?;
        }
        applied = Some(core.begin_to_apply(vec![portion]));
    }
    if let Some(last) = applied {
        last.done().await?;
    }
    // Taking it in needed several times what it is.
    aside(size, || memory::give_back_after(size));
    Ok(())
}

/// The tasks that the core knows already: mostly none, and then only groups are asked for.
async fn known(
    core: &CoreHandle,
    portions: &Portions,
) -> Result<Vec<(Key, TaskState)>, CoreStopped> {
    let groups = &portions.outline.groups;
    let groups: Vec<String> = groups.iter().map(|group| group.sample.group()).collect();
    let is_known = core
        .query(move |state| {
            let known = |group: &String| state.task_group(group).is_some();
            groups.iter().map(known).collect::<Vec<bool>>()
        })
        .await?;
    let keys = portions.maybe_known(&is_known);
    let mut states = Vec::new();
    for chunk in keys.chunks(PORTION) {
        let chunk = chunk.to_vec();
        let found = core
            .query(move |state| {
                let with_state = |key: Key| {
                    let found = state.task(&key)?.state();
                    Some((key, found))
                };
                chunk.into_iter().filter_map(with_state).collect::<Vec<_>>()
            })
            .await?;
        states.extend(found);
    }
    Ok(states)
}
