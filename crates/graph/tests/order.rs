//! The order of real graphs is that of the release's `dask.order`.
//!
//! `tests/python/orders.py` makes the fixtures, and says what "that of the release" means where stock
//! leaves it to chance.

mod common;

use oxidask_graph::TaskKind;
use oxidask_graph::order::{Algorithm, OrderTask, order};
use oxidask_key::Key;
use oxidask_key::numbering::Numbering;
use proptest::prelude::*;
use serde_json::Value;

fn key(value: &Value) -> Key {
    match value {
        Value::String(s) => Key::from(s.as_str()),
        Value::Array(items) => Key::from(items.iter().map(key).collect::<Vec<_>>()),
        Value::Number(n) => match n.as_i64() {
            Some(i) => Key::Int(i),
            None => Key::Float(n.as_f64().expect("number")),
        },
        other => panic!("not a key: {other}"),
    }
}

fn numbers(value: &Value) -> Vec<i64> {
    let items = value.as_array().expect("array of numbers");
    items.iter().map(|n| n.as_i64().expect("number")).collect()
}

fn numbering(tasks: &[(Key, Vec<Key>)]) -> Numbering {
    Numbering::of(tasks, |task| &task.0, |task| &task.1, &[]).expect("few tasks")
}

fn check(fixture: &str, algorithm: Algorithm) {
    let graphs: Vec<Value> = serde_json::from_str(fixture).expect("fixture");
    assert!(graphs.len() >= 30, "only {} graphs", graphs.len());
    let mut wrong = Vec::new();
    for graph in &graphs {
        let name = graph["name"].as_str().expect("name");
        let keys: Vec<Key> = graph["keys"]
            .as_array()
            .expect("keys")
            .iter()
            .map(key)
            .collect();
        let data = numbers(&graph["data"]);
        let dependencies: Vec<Vec<Key>> = graph["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .map(|d| {
                numbers(d)
                    .iter()
                    .map(|&i| keys[i as usize].clone())
                    .collect()
            })
            .collect();
        let tasks: Vec<_> = keys.iter().cloned().zip(dependencies).collect();
        let numbering = numbering(&tasks);
        let tasks = keys.iter().enumerate().map(|(i, key)| OrderTask {
            key,
            kind: if data.contains(&(i as i64)) {
                TaskKind::Data
            } else {
                TaskKind::Task
            },
        });
        let found = order(tasks, &numbering, algorithm).expect("no cycle");
        let expected = numbers(&graph["order"]);
        if found != expected {
            let differences = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
            wrong.push(format!("{name}: {differences} of {}", expected.len()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} graphs, wrong: {wrong:#?}",
        graphs.len()
    );
}

#[test]
fn order_is_that_of_2026_8_0() {
    check(
        include_str!("fixtures/order-2026.8.0.json"),
        Algorithm::V2026,
    );
}

#[test]
fn order_is_that_of_2022_12_0() {
    check(
        include_str!("fixtures/order-2022.12.0.json"),
        Algorithm::V2022,
    );
}

fn graphs() -> impl Strategy<Value = Vec<Vec<usize>>> {
    (1usize..60).prop_flat_map(|n| {
        let tasks: Vec<_> = (0..n)
            // A few numbers above the task's own make keys of other graphs (for the last tasks) and
            // cycles impossible: dependencies point down or out of the graph.
            .map(|i| {
                let below = prop::collection::btree_set(0..i.max(1), 0..5.min(i + 1));
                let outside = prop::collection::btree_set(n..n + 3, 0..2);
                (below, outside).prop_map(move |(below, outside)| {
                    let below = below.into_iter().filter(move |&d| d < i);
                    below.chain(outside).collect::<Vec<_>>()
                })
            })
            .collect();
        tasks
    })
}

proptest! {
    #[test]
    fn dependencies_come_first(graph in graphs(), data in any::<u64>()) {
        let names: Vec<Key> = (0..graph.len() + 3).map(|i| Key::from(format!("k{}", i * 7 % 64))).collect();
        let dependencies: Vec<Vec<Key>> = graph
            .iter()
            .map(|d| d.iter().map(|&i| names[i].clone()).collect())
            .collect();
        let tasks: Vec<_> = names.iter().cloned().zip(dependencies.iter().cloned()).collect();
        let numbering = numbering(&tasks);
        for algorithm in [Algorithm::V2022, Algorithm::V2026] {
            let tasks = dependencies.iter().zip(&names).enumerate().map(|(i, (d, key))| OrderTask {
                key,
                kind: if d.is_empty() && data >> (i % 64) & 1 == 1 { TaskKind::Data } else { TaskKind::Task },
            });
            let found = order(tasks, &numbering, algorithm).expect("no cycle");
            let mut sorted = found.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..graph.len() as i64).collect::<Vec<_>>());
            for (i, dependencies) in graph.iter().enumerate() {
                for &d in dependencies.iter().filter(|&&d| d < graph.len()) {
                    prop_assert!(found[d] < found[i], "{:?}: {} before {}", algorithm, i, d);
                }
            }
        }
    }
}

#[test]
fn a_cycle_is_told() {
    let keys = ["a", "b", "c", "d"].map(Key::from);
    let needs = [
        vec![],
        vec![keys[2].clone(), keys[0].clone()],
        vec![keys[1].clone()],
        vec![keys[1].clone()],
    ];
    let tasks: Vec<_> = keys.iter().cloned().zip(needs).collect();
    let numbering = numbering(&tasks);
    for algorithm in [Algorithm::V2022, Algorithm::V2026] {
        let tasks = keys.iter().map(|key| OrderTask {
            key,
            kind: TaskKind::Task,
        });
        let error = order(tasks, &numbering, algorithm).expect_err("a cycle");
        assert_eq!(
            error.to_string(),
            "Cycle detected between the following keys:\n  -> b\n  -> c\n  -> b"
        );
    }
}
