//! What is split here is loaded by real interpreters and compared with what stock makes of it.

mod common;

use bytes::Bytes;
use common::{Items, Recorded, case_names, python, record, recorded, run, scratch, split_bytes};
use oxidask_graph::intake::expr::split_expr;
use oxidask_graph::pickle::plain::to_key;
use oxidask_graph::pickle::walker::walk;
use oxidask_graph::{Intake, Limits};
use oxidask_key::Key;

const FIXTURE: &str = "expressions-2026.8.0.bin";

/// Cases above this size (bytes) are not recorded.
const MAX_RECORDED: usize = 20_000;

fn read_case(case: Bytes) -> (Vec<Key>, Vec<Bytes>) {
    let mut items = Items::new(case);
    let keys = items.next().expect("a case begins with the keys");
    let (arena, root) = walk(keys, Vec::new(), Limits::default()).expect("keys");
    let keys = arena.list(root).expect("keys are a list");
    let keys = keys
        .into_iter()
        .map(|key| to_key(&arena, key).expect("legal key"))
        .collect();
    (keys, items.collect())
}

/// What is made of a case, in the form that the helper reads; the error holds the reason for Python.
fn split_case(name: &str, case: Bytes) -> Result<Vec<u8>, String> {
    let (keys, frames) = read_case(case);
    match split_expr(&frames, &keys, Limits::default()).expect(name) {
        Intake::Split(graph) => Ok(split_bytes(&graph)),
        Intake::NeedsPython(reason) => Err(reason.to_string()),
    }
}

#[test]
fn expressions_of_2026_8_0_split_as_stock_materialises_them() {
    let Some(python) = python("OXIDASK_PY_2026_8_0") else {
        return;
    };
    let dir = scratch("expressions");
    run(&python, "expressions.py", &["make"], &dir);
    let mut cases = Vec::new();
    for name in case_names(&dir) {
        let case = std::fs::read(dir.join(format!("{name}.case"))).expect("read case");
        let case = Bytes::from(case);
        let (extension, result) = match split_case(&name, case.clone()) {
            Ok(split) => ("split", split),
            Err(reason) => ("python", reason.into_bytes()),
        };
        std::fs::write(dir.join(format!("{name}.{extension}")), &result).expect("write result");
        if case.len() <= MAX_RECORDED {
            cases.push(Recorded {
                name,
                case,
                result: result.into(),
            });
        }
    }
    run(&python, "expressions.py", &["check"], &dir);
    record(FIXTURE, &cases);
}

#[test]
fn recorded_expressions_split_as_when_python_checked_them() {
    for Recorded { name, case, result } in recorded(FIXTURE) {
        let now = split_case(&name, case).unwrap_or_else(String::into_bytes);
        assert!(now == result, "{name}: another result than recorded");
    }
}
