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
    let mut index = Index {
        tasks,
        key,
        places: HashMap::new(),
        next: 0,
    };
    let mut keep = vec![false; tasks.len()];
    let mut stack: Vec<usize> = index.places_of(wanted).collect();
    while let Some(at) = stack.pop() {
        match keep.get_mut(at) {
            Some(kept) if !*kept => *kept = true,
            _ => continue,
        }
        let below = tasks.get(at).map_or(&[][..], &dependencies);
        stack.extend(index.places_of(below));
    }
    keep
}

/// Finds the tasks of keys.
struct Index<'a, T, K> {
    tasks: &'a [T],
    key: K,
    /// Filled when first needed.
    places: HashMap<&'a Key, usize>,
    /// The task behind the one that was found last: keys often come in the order of the tasks, and need no look-up
    /// then.
    next: usize,
}

impl<'a, T, K: Fn(&T) -> &Key> Index<'a, T, K> {
    /// Where the tasks of these keys are. Keys without a task belong to other graphs.
    fn places_of(&mut self, keys: &[Key]) -> impl Iterator<Item = usize> {
        keys.iter().filter_map(|key| self.place_of(key))
    }

    fn place_of(&mut self, key: &Key) -> Option<usize> {
        let next = self.tasks.get(self.next);
        let place = match next {
            Some(task) if (self.key)(task) == key => self.next,
            _ => {
                if self.places.is_empty() {
                    let places = self.tasks.iter().enumerate();
                    self.places = places.map(|(at, task)| ((self.key)(task), at)).collect();
                }
                *self.places.get(key)?
            }
        };
        self.next = place + 1;
        Some(place)
    }
}
