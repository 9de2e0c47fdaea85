//! The interpreters, and the script that plays the stock side.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_scheduler::python_host::{
    ExpandRequest, ExpandedGraph, Mode, PythonHostConfig, SubmittedGraph,
};
use oxidask_wire::message::worker::{LegacySpec, RunSpec};
use serde::Deserialize;

/// A release and an interpreter that has it.
#[derive(Clone)]
pub(crate) struct Release {
    pub(crate) name: &'static str,
    pub(crate) python: PathBuf,
}

impl Release {
    pub(crate) const NEW: &str = "2026.8.0";
    pub(crate) const MID: &str = "2022.12.0";

    /// The interpreter of this release, or a printed skip.
    pub(crate) fn find(name: &'static str) -> Option<Self> {
        let variable = format!("OXIDASK_PY_{}", name.replace('.', "_"));
        match std::env::var_os(&variable) {
            Some(python) => Some(Self {
                name,
                python: python.into(),
            }),
            None => {
                eprintln!("skipped: {variable} names no Python with distributed {name}");
                None
            }
        }
    }

    /// Settings that use this interpreter in processes of our own.
    pub(crate) fn local(&self) -> PythonHostConfig {
        PythonHostConfig {
            mode: Mode::Local,
            python: Some(with_graphs(&self.python)),
            ..PythonHostConfig::default()
        }
    }

    /// Runs `graphs.py`; panics with its output if it fails.
    fn graphs(&self, command: &str, arguments: &[(&'static str, &Path)]) -> String {
        let output = Command::new(&self.python)
            .arg(folder_of_script().join("graphs.py"))
            .arg(command)
            .args(
                arguments
                    .iter()
                    .flat_map(|(name, folder)| [name.as_ref(), folder.as_os_str()]),
            )
            .env("PYTHONPATH", folder_of_script())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .expect("the interpreter starts");
        assert!(
            output.status.success(),
            "graphs.py {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What a stock client of this release submits to have these graphs computed.
    pub(crate) fn submit<const N: usize>(&self, graphs: &[&'static str; N]) -> [Submission; N] {
        let folders = graphs.map(|name| (name, scratch()));
        let arguments: Vec<_> = folders.iter().map(|(n, f)| (*n, f.as_path())).collect();
        self.graphs("make", &arguments);
        folders.map(|(name, folder)| Submission::read(self, name, folder))
    }

    /// Has stock judge expansions: same tasks, same dependencies, same results.
    pub(crate) fn check(&self, expanded: &[(Submission, ExpandedGraph)]) {
        for (submission, graph) in expanded {
            submission.write_expanded(graph);
        }
        let arguments: Vec<_> = expanded
            .iter()
            .map(|(submission, _)| (submission.name, submission.folder.as_path()))
            .collect();
        assert_eq!(self.graphs("check", &arguments), "ok");
    }
}

/// One submission of a stock client.
pub(crate) struct Submission {
    release: Release,
    pub(crate) name: &'static str,
    folder: PathBuf,
    pub(crate) request: ExpandRequest,
}

impl Submission {
    fn read(release: &Release, name: &'static str, folder: PathBuf) -> Self {
        let request = std::fs::read(folder.join("request.msgpack")).expect("it was written");
        let made: Made = rmp_serde::from_slice(&request).expect("it is as described");
        let mut frames: Vec<Bytes> = made
            .frames
            .into_iter()
            .map(|f| f.into_vec().into())
            .collect();
        let graph = match made.form.as_str() {
            "expression" => SubmittedGraph::Expression {
                header: frames.remove(0),
                frames,
            },
            _ => SubmittedGraph::Layers { frames },
        };
        Self {
            release: release.clone(),
            name,
            folder,
            request: ExpandRequest {
                graph,
                keys: made.keys,
                annotations: made
                    .annotations
                    .into_iter()
                    .map(|f| f.into_vec().into())
                    .collect(),
                release: oxidask_wire::release::Release::parse(release.name).expect("a release"),
            },
        }
    }

    /// Has stock judge an expansion; see [`Release::check`].
    pub(crate) fn check(&self, expanded: &ExpandedGraph) {
        self.write_expanded(expanded);
        let verdict = self.release.graphs("check", &[(self.name, &self.folder)]);
        assert_eq!(verdict, "ok");
    }

    fn write_expanded(&self, expanded: &ExpandedGraph) {
        let rows: Vec<_> = expanded
            .tasks
            .iter()
            .map(|task| {
                let (kind, values) = match &task.run_spec {
                    RunSpec::Pickled { pickle, buffers } => (
                        0,
                        vec![own(std::iter::once(&pickle.to_bytes()).chain(&**buffers))],
                    ),
                    RunSpec::Legacy(legacy) => match &**legacy {
                        LegacySpec::Parts {
                            function,
                            args,
                            kwargs,
                        } => {
                            let values = std::iter::once(function).chain(args).chain(kwargs);
                            (1, values.map(|value| own([value])).collect())
                        }
                        LegacySpec::Serialized(task) => {
                            let header = std::iter::once(task.header_bytes());
                            (2, vec![own(header.chain(task.frames()))])
                        }
                        LegacySpec::Call { .. } | LegacySpec::Task(_) => {
                            panic!("Python dumps each task as a whole: {task:?}")
                        }
                    },
                };
                let annotations = task
                    .annotations
                    .map(|set| own(&expanded.annotations[set].encoded));
                (&task.key, kind, values, &task.dependencies, annotations)
            })
            .collect();
        let data = rmp_serde::to_vec(&rows).expect("plain data");
        std::fs::write(self.folder.join("expanded.msgpack"), data).expect("a writable folder");
    }
}

fn own<'a>(frames: impl IntoIterator<Item = &'a Bytes>) -> Vec<serde_bytes::ByteBuf> {
    frames.into_iter().map(|f| f.to_vec().into()).collect()
}

impl Drop for Submission {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[derive(Deserialize)]
struct Made {
    form: String,
    keys: Vec<Key>,
    frames: Vec<serde_bytes::ByteBuf>,
    annotations: Vec<serde_bytes::ByteBuf>,
}

fn folder_of_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_host")
}

fn scratch() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("oxidask-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&folder).expect("a writable temporary folder");
    folder
}

/// A wrapper that lets the interpreter import `graphs.py`, as a user's PYTHONPATH would.
fn with_graphs(python: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let wrapper = scratch().join("python");
    let script = format!(
        "#!/bin/sh\nPYTHONPATH='{}' PYTHONDONTWRITEBYTECODE=1 exec '{}' \"$@\"\n",
        folder_of_script().display(),
        python.display()
    );
    std::fs::write(&wrapper, script).expect("a writable folder");
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))
        .expect("our own file");
    wrapper
}
