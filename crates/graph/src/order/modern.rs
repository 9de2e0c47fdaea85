//! The algorithm of dask 2026.8.0: walk a critical path from each leaf back to the roots, and run
//! what comes for free on the way.
//!
//! *Roots* have no dependencies, *leaves* no dependents. For every leaf in turn, chosen so that few
//! more roots have to be loaded for it, the path along the most expensive dependencies is taken;
//! along it, everything needed is ordered. Tasks that become runnable besides are followed to the
//! next node that needs something else, and ordered as soon as that completes it.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use hashbrown::HashMap;

use super::{Cycle, Graph};

/// Largest sum of the sizes of all sets of connected roots and leaves. Beyond it (a running sum over
/// tens of thousands of chunks would get there) the order falls back to depth first.
const MAX_CONNECTED: usize = 32 << 20;

const NOT_ORDERED: i64 = -1;

pub(super) fn order(mut graph: Graph<'_>) -> Result<Vec<i64>, Cycle> {
    let data = Data::remove(&mut graph);
    let total = graph.total_dependencies(|n| !data.removed[n as usize]);
    let computable = |n: u32| data.removed[n as usize] || total[n as usize] > 0;
    if !(0..graph.len() as u32).all(computable) {
        return Err(graph.cycle(computable));
    }
    let roots = connected(&graph.dependencies, &graph.dependents, &data.removed);
    let leaves = connected(&graph.dependents, &graph.dependencies, &data.removed);
    let rank = rank(&graph, &total, roots.as_ref());
    let order = match (roots, leaves) {
        (Some(roots), Some(leaves)) => Walk::new(&graph, data, &rank, &roots, &leaves).run(),
        _ => depth_first(&graph, data, &rank),
    };
    Ok(order.into_iter().take(graph.count).collect())
}

/// Mere values that several tasks need: taken out of the graph, and ordered right before the first
/// task that needs them.
struct Data {
    removed: Vec<bool>,
    required_by: HashMap<u32, Vec<u32>>,
}

impl Data {
    fn remove(graph: &mut Graph<'_>) -> Self {
        let mut data = Self {
            removed: vec![false; graph.len()],
            required_by: HashMap::new(),
        };
        for node in 0..graph.len() {
            let is_root = graph.dependencies[node].is_empty();
            if graph.is_task[node] || !is_root || graph.dependents[node].len() < 2 {
                continue;
            }
            data.removed[node] = true;
            let node = node as u32;
            for dependent in std::mem::take(&mut graph.dependents[node as usize]) {
                graph.dependencies[dependent as usize].retain(|&d| d != node);
                data.required_by.entry(dependent).or_default().push(node);
            }
        }
        for required in data.required_by.values_mut() {
            required.sort_by_cached_key(|&node| graph.text(node));
        }
        data
    }
}

/// For every node the roots it depends on, as a number of a set in a pool.
struct Connected {
    set_of: Vec<u32>,
    sets: Vec<Rc<[u32]>>,
    /// Largest number of dependents that one of the roots has.
    max_dependents: Vec<u32>,
}

impl Connected {
    /// The roots of a node that is not a root itself; none for roots.
    fn get(&self, node: u32) -> &[u32] {
        &self.sets[self.set_of[node as usize] as usize]
    }
}

/// The roots that each node depends on, given dependencies and dependents; with the two exchanged,
/// the leaves that depend on it. `None` if that would be too much.
fn connected(
    dependencies: &[Vec<u32>],
    dependents: &[Vec<u32>],
    removed: &[bool],
) -> Option<Connected> {
    let count = dependencies.len();
    let mut result = Connected {
        // Set 0 is the empty one.
        set_of: vec![0; count],
        sets: vec![Rc::new([])],
        max_dependents: vec![0; count],
    };
    let mut known: HashMap<Rc<[u32]>, u32> = HashMap::new();
    let mut size = 0;
    let mut needed: Vec<u32> = dependencies.iter().map(|d| d.len() as u32).collect();
    let mut roots = Vec::new();
    let mut ready = Vec::new();
    for node in 0..count as u32 {
        if !dependencies[node as usize].is_empty() || removed[node as usize] {
            continue;
        }
        roots.push(node);
        let above = &dependents[node as usize];
        result.max_dependents[node as usize] = above.len() as u32;
        if !above.is_empty() {
            result.set_of[node as usize] = result.sets.len() as u32;
            result.sets.push(Rc::new([node]));
        }
        for &dependent in above {
            needed[dependent as usize] -= 1;
            if needed[dependent as usize] == 0 {
                ready.push(dependent);
            }
        }
    }
    while let Some(node) = ready.pop() {
        for &dependent in &dependents[node as usize] {
            needed[dependent as usize] -= 1;
            if needed[dependent as usize] == 0 {
                ready.push(dependent);
            }
        }
        let below = &dependencies[node as usize];
        let most = below.iter().map(|&d| result.max_dependents[d as usize]);
        result.max_dependents[node as usize] = most.max().unwrap_or(0);
        let mut parts: Vec<u32> = below.iter().map(|&d| result.set_of[d as usize]).collect();
        parts.sort_unstable();
        parts.dedup();
        result.set_of[node as usize] = match parts[..] {
            [single] => single,
            _ => {
                let mut union = Vec::new();
                for &part in &parts {
                    union.extend_from_slice(&result.sets[part as usize]);
                }
                size += union.len();
                if size > MAX_CONNECTED {
                    return None;
                }
                union.sort_unstable();
                union.dedup();
                let same = parts
                    .iter()
                    .copied()
                    .find(|&part| result.sets[part as usize].len() == union.len());
                same.or_else(|| known.get(&union[..]).copied())
                    .unwrap_or_else(|| {
                        let number = result.sets.len() as u32;
                        let union: Rc<[u32]> = union.into();
                        result.sets.push(Rc::clone(&union));
                        known.insert(union, number);
                        number
                    })
            }
        };
    }
    for root in roots {
        result.set_of[root as usize] = 0;
    }
    Some(result)
}

/// The place of each node in the order by cost, then name: the sort key of all decisions.
fn rank(graph: &Graph<'_>, total: &[u128], roots: Option<&Connected>) -> Vec<u32> {
    let cost: Vec<(u128, usize, usize, i64)> = (0..graph.len())
        .map(|n| {
            let (roots, max_dependents) = match roots {
                Some(roots) => (roots.get(n as u32).len(), roots.max_dependents[n]),
                None => (0, 0),
            };
            let max_dependents = -i64::from(max_dependents);
            (total[n], graph.dependencies[n].len(), roots, max_dependents)
        })
        .collect();
    let mut sorted: Vec<u32> = (0..graph.len() as u32).collect();
    sorted.sort_unstable_by_key(|&n| cost[n as usize]);
    let mut named: Vec<(u128, Cow<'_, str>, u32)> = Vec::new();
    for same in sorted.chunk_by_mut(|&a, &b| cost[a as usize] == cost[b as usize]) {
        if same.len() > 1 {
            named.clear();
            named.extend(same.iter().map(|&n| {
                let text = graph.text(n);
                (beginning(&text), text, n)
            }));
            named.sort_unstable();
            let numbers = same.iter_mut().zip(&named);
            numbers.for_each(|(place, &(_, _, n))| *place = n);
        }
    }
    let mut rank = vec![0; graph.len()];
    for (place, &node) in sorted.iter().enumerate() {
        rank[node as usize] = place as u32;
    }
    rank
}

/// The first bytes of a text as a number that compares like them: most names differ there already, and need not be
/// looked at one by one.
fn beginning(text: &str) -> u128 {
    let mut first = [0; 16];
    first
        .iter_mut()
        .zip(text.bytes())
        .for_each(|(to, from)| *to = from);
    u128::from_be_bytes(first)
}

/// A path of nodes that can be run one after the other.
type Path = Vec<u32>;

/// State of the walk. Sets of nodes that are searched for their cheapest member hold ranks.
struct Walk<'a> {
    graph: &'a Graph<'a>,
    data: Data,
    rank: &'a [u32],
    node_of_rank: Vec<u32>,
    leaves: &'a Connected,
    is_root: Vec<bool>,
    is_open_leaf: Vec<bool>,
    needed: Vec<u32>,
    order: Vec<i64>,
    next: i64,
    ordered: usize,
    runnable: Vec<u32>,
    in_runnable_hull: Vec<bool>,
    reachable_hull: BTreeSet<u32>,
    known_paths: HashMap<u32, Vec<Path>>,
    critical_path: Vec<u32>,
    leaves_sorted: Vec<u32>,
    /// Roots to be loaded for each leaf that is not accessible yet.
    leaf_degree: Vec<u32>,
    leaves_by_degree: HashMap<u32, BTreeSet<u32>>,
    min_degree: u32,
    max_degree: u32,
}

impl<'a> Walk<'a> {
    fn new(
        graph: &'a Graph<'a>,
        data: Data,
        rank: &'a [u32],
        roots: &Connected,
        leaves: &'a Connected,
    ) -> Self {
        let count = graph.len();
        let alive = |n: &usize| !data.removed[*n];
        let mut node_of_rank = vec![0; count];
        for (node, &rank) in rank.iter().enumerate() {
            node_of_rank[rank as usize] = node as u32;
        }
        let is_root: Vec<bool> = (0..count)
            .map(|n| alive(&n) && graph.dependencies[n].is_empty())
            .collect();
        let is_open_leaf: Vec<bool> = (0..count)
            .map(|n| alive(&n) && graph.dependents[n].is_empty())
            .collect();
        let alive_count = (0..count).filter(alive).count() as u32;
        let mut walk = Self {
            graph,
            rank,
            node_of_rank,
            leaves,
            needed: graph.dependencies.iter().map(|d| d.len() as u32).collect(),
            order: vec![NOT_ORDERED; count],
            next: 0,
            ordered: 0,
            runnable: Vec::new(),
            in_runnable_hull: vec![false; count],
            reachable_hull: BTreeSet::new(),
            known_paths: HashMap::new(),
            critical_path: Vec::new(),
            leaves_sorted: Vec::new(),
            leaf_degree: vec![0; count],
            leaves_by_degree: HashMap::new(),
            min_degree: alive_count,
            max_degree: alive_count,
            data,
            is_root,
            is_open_leaf,
        };
        walk.sort_leaves(roots);
        walk
    }

    fn sort_leaves(&mut self, roots: &Connected) {
        for node in 0..self.graph.len() {
            if !self.is_open_leaf[node] {
                continue;
            }
            self.leaves_sorted.push(self.rank[node]);
            if self.is_root[node] {
                continue;
            }
            let degree = roots.get(node as u32).len() as u32;
            self.min_degree = self.min_degree.min(degree);
            self.max_degree = self.max_degree.max(degree);
            self.leaf_degree[node] = degree;
            let same = self.leaves_by_degree.entry(degree).or_default();
            same.insert(self.rank[node]);
        }
        // Taken from the end.
        self.leaves_sorted.sort_unstable();
        if !self.use_longest_path() {
            self.leaves_sorted.reverse();
        }
    }

    /// Whether to begin with the most expensive leaf. Graphs that shrink or grow a lot and
    /// symmetric ones are best taken that way, others from the cheapest on.
    fn use_longest_path(&self) -> bool {
        let roots = self.is_root.iter().filter(|&&r| r).count();
        let leaves = self.leaves_sorted.len();
        if (roots.abs_diff(leaves) as f64 / roots as f64) < 0.8 {
            let mut size = 0;
            for &node in &self.node_of_rank {
                if !self.is_root[node as usize] {
                    continue;
                }
                let connected = self.leaves.get(node).len();
                if size == 0 {
                    size = connected;
                } else if size != connected {
                    return false;
                }
            }
        }
        true
    }

    fn run(mut self) -> Vec<i64> {
        while self.ordered < self.graph.len() {
            let Some(target) = self.next_target() else {
                break;
            };
            let before = self.ordered;
            self.build_critical_path(target);
            self.walk_critical_path();
            self.process_runnable();
            if self.ordered == before {
                // Not to be led in circles by a degree that is off: take the leaves as listed.
                self.min_degree = self.max_degree;
            }
        }
        self.order
    }

    fn is_ordered(&self, node: u32) -> bool {
        self.order[node as usize] != NOT_ORDERED
    }

    fn next_target(&mut self) -> Option<u32> {
        let rank = if self.reachable_hull.is_empty() || self.min_degree == self.max_degree {
            self.leaves_sorted.pop()
        } else {
            let candidates = self.leaves_by_degree.get(&self.min_degree);
            candidates.and_then(|leaves| {
                let (few, many) = if leaves.len() < self.reachable_hull.len() {
                    (leaves, &self.reachable_hull)
                } else {
                    (&self.reachable_hull, leaves)
                };
                few.iter()
                    .find(|rank| many.contains(rank))
                    .or_else(|| leaves.first())
                    .copied()
            })
        };
        // Should the degrees be exhausted, what is left is in the list.
        let rank = rank.or_else(|| self.leaves_sorted.pop())?;
        Some(self.node_of_rank[rank as usize])
    }

    fn build_critical_path(&mut self, target: u32) {
        self.critical_path.push(target);
        let mut next = self.by_rank(target, false);
        while let Some(&most_expensive) = next.last() {
            self.critical_path.push(most_expensive);
            next = self.by_rank(most_expensive, true);
            self.critical_path.extend_from_slice(&next);
        }
    }

    /// Dependencies, cheapest first; without those ordered already if `open`.
    fn by_rank(&self, node: u32, open: bool) -> Vec<u32> {
        let dependencies = self.graph.dependencies[node as usize].iter().copied();
        let mut sorted: Vec<u32> = dependencies
            .filter(|&d| !open || !self.is_ordered(d))
            .collect();
        sorted.sort_unstable_by_key(|&d| self.rank[d as usize]);
        sorted
    }

    fn walk_critical_path(&mut self) {
        let mut walked_back = false;
        while let Some(node) = self.critical_path.pop() {
            if self.is_ordered(node) {
                continue;
            }
            if self.needed[node as usize] == 0 {
                if walked_back && self.runnable.len() < self.critical_path.len() {
                    self.process_runnable();
                }
                self.add(node);
                continue;
            }
            self.critical_path.push(node);
            let (known, unknown): (Vec<u32>, Vec<u32>) = self
                .by_rank(node, true)
                .into_iter()
                .partition(|d| self.known_paths.contains_key(d));
            walked_back |= unknown.len() > 1;
            self.critical_path.extend(unknown);
            for dependency in known {
                for path in self.known_paths.remove(&dependency).unwrap_or_default() {
                    self.critical_path.extend(path.into_iter().rev());
                }
            }
        }
    }

    /// Orders a node, and what hangs on it alone.
    fn add(&mut self, node: u32) {
        let mut next = vec![node];
        while let Some(node) = next.pop() {
            let n = node as usize;
            self.in_runnable_hull[n] = false;
            self.reachable_hull.remove(&self.rank[n]);
            self.is_open_leaf[n] = false;
            if self.is_ordered(node) {
                continue;
            }
            for data in self.data.required_by.remove(&node).unwrap_or_default() {
                self.set_order(data);
            }
            self.set_order(node);
            if self.is_root[n] {
                self.root_loaded(node);
            }
            let dependents = self.dependents_by_rank(node);
            let only = dependents.len() == 1;
            for dependent in dependents {
                self.needed[dependent as usize] = self.needed[dependent as usize].saturating_sub(1);
                self.reachable_hull.insert(self.rank[dependent as usize]);
                if self.needed[dependent as usize] == 0 {
                    if only {
                        next.push(dependent);
                    } else {
                        self.runnable.push(dependent);
                    }
                }
            }
        }
    }

    fn set_order(&mut self, node: u32) {
        if self.is_ordered(node) {
            return;
        }
        self.order[node as usize] = self.next;
        self.ordered += 1;
        // Keys of other graphs take no place.
        if (node as usize) < self.graph.count {
            self.next += 1;
        }
    }

    fn dependents_by_rank(&self, node: u32) -> Vec<u32> {
        let mut sorted = self.graph.dependents[node as usize].clone();
        sorted.sort_unstable_by_key(|&d| self.rank[d as usize]);
        sorted
    }

    /// Leaves get nearer by a root.
    fn root_loaded(&mut self, root: u32) {
        for &leaf in self.leaves.get(root) {
            let l = leaf as usize;
            if !self.is_open_leaf[l] || self.leaf_degree[l] == 0 {
                continue;
            }
            let degree = self.leaf_degree[l];
            let rank = self.rank[l];
            let mut emptied = false;
            if let Some(same) = self.leaves_by_degree.get_mut(&degree) {
                same.remove(&rank);
                emptied = same.is_empty();
            }
            self.leaf_degree[l] = degree - 1;
            if degree > 1 {
                self.min_degree = self.min_degree.min(degree - 1);
                let same = self.leaves_by_degree.entry(degree - 1).or_default();
                same.insert(rank);
            } else if emptied {
                while self.min_degree != self.max_degree
                    && self
                        .leaves_by_degree
                        .get(&self.min_degree)
                        .is_none_or(BTreeSet::is_empty)
                {
                    self.min_degree += 1;
                }
            }
        }
    }

    /// Follows everything that has become runnable up to a node that needs more. Paths that complete
    /// such a node, or lead to a leaf, are ordered; others are remembered.
    fn process_runnable(&mut self) {
        while !self.runnable.is_empty() {
            let mut candidates = std::mem::take(&mut self.runnable);
            while let Some(node) = candidates.pop() {
                if self.in_runnable_hull[node as usize] || self.is_ordered(node) {
                    continue;
                }
                if self.is_open_leaf[node as usize] {
                    self.add(node);
                    continue;
                }
                let mut branches = VecDeque::from([(0, vec![node])]);
                while let Some((splits, path)) = branches.pop_front() {
                    self.follow(splits, path, &mut branches);
                }
            }
        }
    }

    fn follow(&mut self, splits: u32, mut path: Path, branches: &mut VecDeque<(u32, Path)>) {
        while let Some(&current) = path.last() {
            let c = current as usize;
            self.in_runnable_hull[c] = true;
            let down = &self.graph.dependents[c];
            let up = self.graph.dependencies[c].len();
            if down.is_empty() {
                if self.needed[c] <= 1 {
                    self.add_all(&path);
                } else {
                    self.in_runnable_hull[c] = false;
                }
            } else if path.len() == 1 || up == 1 {
                if let &[only] = &down[..] {
                    path.push(only);
                    continue;
                }
                for dependent in self.dependents_by_rank(current) {
                    if self.graph.dependencies[dependent as usize].len() == 1 {
                        let mut branch = path.clone();
                        branch.push(dependent);
                        branches.push_back((splits + 1, branch));
                    }
                }
            } else if self.known_paths.contains_key(&current) {
                self.join(current, splits, path, branches);
            } else if up > 1 && self.needed[c] <= 1 {
                self.add_all(&path);
            } else {
                self.known_paths.insert(current, vec![path]);
                self.in_runnable_hull[c] = false;
            }
            return;
        }
    }

    /// One more path has reached a node that other paths have reached before.
    fn join(&mut self, node: u32, splits: u32, path: Path, branches: &mut VecDeque<(u32, Path)>) {
        self.in_runnable_hull[node as usize] = false;
        let needed = self.needed[node as usize] as usize;
        let paths = self.known_paths.entry(node).or_default();
        paths.push(path);
        if paths.len() < needed {
            return;
        }
        let paths = self.known_paths.remove(&node).unwrap_or_default();
        let mut open: VecDeque<Path> = paths
            .into_iter()
            .filter(|path| {
                let before_last = path.len().checked_sub(2).and_then(|i| path.get(i));
                before_last.is_none_or(|&n| !self.is_ordered(n))
            })
            .collect();
        if open.len() < needed {
            self.known_paths.insert(node, open.into());
            return;
        }
        if splits > 1 {
            branches.push_back((splits - 1, open.into_iter().flatten().collect()));
            return;
        }
        // Each turn either orders something or defers; all deferring would never end.
        let mut deferred = 0;
        while deferred <= open.len() {
            let Some(path) = open.pop_front() else {
                return;
            };
            let before = self.ordered;
            let blocked = path.iter().any(|&n| {
                let blocked = self.needed[n as usize] > 0;
                if !blocked {
                    self.add(n);
                }
                blocked
            });
            deferred = if self.ordered > before {
                0
            } else {
                deferred + 1
            };
            if blocked {
                open.push_back(path);
            }
        }
    }

    fn add_all(&mut self, path: &[u32]) {
        for &node in path {
            self.add(node);
        }
    }
}

/// A plain order for graphs that are too entangled: dependencies first, expensive ones before
/// cheap ones.
fn depth_first(graph: &Graph<'_>, data: Data, rank: &[u32]) -> Vec<i64> {
    let mut order = vec![NOT_ORDERED; graph.len()];
    let mut next = 0;
    let mut number = |node: u32, order: &mut Vec<i64>| {
        if order[node as usize] == NOT_ORDERED {
            order[node as usize] = next;
            next += i64::from((node as usize) < graph.count);
        }
    };
    let mut leaves: Vec<u32> = (0..graph.len() as u32)
        .filter(|&n| graph.dependents[n as usize].is_empty() && !data.removed[n as usize])
        .collect();
    leaves.sort_unstable_by_key(|&n| rank[n as usize]);
    let mut stack: Vec<(u32, bool)> = leaves.into_iter().map(|n| (n, false)).collect();
    while let Some((node, ready)) = stack.pop() {
        if order[node as usize] != NOT_ORDERED {
            continue;
        }
        if ready {
            for &value in data.required_by.get(&node).into_iter().flatten() {
                number(value, &mut order);
            }
            number(node, &mut order);
            continue;
        }
        stack.push((node, true));
        let mut needs = graph.dependencies[node as usize].clone();
        needs.sort_unstable_by_key(|&n| rank[n as usize]);
        stack.extend(needs.into_iter().map(|n| (n, false)));
    }
    order
}
