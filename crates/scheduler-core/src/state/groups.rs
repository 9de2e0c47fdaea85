//! Task groups (tasks of one collection) and prefixes (tasks of one kind): counts, durations, sizes.

use std::num::NonZeroU32;
use std::sync::Arc;

use hashbrown::HashMap;
use indexmap::IndexMap;
use oxidask_key::Key;

use crate::ids::{TaskId, WorkerId};
use crate::sets::IdSet;
use crate::task::TaskState;

/// A task group, index into [`GroupTable`]; reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupId(pub(crate) u32);

/// A type of results, one more than its index among the types of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeName(NonZeroU32);

impl GroupId {
    /// The group of the task that stands in for a missing one.
    pub(crate) const MISSING: Self = Self(u32::MAX);
}

/// A task prefix, index into [`GroupTable`]; lives until the scheduler restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PrefixId(pub(crate) u32);

type Names<V> = HashMap<Arc<str>, V, foldhash::fast::FixedState>;
type Counted = IndexMap<Arc<str>, u64, foldhash::fast::FixedState>;

/// The part of a text key that alone says its group: everything before the last word, if that word
/// has anything but letters, as tokens and numbers have. `None` where it is not that simple.
fn telling_part(key: &Key) -> Option<&str> {
    let text = key.as_str()?;
    let (head, word) = text.rsplit_once('-')?;
    let simple = !text.starts_with(['(', '<']) && !word.is_empty();
    (simple && !word.chars().all(char::is_alphabetic)).then_some(head)
}

/// How many tasks are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateCounts([u64; 8]);

impl StateCounts {
    pub(crate) fn get(&self, state: TaskState) -> u64 {
        self.0.get(state as usize).copied().unwrap_or(0)
    }
    pub(crate) fn add(&mut self, state: TaskState, n: u64) {
        if let Some(count) = self.0.get_mut(state as usize) {
            *count += n;
        }
    }
    pub(crate) fn sub(&mut self, state: TaskState, n: u64) {
        if let Some(count) = self.0.get_mut(state as usize) {
            *count = count.saturating_sub(n);
        }
    }
}

/// What group and prefix have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) nbytes_total: i64,
    pub(crate) states: StateCounts,
    /// Microseconds by action.
    pub(crate) all_durations: Counted,
    /// Microseconds.
    pub(crate) duration: u64,
    /// Tasks ever added.
    pub(crate) size: u64,
    /// Results by type name.
    pub(crate) types: Counted,
}

fn bump(map: &mut Counted, name: &Arc<str>, n: u64) {
    if let Some(count) = map.get_mut(name) {
        *count += n;
    } else {
        map.insert(Arc::clone(name), n);
    }
}

/// Tasks that belong to one call of a collection or of `map`.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) prefix: PrefixId,
    pub(crate) totals: Totals,
    /// Tasks of graphs that come in portions, as long as they did not come.
    pub(crate) to_come: u64,
    /// Groups that tasks of this one depend on, as long as they exist.
    pub(crate) dependencies: IdSet<GroupId>,
    /// The other direction.
    pub(crate) dependents: IdSet<GroupId>,
    /// Number and tasks of dependency groups that exist no more: they still count for root-likeness.
    pub(crate) gone_dependencies: (usize, u64),
    pub(crate) start: f64,
    pub(crate) stop: f64,
    /// Worker that gets the next siblings (co-assignment without queueing).
    pub(crate) last_worker: Option<WorkerId>,
    pub(crate) last_worker_tasks_left: i64,
    pub(crate) span_id: Option<Arc<str>>,
    /// Order of creation.
    pub(crate) serial: u64,
}

impl Group {
    fn new(name: Arc<str>, prefix: PrefixId, serial: u64) -> Self {
        Self {
            name,
            prefix,
            totals: Totals::default(),
            to_come: 0,
            dependencies: IdSet::default(),
            dependents: IdSet::default(),
            gone_dependencies: (0, 0),
            start: 0.0,
            stop: 0.0,
            last_worker: None,
            last_worker_tasks_left: 0,
            span_id: None,
            serial,
        }
    }

    /// Number of groups this one depends on or ever depended on.
    pub(crate) fn dependency_count(&self) -> usize {
        self.dependencies.len() + self.gone_dependencies.0
    }

    /// Counts what came of another group as its own.
    pub(crate) fn absorb(&mut self, other: &Self) {
        let (totals, more) = (&mut self.totals, &other.totals);
        totals.nbytes_total += more.nbytes_total;
        for state in TaskState::ALL {
            totals.states.add(state, more.states.get(state));
        }
        for (action, duration) in &more.all_durations {
            bump(&mut totals.all_durations, action, *duration);
        }
        totals.duration += more.duration;
        totals.size += more.size;
        for (name, count) in &more.types {
            bump(&mut totals.types, name, *count);
        }
        if self.start == 0.0 || (other.start != 0.0 && other.start < self.start) {
            self.start = other.start;
        }
        self.stop = self.stop.max(other.stop);
    }

    /// Everything was computed, failed or went away.
    pub(crate) fn done(&self) -> bool {
        use TaskState::{NoWorker, Processing, Queued, Waiting};
        let states = [Waiting, NoWorker, Queued, Processing];
        let idle = |state| self.totals.states.get(state) == 0;
        self.to_come == 0 && states.into_iter().all(idle)
    }

    /// Tasks that were ever added, and those that are to come.
    pub(crate) fn size(&self) -> u64 {
        self.totals.size + self.to_come
    }
}

/// Tasks of one kind, e.g. all `inc-…`.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    pub(crate) name: Arc<str>,
    pub(crate) totals: Totals,
    /// How often a task of this prefix entered each state.
    pub(crate) state_counts: StateCounts,
    /// Seconds; negative while nothing is known.
    pub(crate) duration_average: f64,
    /// Seconds; negative while nothing is known.
    pub(crate) max_exec_time: f64,
    pub(crate) suspicious: u64,
    pub(crate) groups: Vec<GroupId>,
    /// Tasks now on workers, without those that seceded.
    pub(crate) in_processing: u64,
    /// Tasks that are too fast to be worth stealing.
    pub(crate) never_stolen: bool,
    /// Tasks put up for stealing on a guess of their duration.
    pub(crate) unknown_durations: IdSet<TaskId>,
    /// Order of creation.
    serial: u64,
}

impl Prefix {
    fn new(name: Arc<str>, default_duration: Option<f64>, serial: u64) -> Self {
        Self {
            name,
            totals: Totals::default(),
            state_counts: StateCounts::default(),
            duration_average: default_duration.unwrap_or(-1.0),
            max_exec_time: -1.0,
            suspicious: 0,
            groups: Vec::new(),
            in_processing: 0,
            never_stolen: default_duration.is_some_and(|d| d <= 0.001),
            unknown_durations: IdSet::default(),
            serial,
        }
    }

    /// Notes how long a task has been running; long ones make the average unknown again.
    pub(crate) fn add_exec_time(&mut self, duration: f64) {
        self.max_exec_time = self.max_exec_time.max(duration);
        if duration > 2.0 * self.duration_average {
            self.duration_average = -1.0;
        }
    }

    pub(crate) fn add_compute_duration(&mut self, seconds: f64) {
        self.duration_average = if self.duration_average < 0.0 {
            seconds
        } else {
            0.5 * seconds + 0.5 * self.duration_average
        };
    }

    /// Expected seconds of one task.
    pub(crate) fn duration_or(&self, unknown: f64) -> f64 {
        if self.duration_average >= 0.0 {
            self.duration_average
        } else if self.max_exec_time > 0.0 {
            2.0 * self.max_exec_time
        } else {
            unknown
        }
    }
}

/// All groups and prefixes.
pub(crate) struct GroupTable {
    groups: Vec<Option<Box<Group>>>,
    free: Vec<GroupId>,
    group_names: Names<GroupId>,
    prefixes: Vec<Prefix>,
    prefix_names: Names<PrefixId>,
    /// Prefixes with tasks on workers, oldest first.
    pub(crate) processing_prefixes: Vec<PrefixId>,
    default_durations: Names<f64>,
    last_serial: u64,
    /// The last tuple key's collection and its group: keys of one collection come in a row.
    recent: Option<(Key, GroupId)>,
    /// The same for text keys: the part that says the group.
    recent_text: Option<(Box<str>, GroupId)>,
    /// Stand in for what should be there and is not: a bug, but none to die of.
    missing: Box<Group>,
    missing_prefix: Box<Prefix>,
}

impl GroupTable {
    pub(crate) fn new(default_durations: &[(String, f64)]) -> Self {
        Self::with_durations(
            default_durations
                .iter()
                .map(|(name, seconds)| (name.as_str().into(), *seconds))
                .collect(),
        )
    }

    fn with_durations(default_durations: Names<f64>) -> Self {
        Self {
            groups: Vec::new(),
            free: Vec::new(),
            group_names: Names::default(),
            prefixes: Vec::new(),
            prefix_names: Names::default(),
            processing_prefixes: Vec::new(),
            default_durations,
            last_serial: 0,
            recent: None,
            recent_text: None,
            missing: Box::new(Group::new("".into(), PrefixId(u32::MAX), 0)),
            missing_prefix: Box::new(Prefix::new("".into(), None, 0)),
        }
    }

    /// The group a new task with this key belongs to, made on first need.
    pub(crate) fn group_for(&mut self, key: &Key) -> GroupId {
        let collection = match key {
            Key::Tuple(items) => items.first(),
            _ => None,
        };
        if let (Some(collection), Some((recent, id))) = (collection, &self.recent)
            && collection == recent
            && self.get(*id).is_some()
        {
            return *id;
        }
        let head = telling_part(key);
        if let (Some(head), Some((recent, id))) = (head, &self.recent_text)
            && head == &**recent
            && self.get(*id).is_some()
        {
            return *id;
        }
        let name = key.group();
        let id = match self.group_names.get(name.as_str()) {
            Some(&id) => id,
            None => self.add_group(name.into(), &key.prefix()),
        };
        match (collection, head) {
            (Some(collection), _) => self.recent = Some((collection.clone(), id)),
            (_, Some(head)) => self.recent_text = Some((head.into(), id)),
            _ => {}
        }
        id
    }

    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// Groups and prefixes made from now on have a greater serial number than this.
    pub(crate) fn last_serial(&self) -> u64 {
        self.last_serial
    }

    /// Has the group, and its prefix, count as made now, if they were made with a serial number in
    /// `made`.
    pub(crate) fn made_now(&mut self, id: GroupId, made: &std::ops::Range<u64>) {
        if !made.contains(&self.group(id).serial) {
            return;
        }
        let serial = self.next_serial();
        let group = self.group_mut(id);
        group.serial = serial;
        let prefix = group.prefix;
        if made.contains(&self.prefix(prefix).serial) {
            self.prefix_mut(prefix).serial = serial;
        }
    }

    fn add_group(&mut self, name: Arc<str>, prefix: &str) -> GroupId {
        let prefix = match self.prefix_names.get(prefix) {
            Some(&id) => id,
            None => self.add_prefix(prefix.into()),
        };
        let serial = self.next_serial();
        let group = Box::new(Group::new(Arc::clone(&name), prefix, serial));
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(slot) = self.groups.get_mut(id.0 as usize) {
                    *slot = Some(group);
                }
                id
            }
            None => {
                self.groups.push(Some(group));
                GroupId(self.groups.len() as u32 - 1)
            }
        };
        self.group_names.insert(name, id);
        self.prefix_mut(prefix).groups.push(id);
        id
    }

    fn add_prefix(&mut self, name: Arc<str>) -> PrefixId {
        let id = PrefixId(self.prefixes.len() as u32);
        let default = self.default_durations.get(&name).copied();
        let serial = self.next_serial();
        self.prefixes
            .push(Prefix::new(Arc::clone(&name), default, serial));
        self.prefix_names.insert(name, id);
        id
    }

    /// A group that may be gone.
    pub(crate) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.0 as usize)?.as_deref()
    }

    /// The group of a task that exists.
    pub(crate) fn group(&self, id: GroupId) -> &Group {
        let group = self.get(id);
        debug_assert!(group.is_some(), "a group lives as long as its tasks");
        group.unwrap_or(&self.missing)
    }

    pub(crate) fn group_mut(&mut self, id: GroupId) -> &mut Group {
        match self.groups.get_mut(id.0 as usize) {
            Some(Some(group)) => group,
            _ => {
                debug_assert!(false, "a group lives as long as its tasks");
                &mut self.missing
            }
        }
    }

    pub(crate) fn prefix(&self, id: PrefixId) -> &Prefix {
        self.prefixes
            .get(id.0 as usize)
            .unwrap_or(&self.missing_prefix)
    }

    pub(crate) fn prefix_mut(&mut self, id: PrefixId) -> &mut Prefix {
        match self.prefixes.get_mut(id.0 as usize) {
            Some(prefix) => prefix,
            None => &mut self.missing_prefix,
        }
    }

    pub(crate) fn prefix_of(&self, group: GroupId) -> &Prefix {
        self.prefix(self.group(group).prefix)
    }

    pub(crate) fn prefix_of_mut(&mut self, group: GroupId) -> &mut Prefix {
        let prefix = self.group(group).prefix;
        self.prefix_mut(prefix)
    }

    fn both(&mut self, id: GroupId, mut f: impl FnMut(&mut Totals)) {
        let group = self.group_mut(id);
        f(&mut group.totals);
        let prefix = group.prefix;
        f(&mut self.prefix_mut(prefix).totals);
    }

    /// Counts a new task in `state`.
    pub(crate) fn add_task(&mut self, id: GroupId, state: TaskState) {
        self.both(id, |t| {
            t.states.add(state, 1);
            t.size += 1;
        });
    }

    /// So many tasks will come.
    pub(crate) fn announce(&mut self, id: GroupId, tasks: u32) {
        self.group_mut(id).to_come += u64::from(tasks);
    }

    /// So many of the tasks that were announced came, or will not.
    pub(crate) fn came(&mut self, id: GroupId, tasks: u32) {
        let group = self.group_mut(id);
        group.to_come = group.to_come.saturating_sub(u64::from(tasks));
    }

    /// Undoes [`GroupTable::add_task`] for a task that never came to be.
    pub(crate) fn undo_add_task(&mut self, id: GroupId, state: TaskState) {
        self.both(id, |t| {
            t.states.sub(state, 1);
            t.size = t.size.saturating_sub(1);
        });
    }

    /// Counts a change of state.
    pub(crate) fn change_state(&mut self, id: GroupId, old: TaskState, new: TaskState) {
        self.both(id, |t| {
            t.states.sub(old, 1);
            t.states.add(new, 1);
        });
        self.prefix_of_mut(id).state_counts.add(new, 1);
    }

    pub(crate) fn update_nbytes(&mut self, id: GroupId, diff: i64) {
        self.both(id, |t| t.nbytes_total += diff);
    }

    /// Counts a result of type `name`.
    pub(crate) fn add_type(&mut self, id: GroupId, name: &Arc<str>) -> Option<TypeName> {
        self.both(id, |t| bump(&mut t.types, name, 1));
        let index = self.group(id).totals.types.get_index_of(name)?;
        let number = u32::try_from(index).ok()?.checked_add(1)?;
        NonZeroU32::new(number).map(TypeName)
    }

    /// The name of a type of results in a group.
    pub(crate) fn type_name(&self, id: GroupId, name: TypeName) -> Option<&Arc<str>> {
        let index = name.0.get() as usize - 1;
        Some(self.group(id).totals.types.get_index(index)?.0)
    }

    /// Counts the time an action took, in seconds.
    pub(crate) fn add_duration(&mut self, id: GroupId, action: &Arc<str>, start: f64, stop: f64) {
        let microseconds = ((stop - start) * 1e6).round().max(0.0) as u64;
        self.both(id, |t| {
            t.duration += microseconds;
            bump(&mut t.all_durations, action, microseconds);
        });
        if &**action == "compute" {
            let group = self.group_mut(id);
            if group.stop < stop {
                group.stop = stop;
            }
            if group.start == 0.0 || group.start > start {
                group.start = start;
            }
            self.prefix_of_mut(id)
                .add_compute_duration(microseconds as f64 / 1e6);
        }
    }

    /// Notes that tasks of `dependent` need tasks of `dependency`.
    pub(crate) fn add_dependency(&mut self, dependent: GroupId, dependency: GroupId) {
        if self.group_mut(dependent).dependencies.insert(dependency) {
            self.group_mut(dependency).dependents.insert(dependent);
        }
    }

    /// Tasks in the groups that `id` depends on.
    pub(crate) fn dependency_tasks(&self, id: GroupId) -> u64 {
        let group = self.group(id);
        let live: u64 = group
            .dependencies
            .iter()
            .map(|d| self.group(d).size())
            .sum();
        live + group.gone_dependencies.1
    }

    /// Takes the group out if all of its tasks are forgotten.
    pub(crate) fn remove_if_forgotten(&mut self, id: GroupId) -> Option<Box<Group>> {
        let group = self.get(id)?;
        let all = group.totals.size;
        let gone = group.totals.states.get(TaskState::Forgotten);
        let states = group.totals.states;
        let live = states.0.iter().sum::<u64>() - gone;
        if live > 0 || group.to_come > 0 {
            return None;
        }
        let group = self.groups.get_mut(id.0 as usize).and_then(Option::take)?;
        for dependency in group.dependencies.iter().filter(|&d| d != id) {
            self.group_mut(dependency).dependents.remove(id);
        }
        for dependent in group.dependents.iter().filter(|&d| d != id) {
            let dependent = self.group_mut(dependent);
            dependent.dependencies.remove(id);
            dependent.gone_dependencies.0 += 1;
            dependent.gone_dependencies.1 += all;
        }
        self.group_names.remove(&group.name);
        self.free.push(id);
        let prefix = self.prefix_mut(group.prefix);
        prefix.groups.retain(|&g| g != id);
        for state in TaskState::ALL {
            let count = states.get(state);
            prefix.totals.states.sub(state, count);
            prefix.totals.size = prefix.totals.size.saturating_sub(count);
        }
        prefix.totals.duration = prefix.totals.duration.saturating_sub(group.totals.duration);
        prefix.totals.nbytes_total -= group.totals.nbytes_total;
        for (name, count) in &group.totals.types {
            if let Some(total) = prefix.totals.types.get_mut(name) {
                *total = total.saturating_sub(*count);
                if *total == 0 {
                    prefix.totals.types.shift_remove(name);
                }
            }
        }
        Some(group)
    }

    /// One more or one less task of the prefix on the workers.
    pub(crate) fn count_processing(&mut self, id: PrefixId, more: bool) {
        let prefix = self.prefix_mut(id);
        if more {
            prefix.in_processing += 1;
            if prefix.in_processing == 1 {
                self.processing_prefixes.push(id);
            }
        } else {
            prefix.in_processing = prefix.in_processing.saturating_sub(1);
            if prefix.in_processing == 0 {
                self.processing_prefixes.retain(|&p| p != id);
            }
        }
    }

    /// Groups, oldest first.
    pub(crate) fn groups(&self) -> Vec<&Group> {
        let mut groups: Vec<&Group> = self.groups.iter().flatten().map(AsRef::as_ref).collect();
        groups.sort_unstable_by_key(|g| g.serial);
        groups
    }

    /// All groups in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups
            .iter()
            .enumerate()
            .filter_map(|(i, g)| Some((GroupId(i as u32), g.as_deref()?)))
    }

    /// Prefixes, oldest first.
    pub(crate) fn prefixes(&self) -> Vec<&Prefix> {
        let mut prefixes: Vec<&Prefix> = self.prefixes.iter().collect();
        prefixes.sort_unstable_by_key(|p| p.serial);
        prefixes
    }

    pub(crate) fn group_by_name(&self, name: &str) -> Option<&Group> {
        self.get(*self.group_names.get(name)?)
    }

    pub(crate) fn prefix_by_name(&self, name: &str) -> Option<&Prefix> {
        self.prefixes.get(self.prefix_names.get(name)?.0 as usize)
    }

    /// Forgets everything learnt. Only when there is no task.
    pub(crate) fn clear(&mut self) {
        let default_durations = std::mem::take(&mut self.default_durations);
        *self = Self::with_durations(default_durations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_part_says_the_group() {
        let names = [
            "inc-2f8a",
            "inc-1",
            "inc-abcdefgh-1",
            "inc-x1-2",
            "a-b-c-3",
            "-5",
            "--5",
            "5-5",
            "_x-5",
            "x,y-5",
            "('x-1', 0)-5",
            "<a.b-5",
            "é-ü-ß1",
            "0123456789abcdef0123456789abcdef-1",
            "x-",
            "x",
            "",
            "inc-sum-",
            "inc-sum-a",
            "inc-sum-1",
            "dead-beefdead-1",
        ];
        let mut seen: HashMap<String, String> = HashMap::default();
        for name in names {
            for tail in ["", "1", "-77", "-deadbeef1"] {
                let key = Key::from(format!("{name}{tail}"));
                if let Some(head) = telling_part(&key) {
                    let group = seen.entry(head.to_owned()).or_insert_with(|| key.group());
                    assert_eq!(*group, key.group(), "{key:?}");
                    assert_eq!(key.group(), key.prefix(), "{key:?}");
                }
            }
        }
        assert!(seen.len() > 20);
    }
}
