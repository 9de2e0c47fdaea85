//! What is split here is loaded by real interpreters and compared with what stock makes of it.

mod common;

use std::path::Path;

use bytes::Bytes;
use common::{Items, case_names, dump_split, python, run, scratch};
use oxidask_graph::intake::expr::split_expr;
use oxidask_graph::pickle::plain::to_key;
use oxidask_graph::pickle::walker::walk;
use oxidask_graph::{Intake, Limits};
use oxidask_key::Key;

fn read_case(path: &Path) -> (Vec<Key>, Vec<Bytes>) {
    let mut items = Items::read(path);
    let keys = items.next().expect("a case begins with the keys");
    let (arena, root) = walk(keys, Vec::new(), Limits::default()).expect("keys");
    let keys = arena.list(root).expect("keys are a list");
    let keys = keys
        .into_iter()
        .map(|key| to_key(&arena, key).expect("legal key"))
        .collect();
    (keys, items.collect())
}

#[test]
fn expressions_of_2026_8_0_split_as_stock_materialises_them() {
    let Some(python) = python("OXIDASK_PY_2026_8_0") else {
        return;
    };
    let dir = scratch("expressions");
    run(&python, "expressions.py", &["make"], &dir);
    for name in case_names(&dir) {
        let (keys, frames) = read_case(&dir.join(format!("{name}.case")));
        match split_expr(&frames, &keys, Limits::default()).expect(&name) {
            Intake::Split(graph) => dump_split(&dir.join(format!("{name}.split")), &graph),
            Intake::NeedsPython(reason) => {
                let file = dir.join(format!("{name}.python"));
                std::fs::write(file, reason.to_string()).expect("write reason");
            }
        }
    }
    run(&python, "expressions.py", &["check"], &dir);
}
