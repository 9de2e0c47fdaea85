//! The algorithm of dask 2022.12.0: depth first along dependencies, guided by the sizes of the
//! groups of tasks that belong together.
//!
//! A *goal* is a node without dependents. Each node has a `partition` number that is small for
//! nodes close to a cheap goal. The walk keeps a stack of nodes to be ordered for the goal at hand
//! (`inner`), interrupted goals (`suspended`), single nodes whose run may free their parent
//! (`singles`), and nodes for which it is too early, by partition (`soon`, `later`).

use std::collections::BTreeMap;

use super::names::rank_names;
use super::{Cycle, Graph};
use indexmap::IndexMap;

const NOT_ORDERED: i64 = -1;

pub(super) fn order(graph: Graph<'_>) -> Result<Vec<i64>, Cycle> {
    let graph = without_foreign(graph);
    let total = graph.total_dependencies(|_| true);
    let computable = |n: u32| total[n as usize] > 0;
    if !(0..graph.len() as u32).all(computable) {
        return Err(graph.cycle(computable));
    }
    let total: Vec<i128> = total.into_iter().map(clamp).collect();
    Ok(Walk::new(graph, total).run())
}

/// Counts of paths grow exponentially in entangled graphs; beyond this they are all the same.
fn clamp(count: u128) -> i128 {
    i128::try_from(count).unwrap_or(i128::MAX).min(1 << 60)
}

/// This generation looks at keys of the graph only.
fn without_foreign(mut graph: Graph<'_>) -> Graph<'_> {
    let count = graph.count;
    graph.keys.truncate(count);
    graph.is_task.truncate(count);
    graph.dependents.truncate(count);
    graph.dependencies.truncate(count);
    for dependencies in &mut graph.dependencies {
        dependencies.retain(|&d| (d as usize) < count);
    }
    graph
}

/// What is above a node.
#[derive(Clone, Copy)]
struct Metrics {
    total_dependents: i128,
    min_dependencies: i128,
    max_dependencies: i128,
    min_height: i128,
    max_height: i128,
}

fn metrics(graph: &Graph<'_>, total: &[i128]) -> Vec<Metrics> {
    let empty = Metrics {
        total_dependents: 1,
        min_dependencies: 0,
        max_dependencies: 0,
        min_height: 0,
        max_height: 0,
    };
    let mut all = vec![empty; graph.len()];
    let mut needed: Vec<u32> = graph.dependents.iter().map(|d| d.len() as u32).collect();
    let mut ready = Vec::new();
    for node in 0..graph.len() {
        if graph.dependents[node].is_empty() {
            all[node].min_dependencies = total[node];
            all[node].max_dependencies = total[node];
            ready.push(node);
        }
    }
    while let Some(node) = ready.pop() {
        let mut above = graph.dependents[node].iter().map(|&d| all[d as usize]);
        if let Some(first) = above.next() {
            let sum = above.fold(first, |a, b| Metrics {
                total_dependents: (a.total_dependents + b.total_dependents).min(1 << 60),
                min_dependencies: a.min_dependencies.min(b.min_dependencies),
                max_dependencies: a.max_dependencies.max(b.max_dependencies),
                min_height: a.min_height.min(b.min_height),
                max_height: a.max_height.max(b.max_height),
            });
            all[node] = Metrics {
                total_dependents: sum.total_dependents + 1,
                min_height: sum.min_height + 1,
                max_height: sum.max_height + 1,
                ..sum
            };
        }
        for &below in &graph.dependencies[node] {
            needed[below as usize] -= 1;
            if needed[below as usize] == 0 {
                ready.push(below as usize);
            }
        }
    }
    all
}

/// What to do after a node (or a chain of single ones) has been ordered.
struct Found {
    /// Dependents that may be next.
    candidates: Vec<u32>,
    /// Whether the best of them may become the goal at hand.
    may_go_on: bool,
    /// The candidates come from singles.
    from_singles: bool,
}

enum Turn {
    Again,
    Done,
    Candidates(Found),
}

struct Walk<'a> {
    graph: Graph<'a>,
    total: Vec<i128>,
    metrics: Vec<Metrics>,
    partition: Vec<i128>,
    names: Vec<u32>,
    needed: Vec<i64>,
    order: Vec<i64>,
    next: i64,
    /// The only node without dependents, if everything leads to one: it is kept out of the walk.
    skipped_goal: Option<u32>,
    seen: Vec<bool>,
    item: u32,
    inner: Vec<u32>,
    suspended: Vec<Vec<u32>>,
    /// Node and the parent it may free.
    singles: IndexMap<u32, u32>,
    later_singles: Vec<u32>,
    soon: BTreeMap<i128, Vec<Vec<u32>>>,
    later: BTreeMap<i128, Vec<Vec<u32>>>,
    outer: Vec<Vec<u32>>,
    starts: Vec<u32>,
    starts_sorted: bool,
}

impl<'a> Walk<'a> {
    fn new(graph: Graph<'a>, total: Vec<i128>) -> Self {
        let metrics = metrics(&graph, &total);
        let partition = (0..graph.len())
            .map(|n| {
                let m = &metrics[n];
                let left = m.min_dependencies - total[n] + 1;
                left.saturating_mul(m.total_dependents - m.min_height)
            })
            .collect();
        let goals: Vec<u32> = (0..graph.len() as u32)
            .filter(|&n| graph.dependents[n as usize].is_empty())
            .collect();
        let skipped_goal = match goals[..] {
            [only] if graph.len() > 1 => Some(only),
            _ => None,
        };
        let mut walk = Self {
            names: rank_names(&graph.keys),
            needed: graph.dependencies.iter().map(|d| d.len() as i64).collect(),
            order: vec![NOT_ORDERED; graph.len()],
            next: 0,
            seen: vec![false; graph.len()],
            item: 0,
            inner: Vec::new(),
            suspended: Vec::new(),
            singles: IndexMap::new(),
            later_singles: Vec::new(),
            soon: BTreeMap::new(),
            later: BTreeMap::new(),
            outer: Vec::new(),
            starts: (0..graph.len() as u32)
                .filter(|&n| graph.dependencies[n as usize].is_empty())
                .collect(),
            starts_sorted: false,
            skipped_goal,
            graph,
            total,
            metrics,
            partition,
        };
        if let Some(goal) = skipped_goal {
            walk.seen[goal as usize] = true;
        }
        walk.inner.extend(walk.best_start());
        walk
    }

    fn run(mut self) -> Vec<i64> {
        loop {
            self.work_off();
            if self.next as usize >= self.graph.len() || !self.refill() {
                return self.order;
            }
        }
    }

    fn is_ordered(&self, node: u32) -> bool {
        self.order[node as usize] != NOT_ORDERED
    }

    fn number(&mut self, node: u32) {
        if !self.is_ordered(node) {
            self.order[node as usize] = self.next;
            self.next += 1;
        }
    }

    fn dependents(&self, node: u32) -> &[u32] {
        &self.graph.dependents[node as usize]
    }

    fn partition(&self, node: u32) -> i128 {
        self.partition[node as usize]
    }

    fn is_ready(&self, node: u32) -> bool {
        self.needed[node as usize] <= 0
    }

    // Sort keys, smallest first.

    fn start_key(&self, node: u32) -> impl Ord + use<> {
        let m = &self.metrics[node as usize];
        let dependents = self.dependents(node).len() as i128;
        (
            -m.max_dependencies,
            dependents - m.max_height,
            m.min_dependencies,
            dependents - m.min_height,
            -m.total_dependents,
            dependents,
            self.names[node as usize],
        )
    }

    fn dependents_key(&self, node: u32) -> impl Ord + use<> {
        let n = node as usize;
        let dependencies = self.graph.dependencies[n].len() as i64;
        (
            self.dependents(node).len() as i64 - dependencies + self.needed[n],
            -self.metrics[n].min_height,
            self.names[n],
        )
    }

    fn dependencies_key(&self, node: u32) -> impl Ord + use<> {
        let n = node as usize;
        let m = &self.metrics[n];
        let dependents = self.dependents(node).len() as i64;
        let dependencies = self.graph.dependencies[n].len() as i64;
        (
            -m.max_dependencies,
            i128::from(dependents) + m.max_height,
            m.min_dependencies,
            i128::from(dependents) + m.min_height,
            -self.total[n],
            dependents - dependencies + self.needed[n],
            dependents,
            m.total_dependents,
            self.names[n],
        )
    }

    /// Puts the smallest last, where stacks are popped.
    fn sort_for_stack(&self, nodes: &mut [u32]) {
        nodes.sort_by_cached_key(|&n| std::cmp::Reverse(self.dependents_key(n)));
    }

    fn best_start(&self) -> Option<u32> {
        self.starts
            .iter()
            .copied()
            .min_by_key(|&n| self.start_key(n))
    }

    /// Until nothing is at hand.
    fn work_off(&mut self) {
        loop {
            match self.turn() {
                Turn::Again => {}
                Turn::Done => return,
                Turn::Candidates(found) => self.place(found),
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let mut use_singles = false;
        let mut found = Found {
            candidates: Vec::new(),
            may_go_on: true,
            from_singles: false,
        };
        if let Some(item) = self.inner.pop() {
            self.item = item;
            if self.is_ordered(item) {
                return Turn::Again;
            }
            if !self.is_ready(item) {
                self.descend(item);
                if self.singles.is_empty() {
                    return Turn::Again;
                }
                use_singles = true;
            } else {
                self.number(item);
                found.may_go_on = !self.finish_now(item);
                found.candidates = self.dependents(item).to_vec();
                if found.candidates.is_empty() {
                    return Turn::Again;
                }
                for &dependent in &found.candidates {
                    self.needed[dependent as usize] -= 1;
                }
            }
        } else if let Some(inner) = self.suspended.pop() {
            self.inner = inner;
            return Turn::Again;
        } else if !self.singles.is_empty() {
            use_singles = true;
        } else if !self.later_singles.is_empty() {
            found.candidates = self.run_later_singles();
            if found.candidates.is_empty() {
                return Turn::Again;
            }
            found.may_go_on = false;
            found.from_singles = true;
            use_singles = true;
        } else {
            return Turn::Done;
        }
        if use_singles && !self.singles.is_empty() {
            found.candidates = self.run_singles();
            if found.candidates.is_empty() {
                return Turn::Again;
            }
            found.may_go_on = false;
        }
        found.from_singles = use_singles;
        Turn::Candidates(found)
    }

    /// Puts what a node needs on the stack above it.
    fn descend(&mut self, item: u32) {
        if self.skipped_goal == Some(item) {
            return;
        }
        self.inner.push(item);
        let dependencies = self.graph.dependencies[item as usize].iter().copied();
        let mut open: Vec<u32> = dependencies.filter(|&d| !self.is_ordered(d)).collect();
        open.sort_by_cached_key(|&d| std::cmp::Reverse(self.dependencies_key(d)));
        for &dependency in &open {
            self.seen[dependency as usize] = true;
        }
        self.inner.extend(open);
    }

    /// Orders goals right above a node that need nothing else; else takes the skipped goal out of
    /// the dependents. True if there were such goals.
    fn finish_now(&mut self, node: u32) -> bool {
        if self.metrics[node as usize].min_height != 1 {
            return false;
        }
        let mut finished: Vec<u32> = self
            .dependents(node)
            .iter()
            .copied()
            .filter(|&d| self.dependents(d).is_empty() && self.needed[d as usize] == 1)
            .collect();
        if finished.is_empty() {
            if let Some(goal) = self.skipped_goal {
                self.needed[goal as usize] -= 1;
                self.graph.dependents[node as usize].retain(|&d| d != goal);
            }
            return false;
        }
        self.graph.dependents[node as usize].retain(|d| !finished.contains(d));
        finished.sort_unstable_by_key(|&d| {
            let dependencies = self.graph.dependencies[d as usize].len();
            (std::cmp::Reverse(dependencies), self.names[d as usize])
        });
        for goal in finished {
            self.number(goal);
        }
        true
    }

    /// Nothing is at hand, so all of these may run; returns what they lead to.
    fn run_later_singles(&mut self) -> Vec<u32> {
        let mut candidates = Vec::new();
        for single in std::mem::take(&mut self.later_singles) {
            if self.is_ordered(single) {
                continue;
            }
            let mut single = single;
            loop {
                self.number(single);
                self.finish_now(single);
                let dependents = self.dependents(single).to_vec();
                for &dependent in &dependents {
                    self.needed[dependent as usize] -= 1;
                }
                if let [only] = dependents[..]
                    && self.is_ready(only)
                {
                    single = only;
                    continue;
                }
                add_new(&mut candidates, &dependents);
                break;
            }
        }
        candidates.retain(|&n| !self.is_ordered(n));
        candidates
    }

    /// Runs the singles that free their parent, puts off the others; returns what they lead to.
    fn run_singles(&mut self) -> Vec<u32> {
        let mut candidates = Vec::new();
        let at_hand = !self.inner.is_empty() || !self.suspended.is_empty();
        for (single, parent) in std::mem::take(&mut self.singles) {
            if self.is_ordered(single) {
                continue;
            }
            let siblings = self.dependents(parent).iter();
            if at_hand && siblings.filter(|&&s| !self.is_ordered(s)).count() > 1 {
                self.later_singles.push(single);
                continue;
            }
            self.run_single(single, at_hand, &mut candidates);
        }
        candidates.retain(|&n| !self.is_ordered(n));
        candidates
    }

    fn run_single(&mut self, mut single: u32, at_hand: bool, candidates: &mut Vec<u32>) {
        loop {
            self.number(single);
            self.finish_now(single);
            let mut dependents = self.dependents(single).to_vec();
            if dependents.is_empty() {
                return;
            }
            for &dependent in &dependents {
                self.needed[dependent as usize] -= 1;
            }
            let mut some_seen = false;
            if at_hand {
                let seen = dependents.iter().filter(|&&d| self.seen[d as usize]);
                let count = seen.count();
                if count == dependents.len() {
                    match dependents[..] {
                        [only] if self.is_ready(only) => {
                            single = only;
                            continue;
                        }
                        _ => return,
                    }
                }
                some_seen = count > 0;
                dependents.retain(|&d| !self.seen[d as usize]);
            }
            if let [only] = dependents[..]
                && self.is_ready(only)
            {
                if some_seen {
                    self.later_singles.push(only);
                    return;
                }
                single = only;
                continue;
            }
            add_new(candidates, &dependents);
            return;
        }
    }

    /// Distributes candidates over the stack at hand, singles, `soon` and `later`.
    fn place(&mut self, mut found: Found) {
        let open = |walk: &Self, n: u32| !walk.seen[n as usize];
        let unseen = found.candidates.iter().filter(|&&n| open(self, n)).count();
        if unseen < found.candidates.len() {
            if unseen == 0 {
                if let [only] = found.candidates[..]
                    && self.is_ready(only)
                {
                    self.singles.insert(only, self.item);
                }
                return;
            }
            found.may_go_on = false;
            found.candidates.retain(|&n| open(self, n));
        }
        match found.candidates[..] {
            [one] => self.place_one(one, found.may_go_on),
            [a, b] => self.place_two(a, b, &found),
            _ => self.place_many(found),
        }
    }

    fn place_one(&mut self, node: u32, may_go_on: bool) {
        let key = self.partition(node);
        match self.inner.first() {
            None if may_go_on => {
                self.inner = vec![node];
                self.seen[node as usize] = true;
                return;
            }
            Some(&goal) if key < self.partition(goal) => {
                self.interrupt(vec![node]);
                return;
            }
            _ => {}
        }
        if self.is_ready(node) {
            self.singles.insert(node, self.item);
        } else {
            self.postpone(key, vec![node]);
        }
    }

    /// Turns to other nodes than those at hand, which wait.
    fn interrupt(&mut self, inner: Vec<u32>) {
        for &node in &inner {
            self.seen[node as usize] = true;
        }
        let interrupted = std::mem::replace(&mut self.inner, inner);
        // An empty stack is of no consequence.
        self.suspended.push(interrupted);
    }

    fn postpone(&mut self, key: i128, nodes: Vec<u32>) {
        let to = if key < self.partition(self.item) {
            &mut self.soon
        } else {
            &mut self.later
        };
        to.entry(key).or_default().push(nodes);
    }

    fn place_two(&mut self, a: u32, b: u32, found: &Found) {
        let (mut a, mut b) = (a, b);
        let (ka, kb) = (self.partition(a), self.partition(b));
        if kb < ka || ka == kb && self.dependents_key(b) < self.dependents_key(a) {
            std::mem::swap(&mut a, &mut b);
        }
        let (ka, kb) = (self.partition(a), self.partition(b));
        let item_key = self.partition(self.item);
        if let Some(&goal) = self.inner.first() {
            let goal_key = self.partition(goal);
            if kb < goal_key {
                let interrupted = std::mem::take(&mut self.inner);
                self.suspended.push(interrupted);
                self.suspended.push(vec![b]);
                self.inner = vec![a];
                self.seen[a as usize] = true;
                self.seen[b as usize] = true;
                self.free_later(b, found);
            } else if ka < goal_key {
                self.interrupt(vec![a]);
                if self.is_ready(b) {
                    self.free_later(b, found);
                } else {
                    self.postpone(kb, vec![b]);
                }
            } else {
                self.postpone(ka, vec![a]);
                self.postpone(kb, vec![b]);
            }
        } else if found.may_go_on {
            if self.is_ready(b) {
                self.interrupt(vec![a]);
                self.singles.insert(b, self.item);
            } else if ka == kb && item_key.saturating_mul(5) > ka.saturating_mul(22) {
                self.suspended.push(Vec::new());
                self.suspended.push(vec![b]);
                self.inner = vec![a];
                self.seen[a as usize] = true;
                self.seen[b as usize] = true;
            } else {
                self.interrupt(vec![a]);
                self.postpone(kb, vec![b]);
            }
        } else {
            self.postpone(ka, vec![a]);
            self.postpone(kb, vec![b]);
        }
    }

    /// Remembers a node that is ready, and whose run may free its parent.
    fn free_later(&mut self, node: u32, found: &Found) {
        if !self.is_ready(node) {
            return;
        }
        if found.from_singles {
            self.later_singles.push(node);
        } else {
            self.singles.insert(node, self.item);
        }
    }

    fn place_many(&mut self, found: Found) {
        let mut pools: BTreeMap<i128, Vec<u32>> = BTreeMap::new();
        for node in found.candidates {
            pools.entry(self.partition(node)).or_default().push(node);
        }
        if let Some(&goal) = self.inner.first() {
            let goal_key = self.partition(goal);
            let waiting = pools.split_off(&goal_key);
            for (key, nodes) in waiting {
                self.postpone(key, nodes);
            }
            if pools.is_empty() {
                return;
            }
            let interrupted = std::mem::take(&mut self.inner);
            self.suspended.push(interrupted);
            for (_, pool) in pools.into_iter().rev() {
                self.push_each(pool);
            }
            self.inner = self.suspended.pop().unwrap_or_default();
            return;
        }
        if found.may_go_on
            && let Some((key, pool)) = pools.pop_first()
        {
            self.go_on_with(key, pool);
        }
        for (key, nodes) in pools {
            self.postpone(key, nodes);
        }
    }

    /// Makes each node a goal of its own, the best one last.
    fn push_each(&mut self, mut nodes: Vec<u32>) {
        self.sort_for_stack(&mut nodes);
        for node in nodes {
            self.seen[node as usize] = true;
            self.suspended.push(vec![node]);
        }
    }

    fn go_on_with(&mut self, key: i128, pool: Vec<u32>) {
        let item_key = self.partition(self.item);
        let len = pool.len() as i128;
        if len == 1 {
            self.seen[pool[0] as usize] = true;
            self.inner = pool;
        } else if item_key.saturating_mul(10)
            > key
                .saturating_mul(11)
                .saturating_mul(len.saturating_mul(len))
        {
            self.push_each(pool);
            self.inner = self.suspended.pop().unwrap_or_default();
        } else {
            let best = pool.iter().copied().min_by_key(|&n| self.dependents_key(n));
            self.inner = best.into_iter().collect();
            self.soon.entry(key).or_default().push(pool);
            if let Some(best) = best {
                self.seen[best as usize] = true;
            }
        }
    }

    /// Takes up what was postponed, or begins at another start. False if there is none.
    fn refill(&mut self) -> bool {
        for (_, groups) in std::mem::take(&mut self.soon).into_iter().rev() {
            self.outer.extend(groups.into_iter().rev());
        }
        while let Some(group) = self.outer.pop() {
            let mut open = group;
            open.retain(|&n| !self.is_ordered(n));
            if !open.is_empty() {
                self.push_each(open);
                break;
            }
        }
        if !self.suspended.is_empty() {
            return true;
        }
        if !self.later.is_empty() {
            std::mem::swap(&mut self.soon, &mut self.later);
            return true;
        }
        if !self.starts_sorted {
            let before = self.starts.len();
            let starts = std::mem::take(&mut self.starts);
            self.starts = starts
                .into_iter()
                .filter(|&n| !self.is_ordered(n))
                .collect();
            if self.minimum_is_cheaper(before) {
                match self.best_start() {
                    Some(start) => self.item = start,
                    None => return false,
                }
                return true;
            }
            let mut starts = std::mem::take(&mut self.starts);
            starts.sort_by_cached_key(|&n| std::cmp::Reverse(self.start_key(n)));
            self.starts = starts;
            self.starts_sorted = true;
        }
        let mut item = Some(self.item);
        if self.skipped_goal == item {
            item = self.starts.pop();
        }
        while let Some(node) = item
            && self.is_ordered(node)
        {
            item = self.starts.pop();
        }
        match item {
            Some(node) => {
                self.item = node;
                self.inner.push(node);
                true
            }
            None => false,
        }
    }

    /// Whether few starts are left of many, so that sorting them does not pay.
    fn minimum_is_cheaper(&self, before: usize) -> bool {
        let left = self.starts.len();
        let gone = before.saturating_sub(left);
        if gone >= left {
            return true;
        }
        let (n, m) = (left as f64, gone as f64);
        n + (n - m) * (n - m).ln() < n * n.ln()
    }
}

fn add_new(to: &mut Vec<u32>, nodes: &[u32]) {
    if to.len() + nodes.len() > 64 {
        let mut seen: hashbrown::HashSet<u32> = to.iter().copied().collect();
        to.extend(nodes.iter().copied().filter(|&n| seen.insert(n)));
        return;
    }
    for &node in nodes {
        if !to.contains(&node) {
            to.push(node);
        }
    }
}
