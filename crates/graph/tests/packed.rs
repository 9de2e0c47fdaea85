//! Packed layers of distributed 2022.12.0 expand to tasks that run as those of the stock scheduler.

mod common;

use bytes::Bytes;
use common::{
    Items, Recorded, Writer, case_names, python, python_repr, record, recorded, run, scratch,
};
use oxidask_graph::intake::packed::{Input, Item, PackedGraph, PackedIntake, PackedSpec, expand};
use oxidask_graph::{Limits, PlainValue, decode_plain};

/// Serialised objects are numbers here.
fn input(value: PlainValue) -> Input<usize> {
    match value {
        PlainValue::None => Input::Nil,
        PlainValue::Bool(b) => Input::Bool(b),
        PlainValue::Int(i) => Input::Int(i),
        PlainValue::Float(f) => Input::Float(f),
        PlainValue::Str(s) => Input::Str(s),
        PlainValue::Bytes(b) => Input::Bin(b.into()),
        PlainValue::List(items) | PlainValue::Tuple(items) | PlainValue::Set(items) => {
            Input::Array(items.into_iter().map(input).collect())
        }
        PlainValue::Dict(items) => match &items[..] {
            [(PlainValue::Str(name), PlainValue::Int(number))] if name == "__payload__" => {
                Input::Payload(*number as usize)
            }
            _ => Input::Map(
                items
                    .into_iter()
                    .map(|(k, v)| (input(k), input(v)))
                    .collect(),
            ),
        },
    }
}

fn plain(value: &Input<usize>) -> PlainValue {
    match value {
        Input::Nil => PlainValue::None,
        Input::Bool(b) => PlainValue::Bool(*b),
        Input::Int(i) => PlainValue::Int(*i),
        Input::Float(f) => PlainValue::Float(*f),
        Input::Str(s) => PlainValue::Str(s.clone()),
        Input::Bin(b) => PlainValue::Bytes(b.to_vec()),
        Input::Array(items) => PlainValue::List(items.iter().map(plain).collect()),
        Input::Map(items) => {
            PlainValue::Dict(items.iter().map(|(k, v)| (plain(k), plain(v))).collect())
        }
        Input::Payload(number) => PlainValue::Dict(vec![(
            PlainValue::Str("__payload__".into()),
            PlainValue::Int(*number as i64),
        )]),
    }
}

fn write_items(out: &mut Writer, items: &[Item<usize>]) {
    out.number(items.len());
    for item in items {
        match item {
            Item::Text(text) => {
                out.text("text");
                out.text(text);
            }
            Item::Pickle(pickle) => {
                out.text("pickle");
                out.item(pickle);
            }
            Item::Payload(number) => {
                out.text("payload");
                out.number(*number);
            }
        }
    }
}

fn dump(graph: &PackedGraph<usize>) -> Vec<u8> {
    let mut out = Writer::default();
    out.number(graph.tasks.len());
    for task in &graph.tasks {
        out.text(&task.key.to_text());
        out.text(match &task.spec {
            PackedSpec::Given(_) => "given",
            PackedSpec::Parts { .. } => "parts",
            PackedSpec::Call { .. } => "call",
            PackedSpec::Task(_) => "task",
            PackedSpec::PickledTask(_) => "pickled",
        });
        out.number(task.dependencies.len());
        for dependency in &task.dependencies {
            out.text(&dependency.to_text());
        }
        match &task.spec {
            PackedSpec::Given(value) => out.text(&python_repr(&plain(value))),
            PackedSpec::Parts { function, args } => {
                out.item(function);
                out.item(args);
            }
            PackedSpec::Call { function, args } => {
                out.item(function);
                write_items(&mut out, args);
            }
            PackedSpec::Task(items) => write_items(&mut out, items),
            PackedSpec::PickledTask(pickle) => out.item(pickle),
        }
    }
    out.number(graph.annotations.len());
    for annotation in &graph.annotations {
        out.text(&annotation.name);
        out.text(&python_repr(&plain(&annotation.value)));
        out.number(annotation.keys.len());
        for key in &annotation.keys {
            out.text(&key.to_text());
        }
    }
    out.0
}

const FIXTURE: &str = "layers-2022.12.0.bin";

/// Cases above this size (bytes, with their result) are not recorded.
const MAX_RECORDED: usize = 16_000;

/// What is made of a case, in the form that the helper reads; the error holds the reason for Python.
fn expand_case(hlg: Bytes) -> Result<Vec<u8>, String> {
    let hlg = decode_plain(hlg, Vec::new()).expect("plain values");
    match expand(&input(hlg), Limits::default()) {
        PackedIntake::Split(graph) => Ok(dump(&graph)),
        PackedIntake::NeedsPython(reason) => Err(reason.to_string()),
    }
}

#[test]
fn layers_of_2022_12_0_expand_as_on_the_stock_scheduler() {
    let Some(python) = python("OXIDASK_PY_2022_12_0") else {
        return;
    };
    let dir = scratch("layers");
    run(&python, "layers.py", &["make"], &dir);
    let mut cases = Vec::new();
    for name in case_names(&dir) {
        let hlg = Items::read(&dir.join(format!("{name}.case"))).next();
        let case = hlg.expect("layers");
        let (extension, result) = match expand_case(case.clone()) {
            Ok(tasks) => ("packed", tasks),
            Err(reason) => ("python", reason.into_bytes()),
        };
        std::fs::write(dir.join(format!("{name}.{extension}")), &result).expect("write result");
        if case.len() + result.len() <= MAX_RECORDED {
            cases.push(Recorded {
                name,
                case,
                result: result.into(),
            });
        }
    }
    run(&python, "layers.py", &["check"], &dir);
    record(FIXTURE, &cases);
}

#[test]
fn recorded_layers_expand_as_when_python_checked_them() {
    for Recorded { name, case, result } in recorded(FIXTURE) {
        let now = expand_case(case).unwrap_or_else(String::into_bytes);
        assert!(now == result, "{name}: another result than recorded");
    }
}
