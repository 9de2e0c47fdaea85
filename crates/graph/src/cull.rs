//! Dropping tasks that the wanted keys do not need.

use hashbrown::HashMap;

use oxidask_key::Key;

use crate::intake::SplitTask;

/// Keeps the tasks that `wanted` needs, directly or through dependencies; their order stays.
pub fn cull(tasks: &mut Vec<SplitTask>, wanted: &[Key]) {
    keep_needed(tasks, wanted, |t| &t.key, |t| &t.dependencies);
}

/// Which of the tasks [`cull`] would keep.
#[must_use]
pub fn needed(tasks: &[SplitTask], wanted: &[Key]) -> Vec<bool> {
    which(tasks, wanted, |t| &t.key, |t| &t.dependencies)
}

/// Like [`cull`], for tasks of any kind.
pub fn keep_needed<T>(
    tasks: &mut Vec<T>,
    wanted: &[Key],
    key: impl Fn(&T) -> &Key,
    dependencies: impl Fn(&T) -> &[Key],
) {
    let mut flags = which(tasks, wanted, key, dependencies).into_iter();
    tasks.retain(|_| flags.next().unwrap_or(false));
}

fn which<T>(
    tasks: &[T],
    wanted: &[Key],
    key: impl Fn(&T) -> &Key,
    dependencies: impl Fn(&T) -> &[Key],
) -> Vec<bool> {
    let index: HashMap<&Key, usize> = tasks.iter().enumerate().map(|(i, t)| (key(t), i)).collect();
    reachable(tasks.len(), &index, wanted, |i| {
        tasks.get(i).map_or(&[], &dependencies)
    })
}

/// Which of `count` tasks `wanted` needs. `index` gives the number of a key's task; keys without
/// one belong to other graphs.
fn reachable<'a>(
    count: usize,
    index: &HashMap<&Key, usize>,
    wanted: &[Key],
    dependencies: impl Fn(usize) -> &'a [Key],
) -> Vec<bool> {
    let mut keep = vec![false; count];
    let mut stack: Vec<usize> = wanted
        .iter()
        .filter_map(|key| index.get(key).copied())
        .collect();
    while let Some(i) = stack.pop() {
        match keep.get_mut(i) {
            Some(kept) if !*kept => *kept = true,
            _ => continue,
        }
        stack.extend(
            dependencies(i)
                .iter()
                .filter_map(|key| index.get(key).copied()),
        );
    }
    keep
}
