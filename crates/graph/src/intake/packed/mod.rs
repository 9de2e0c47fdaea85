//! Packed layers: `update-graph-hlg` (distributed 2020.12.0 – 2023.3.2.1).
//!
//! The client sends a high-level graph as msgpack, layer by layer in topological order. Most layers
//! hold their tasks; some are descriptions that the scheduler expands: [`blockwise`], [`shuffle`],
//! [`reduction`], [`join`]. Keys are text, tuples in their printed form. Serialised objects inside
//! are handles here (`P`), given back as they came.
//!
//! Layouts are those of 2022.12.0. The other releases of this era share them as far as
//! `reference` recordings of 2021.12.0 and 2023.3.2 tell; a state with other fields is left to
//! Python.

mod blockwise;
mod join;
mod object;
mod reduction;
mod shuffle;
mod value;

use bytes::Bytes;
use hashbrown::HashSet;
use indexmap::IndexMap;
use oxidask_key::Key;

pub use value::Input;

use crate::intake::{NeedsPython, Stop, TaskKind};
use crate::order::OrderTask;
use crate::pickle::walker::Limits;
use object::Object;

/// Most tasks that one submission may expand to.
const MAX_TASKS: usize = 10 << 20;

/// The answer to a packed submission.
#[derive(Clone, Debug)]
pub enum PackedIntake<P> {
    /// Its tasks.
    Split(PackedGraph<P>),
    /// Only Python can tell.
    NeedsPython(NeedsPython),
}

/// The tasks of a packed submission.
#[derive(Clone, Debug)]
pub struct PackedGraph<P> {
    /// Each key once. A key may depend on itself in what clients send; such dependencies are gone.
    pub tasks: Vec<PackedTask<P>>,
    /// In the order in which they are to be applied: a later one replaces an earlier one of the same
    /// name for the keys it lists.
    pub annotations: Vec<PackedAnnotation<P>>,
}

/// One task.
#[derive(Clone, Debug)]
pub struct PackedTask<P> {
    /// Its name.
    pub key: Key,
    /// What it needs, each key once.
    pub dependencies: Vec<Key>,
    /// What a worker runs.
    pub spec: PackedSpec<P>,
}

impl<'a, P> From<&'a PackedTask<P>> for OrderTask<'a> {
    fn from(task: &'a PackedTask<P>) -> Self {
        Self {
            key: &task.key,
            kind: TaskKind::Task,
        }
    }
}

/// What a worker runs, in the terms of `compute-task` of these releases.
#[derive(Clone, Debug, PartialEq)]
pub enum PackedSpec<P> {
    /// As the client dumped it: a map of `function`, `args`, `kwargs`, or an object that is the
    /// `task`.
    Given(Input<P>),
    /// Pickles of the function and of its arguments (a list or tuple).
    Parts {
        /// `function`.
        function: Bytes,
        /// `args`.
        args: Bytes,
    },
    /// A pickle of the function, and its arguments one by one, since some are objects of the client.
    /// `args` is to be an array of them.
    Call {
        /// `function`.
        function: Bytes,
        /// `args`.
        args: Vec<Item<P>>,
    },
    /// A task tuple that has to be put together on the worker: `task` is to be an array of these.
    Task(Vec<Item<P>>),
    /// A pickle of a task: `task` is to be a serialised object with this one frame.
    PickledTask(Bytes),
}

/// An element of an array in a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<P> {
    /// Text, most often the key of a dependency.
    Text(String),
    /// To become a serialised object (`serializer: pickle`) of this one frame.
    Pickle(Bytes),
    /// An object of the client.
    Payload(P),
}

/// A value that a layer annotates keys with.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedAnnotation<P> {
    /// E.g. `priority`.
    pub name: String,
    /// The value.
    pub value: Input<P>,
    /// The keys concerned.
    pub keys: Vec<Key>,
}

/// Expands the layers of an `update-graph-hlg` message. `hlg` is the decoded `hlg` field
/// (`{layers: […]}`).
///
/// Order the tasks with [`crate::order::Algorithm::V2022`] before culling, as stock does, unless the
/// client gave `priority`.
pub fn expand<P: Clone>(hlg: &Input<P>, limits: Limits) -> PackedIntake<P> {
    let mut expansion = Expansion {
        tasks: IndexMap::new(),
        annotations: Vec::new(),
        output_left: limits.max_output,
    };
    let result = hlg
        .field("layers")
        .and_then(Input::items)
        .ok_or_else(|| Stop::python("message without layers"))
        .and_then(|layers| layers.iter().try_for_each(|layer| expansion.layer(layer)));
    match result {
        Ok(()) => PackedIntake::Split(expansion.finish()),
        Err(Stop::Python(reason)) => PackedIntake::NeedsPython(reason),
        Err(Stop::Error(error)) => PackedIntake::NeedsPython(NeedsPython::new(error.to_string())),
    }
}

/// The tasks so far.
struct Expansion<P> {
    tasks: IndexMap<Key, (Vec<Key>, Option<PackedSpec<P>>)>,
    /// By layer; the first layer wins.
    annotations: Vec<PackedAnnotation<P>>,
    output_left: usize,
}

impl<P: Clone> Expansion<P> {
    fn layer(&mut self, layer: &Input<P>) -> Result<(), Stop> {
        let text = |name| layer.field(name).and_then(Input::text);
        let module = text("__module__");
        let name = text("__name__").unwrap_or_default();
        let state = layer
            .field("state")
            .ok_or_else(|| Stop::python("layer without state"))?;
        let before = self.tasks.len();
        let mut added = Added {
            expansion: self,
            keys: Vec::new(),
        };
        match (module, name) {
            (None, _) | (Some("dask.highlevelgraph"), "MaterializedLayer") => {
                materialized(state, &mut added)?;
            }
            (Some("dask.blockwise"), "Blockwise")
            | (Some("dask.layers"), "DataFrameIOLayer" | "BlockwiseCreateArray") => {
                blockwise::expand(state, &mut added)?;
            }
            (Some("dask.layers"), "SimpleShuffleLayer") => shuffle::simple(state, &mut added)?,
            (Some("dask.layers"), "ShuffleLayer") => shuffle::staged(state, &mut added)?,
            (Some("dask.layers"), "BroadcastJoinLayer") => join::expand(state, &mut added)?,
            (Some("dask.layers"), "DataFrameTreeReduction") => {
                reduction::expand(state, &mut added)?;
            }
            // Classes without a packing of their own.
            (Some(module), name) => {
                let plain = state.field("dsk").is_some()
                    && state.field("dependencies").is_some()
                    && state.entries().is_some_and(|e| e.len() == 2);
                if !plain {
                    return Err(Stop::python(format!("layer {module}.{name}")));
                }
                materialized(state, &mut added)?;
            }
        }
        let keys = added.keys;
        debug_assert!(self.tasks.len() >= before);
        self.annotate(layer.field("annotations"), &keys)
    }

    fn annotate(&mut self, annotations: Option<&Input<P>>, keys: &[Key]) -> Result<(), Stop> {
        let Some(annotations) = annotations.filter(|a| !matches!(a, Input::Nil)) else {
            return Ok(());
        };
        let entries = annotations
            .entries()
            .ok_or_else(|| Stop::python("unknown annotations"))?;
        for (name, value) in entries {
            let Some(name) = name.text() else {
                return Err(Stop::python("annotation without a name"));
            };
            let mut add = |value: &Input<P>, keys: &[Key]| {
                let all = &mut self.annotations;
                match all.last_mut() {
                    // Mostly a number that is the same for all keys.
                    Some(last) if last.name == name && last.value.is_same_number(value) => {
                        last.keys.extend_from_slice(keys);
                    }
                    _ => all.push(PackedAnnotation {
                        name: name.to_owned(),
                        value: value.clone(),
                        keys: keys.to_vec(),
                    }),
                }
            };
            if value.field("__expanded_annotations__").is_none() {
                add(value, keys);
                continue;
            }
            for (key, value) in value.entries().unwrap_or_default() {
                let key = key
                    .key()
                    .ok_or_else(|| Stop::python("key of unknown type"))?;
                if key.as_str() != Some("__expanded_annotations__") {
                    add(value, &[key]);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> PackedGraph<P> {
        let tasks = self.tasks.into_iter();
        PackedGraph {
            tasks: tasks
                .filter_map(|(key, (mut dependencies, spec))| {
                    dependencies.retain(|d| *d != key);
                    // Some layers know dependencies of keys that are not theirs.
                    let spec = spec?;
                    Some(PackedTask {
                        key,
                        dependencies,
                        spec,
                    })
                })
                .collect(),
            annotations: self.annotations.into_iter().rev().collect(),
        }
    }
}

/// Where a layer puts its tasks.
struct Added<'a, P> {
    expansion: &'a mut Expansion<P>,
    keys: Vec<Key>,
}

impl<P: Clone> Added<'_, P> {
    fn task(&mut self, key: Key, spec: PackedSpec<P>, dependencies: &[Key]) -> Result<(), Stop> {
        let size = match &spec {
            PackedSpec::Given(_) => 0,
            PackedSpec::Parts { args, .. } => args.len(),
            PackedSpec::PickledTask(task) => task.len(),
            PackedSpec::Call { args: items, .. } | PackedSpec::Task(items) => {
                items.iter().map(Item::len).sum()
            }
        };
        let left = self.expansion.output_left.checked_sub(size);
        self.expansion.output_left = left.ok_or_else(|| Stop::python("graph too large"))?;
        if self.expansion.tasks.len() >= MAX_TASKS {
            return Err(Stop::python("graph of too many tasks"));
        }
        self.keys.push(key.clone());
        let entry = self.expansion.tasks.entry(key).or_default();
        entry.1 = Some(spec);
        add_keys(&mut entry.0, dependencies);
        Ok(())
    }

    fn dependencies(&mut self, key: Key, dependencies: &[Key]) {
        let entry = self.expansion.tasks.entry(key).or_default();
        add_keys(&mut entry.0, dependencies);
    }

    /// Whether a key is a task of this or an earlier layer.
    fn is_task(&self, key: &Key) -> bool {
        let task = self.expansion.tasks.get(key);
        task.is_some_and(|(_, spec)| spec.is_some())
    }

    /// Adds tasks whose dependencies are what they mention of the layer's and earlier tasks.
    fn mentioning(&mut self, tasks: Vec<(Key, Object<P>)>) -> Result<(), Stop> {
        let own: HashSet<Key> = tasks.iter().map(|(key, _)| key.clone()).collect();
        for (key, task) in tasks {
            let mut mentioned = Vec::new();
            task.mentioned(&mut mentioned);
            mentioned.retain(|key| own.contains(key) || self.is_task(key));
            self.task(key, object::dump_task(task)?, &mentioned)?;
        }
        Ok(())
    }
}

fn add_keys(to: &mut Vec<Key>, keys: &[Key]) {
    super::spec::union(to, keys);
}

impl<P> Item<P> {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Pickle(pickle) => pickle.len(),
            Self::Payload(_) => 0,
        }
    }
}

/// A layer that holds its tasks, dumped by the client.
fn materialized<P: Clone>(state: &Input<P>, added: &mut Added<'_, P>) -> Result<(), Stop> {
    let unknown = || Stop::python("unknown state of a layer");
    let tasks = state.field("dsk").and_then(Input::entries);
    for (key, task) in tasks.ok_or_else(unknown)? {
        let key = key.key().ok_or_else(unknown)?;
        added.task(key, PackedSpec::Given(task.clone()), &[])?;
    }
    let dependencies = state.field("dependencies").and_then(Input::entries);
    for (key, needs) in dependencies.ok_or_else(unknown)? {
        let needs: Option<Vec<Key>> = needs
            .items()
            .ok_or_else(unknown)?
            .iter()
            .map(Input::key)
            .collect();
        added.dependencies(key.key().ok_or_else(unknown)?, &needs.ok_or_else(unknown)?);
    }
    Ok(())
}
