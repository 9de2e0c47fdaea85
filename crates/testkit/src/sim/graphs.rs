//! Random task graphs and the values their tasks must have.

use std::collections::{BTreeMap, HashSet};

use oxidask_key::Key;

use crate::rng::Rng;

/// A task of a simulated graph.
#[derive(Clone, Debug)]
pub struct SimTask {
    /// Its name.
    pub key: Key,
    /// What it needs; always tasks before it in [`SimGraph::tasks`].
    pub dependencies: Vec<Key>,
    /// Seconds it runs.
    pub duration: f64,
    /// Size of its result in bytes.
    pub nbytes: u64,
    /// Raises instead of returning.
    pub fails: bool,
    /// Runs only where the abstract resource `GPU` is offered.
    pub needs_gpu: bool,
}

/// A graph whose right answer is known.
#[derive(Clone, Debug, Default)]
pub struct SimGraph {
    /// In topological order.
    pub tasks: Vec<SimTask>,
    /// Outputs a client asks for.
    pub wanted: Vec<Key>,
}

/// What a task comes to: a value that depends on everything above it, or failure.
pub type Outcome = Option<u64>;

/// The value of a task from the values of its dependencies: wrong or missing inputs show.
pub fn value_of(key: &Key, inputs: impl IntoIterator<Item = u64>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.to_text().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    for input in inputs {
        hash = (hash ^ input).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
    }
    hash
}

impl SimGraph {
    /// The outcome of every task, computed in order, as the oracle expects it.
    pub fn evaluate(&self) -> BTreeMap<String, Outcome> {
        let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
        for task in &self.tasks {
            let inputs: Option<Vec<u64>> = task
                .dependencies
                .iter()
                .map(|d| outcomes.get(&d.to_text()).copied().flatten())
                .collect();
            let outcome = match inputs {
                Some(inputs) if !task.fails => Some(value_of(&task.key, inputs)),
                _ => None,
            };
            outcomes.insert(task.key.to_text(), outcome);
        }
        outcomes
    }

    /// A layered random graph: wide root groups, fan-in, fan-out and chains in random mixture.
    pub fn random(rng: &mut Rng, name: &str, size: usize, failing: f64) -> Self {
        let mut graph = Self::default();
        let mut layer = 0;
        while graph.tasks.len() < size {
            let width = 1 + rng.below(size.min(40));
            let rooted = layer == 0 || rng.chance(0.15);
            let before = graph.tasks.len();
            for i in 0..width {
                let dependencies = if rooted || before == 0 {
                    Vec::new()
                } else {
                    pick_dependencies(rng, &graph.tasks[..before])
                };
                graph.tasks.push(SimTask {
                    key: Key::from(vec![
                        Key::from(format!("{name}-l{layer}")),
                        Key::Int(i as i64),
                    ]),
                    dependencies,
                    duration: rng.range(0.001, 0.2),
                    nbytes: 1 << rng.below(24),
                    fails: rng.chance(failing),
                    needs_gpu: rng.chance(0.02),
                });
            }
            layer += 1;
        }
        let needed: HashSet<&Key> = graph.tasks.iter().flat_map(|t| &t.dependencies).collect();
        let mut wanted: Vec<Key> = Vec::new();
        for task in &graph.tasks {
            // Every sink, and now and then an intermediate result.
            if !needed.contains(&task.key) || rng.chance(0.05) {
                wanted.push(task.key.clone());
            }
        }
        graph.wanted = wanted;
        graph
    }
}

fn pick_dependencies(rng: &mut Rng, earlier: &[SimTask]) -> Vec<Key> {
    let most = if rng.chance(0.1) { 20 } else { 3 };
    let count = 1 + rng.below(most);
    let mut dependencies: Vec<Key> = Vec::new();
    for _ in 0..count {
        // Mostly the layer just before, as real graphs do.
        let recent = earlier.len().saturating_sub(40);
        let from = if rng.chance(0.8) { recent } else { 0 };
        let index = from + rng.below(earlier.len() - from);
        if let Some(task) = earlier.get(index)
            && !dependencies.contains(&task.key)
        {
            dependencies.push(task.key.clone());
        }
    }
    dependencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_graphs_are_acyclic_and_repeatable() {
        let graph = SimGraph::random(&mut Rng::new(3), "g", 200, 0.0);
        let again = SimGraph::random(&mut Rng::new(3), "g", 200, 0.0);
        assert_eq!(format!("{graph:?}"), format!("{again:?}"));
        let outcomes = graph.evaluate();
        assert!(
            graph
                .wanted
                .iter()
                .all(|k| outcomes[&k.to_text()].is_some())
        );
        assert!(graph.tasks.len() >= 200 && !graph.wanted.is_empty());
    }

    #[test]
    fn a_failure_spreads_to_what_depends_on_it() {
        let mut graph = SimGraph::random(&mut Rng::new(5), "g", 100, 0.0);
        graph.tasks[0].fails = true;
        let root = graph.tasks[0].key.clone();
        let outcomes = graph.evaluate();
        for task in &graph.tasks {
            if task.dependencies.contains(&root) {
                assert_eq!(outcomes[&task.key.to_text()], None);
            }
        }
    }
}
