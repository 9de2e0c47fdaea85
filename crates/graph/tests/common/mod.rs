//! Shared by the tests: exchange of byte strings with the Python helpers, and running those.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use oxidask_graph::{PlainValue, Spec, SplitGraph, TaskKind};

/// Interpreter named by an environment variable; says so when there is none.
pub(crate) fn python(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: {variable} does not name a Python with that release");
    }
    found
}

/// An empty directory for this test run.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("create scratch directory");
    dir
}

/// Directory of the Python helpers.
pub(crate) fn helpers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python")
}

/// Runs a helper; its output is shown if it fails.
pub(crate) fn run(python: &Path, script: &str, args: &[&str], dir: &Path) {
    let output = Command::new(python)
        .arg("-B")
        .arg(helpers().join(script))
        .args(args)
        .arg(dir)
        .output()
        .expect("start the interpreter");
    assert!(
        output.status.success(),
        "{script} {args:?} failed:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// Where recorded cases are kept.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A recorded case: its name, the submission, and what was made of it when the release's Python had
/// checked that.
pub(crate) struct Recorded {
    pub(crate) name: String,
    pub(crate) case: Bytes,
    pub(crate) result: Bytes,
}

/// Reads a file of recorded cases.
pub(crate) fn recorded(name: &str) -> Vec<Recorded> {
    let mut items = Items::read(&fixture(name));
    let mut all = Vec::new();
    while let Some(name) = items.next() {
        all.push(Recorded {
            name: String::from_utf8(name.to_vec()).expect("name"),
            case: items.next().expect("case"),
            result: items.next().expect("result"),
        });
    }
    assert!(!all.is_empty(), "no cases in {name}");
    all
}

/// With `OXIDASK_RECORD` set, keeps cases that Python has just checked; called after the check.
pub(crate) fn record(name: &str, cases: &[Recorded]) {
    if std::env::var_os("OXIDASK_RECORD").is_none() {
        return;
    }
    let mut out = Writer::default();
    for case in cases {
        out.text(&case.name);
        out.item(&case.case);
        out.item(&case.result);
    }
    std::fs::write(fixture(name), out.0).expect("write fixture");
}

/// Names of the cases in a directory, sorted.
pub(crate) fn case_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("list cases")
        .filter_map(|entry| {
            let path = entry.expect("list cases").path();
            let is_case = path.extension().is_some_and(|e| e == "case");
            is_case.then(|| path.file_stem()?.to_str().map(str::to_owned))?
        })
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no cases in {}", dir.display());
    names
}

/// Byte strings, each behind its length (four bytes, little-endian).
pub(crate) struct Items(Bytes);

impl Items {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn read(path: &Path) -> Self {
        Self(std::fs::read(path).expect("read case").into())
    }
}

impl Iterator for Items {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.0.is_empty() {
            return None;
        }
        let len = self.0.split_to(4);
        let len = u32::from_le_bytes(len[..].try_into().expect("four bytes"));
        Some(self.0.split_to(len as usize))
    }
}

/// The other direction.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn item(&mut self, bytes: &[u8]) {
        self.0.extend((bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.item(text.as_bytes());
    }

    pub(crate) fn number(&mut self, number: usize) {
        self.text(&number.to_string());
    }
}

/// A split graph for the helpers.
pub(crate) fn split_bytes(graph: &SplitGraph) -> Vec<u8> {
    let mut out = Writer::default();
    out.number(graph.tasks.len());
    for task in &graph.tasks {
        out.text(&task.key.repr());
        out.text(match task.kind {
            TaskKind::Task => "task",
            TaskKind::Data => "data",
        });
        out.number(task.dependencies.len());
        for dependency in &task.dependencies {
            out.text(&dependency.repr());
        }
        let Spec { pickle, buffers } = &task.spec;
        out.item(&pickle.to_bytes());
        out.number(buffers.len());
        for buffer in buffers {
            out.item(buffer);
        }
    }
    out.number(graph.annotations.len());
    for annotation in &graph.annotations {
        out.text(&annotation.name);
        out.text(&python_repr(&annotation.value));
        out.number(annotation.keys.len());
        for key in &annotation.keys {
            out.text(&key.repr());
        }
    }
    out.0
}

/// A plain value as a Python expression.
pub(crate) fn python_repr(value: &PlainValue) -> String {
    let all = |items: &[PlainValue]| {
        let texts: Vec<String> = items.iter().map(|item| python_repr(item) + ",").collect();
        texts.join(" ")
    };
    match value {
        PlainValue::None => "None".into(),
        PlainValue::Bool(true) => "True".into(),
        PlainValue::Bool(false) => "False".into(),
        PlainValue::Int(i) => i.to_string(),
        PlainValue::Float(f) => format!("float({:?})", f.to_string()),
        PlainValue::Str(s) => oxidask_key::Key::from(s.as_str()).repr(),
        PlainValue::Bytes(b) => oxidask_key::Key::Bytes(b.as_slice().into()).repr(),
        PlainValue::List(items) => format!("[{}]", all(items)),
        PlainValue::Tuple(items) => format!("({})", all(items)),
        PlainValue::Set(items) => format!("set([{}])", all(items)),
        PlainValue::Dict(items) => {
            let texts: Vec<String> = items
                .iter()
                .map(|(k, v)| format!("{}: {}", python_repr(k), python_repr(v)))
                .collect();
            format!("{{{}}}", texts.join(", "))
        }
    }
}
