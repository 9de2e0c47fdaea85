//! Packed layers of distributed 2022.12.0 expand to tasks that run as those of the stock scheduler.

mod common;

use std::path::Path;

use common::{Items, Writer, case_names, python, python_repr, run, scratch};
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

fn expand_case(path: &Path) -> PackedIntake<usize> {
    let hlg = Items::read(path).next().expect("layers");
    let hlg = decode_plain(hlg, Vec::new()).expect("plain values");
    expand(&input(hlg), Limits::default())
}

#[test]
fn layers_of_2022_12_0_expand_as_on_the_stock_scheduler() {
    let Some(python) = python("OXIDASK_PY_2022_12_0") else {
        return;
    };
    let dir = scratch("layers");
    run(&python, "layers.py", &["make"], &dir);
    for name in case_names(&dir) {
        match expand_case(&dir.join(format!("{name}.case"))) {
            PackedIntake::Split(graph) => {
                let file = dir.join(format!("{name}.packed"));
                std::fs::write(file, dump(&graph)).expect("write tasks");
            }
            PackedIntake::NeedsPython(reason) => {
                let file = dir.join(format!("{name}.python"));
                std::fs::write(file, reason.to_string()).expect("write reason");
            }
        }
    }
    run(&python, "layers.py", &["check"], &dir);
}
