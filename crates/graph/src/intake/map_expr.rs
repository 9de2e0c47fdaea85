//! `Client.map`: one expression for any number of tasks (distributed ≥ 2025.4.0).
//!
//! Task `i` is `Task(keys[i], func, *(iterable[i] for iterable in iterables), **kwargs)`. Function
//! and keyword arguments go into the prefix that the tasks share.

use hashbrown::HashSet;

use oxidask_key::Key;

use crate::pickle::arena::{Arena, Kind, NodeId, OpKind};
use crate::pickle::emit::{self, Prefix};
use crate::pickle::opcodes as op;
use crate::pickle::plain::to_key;
use crate::pickle::walker::Limits;

use super::expr::Expr;
use super::parse::InputParser;
use super::spec::{KeySet, Maker, Parsed, union};
use super::writer::TaskWriter;
use super::{Spec, SplitGraph, SplitTask, Stop, TaskKind, numbers};

/// Keyword arguments above this size (bytes) become a task of their own that all others depend on.
const LARGE_KWARG: u32 = 100_000;

/// From this size on (bytes, roughly) arguments that several tasks have are written once.
const LARGE_ARGUMENT: u32 = 4096;

/// One of the mapped iterables.
enum Items {
    Nodes(Vec<NodeId>),
    Range { start: i64, step: i64, len: usize },
}

impl Items {
    fn len(&self) -> usize {
        match self {
            Self::Nodes(nodes) => nodes.len(),
            Self::Range { len, .. } => *len,
        }
    }
}

/// An argument of one task.
enum Arg {
    Int(i64),
    Parsed(Parsed),
}

/// Splits a `_MapExpr`. Its annotations are not those of the tasks: stock ignores them.
pub(super) fn split_map(
    arena: &mut Arena,
    expr: &Expr,
    wanted: &[Key],
    limits: Limits,
) -> Result<SplitGraph, Stop> {
    let func = expr.operand(0)?;
    let iterables = read_iterables(arena, expr.operand(1)?)?;
    let keys = sequence(arena, expr.operand(6)?).ok_or_else(|| Stop::python("map without keys"))?;
    let mut graph = SplitGraph::default();
    let mut parser = InputParser::new(arena);
    let mut maker = Maker::new(arena);
    let mut tasks = TaskWriter::new(limits);
    let kwargs = expr.operand(5)?;
    let kwargs = read_kwargs(
        arena,
        kwargs,
        &mut maker,
        &mut parser,
        &mut tasks,
        &mut graph,
    )?;

    let count = iterables.iter().map(Items::len).min().unwrap_or(0);
    let count = count.min(keys.len());
    let mut roots = vec![maker.task_class(), func];
    roots.extend(kwargs.node);
    for &root in &roots {
        arena.share(root);
    }
    let prefix = tasks.emitter.prefix(arena, &roots)?;
    let mut body = MapWriter {
        maker,
        parser,
        func,
        prefix,
        kwargs,
        tasks,
        out: Vec::new(),
    };
    let mut seen = HashSet::new();
    let mut duplicates = false;
    for (i, &key_node) in keys.iter().enumerate().take(count) {
        let key = to_key(arena, key_node).ok_or_else(|| Stop::python("key of unknown type"))?;
        duplicates |= !seen.insert(key.clone());
        let args = iterables
            .iter()
            .map(|items| body.argument(arena, items, i))
            .collect::<Result<Vec<Arg>, Stop>>()?;
        graph.tasks.push(body.task(arena, key, key_node, &args)?);
    }
    if duplicates || graph.tasks.len() != count {
        keep_last(&mut graph.tasks);
    }
    graph.numbering = numbers(&graph.tasks, wanted)?;
    Ok(graph)
}

/// As a dict does: a key stays where it was first and has the value it was given last.
pub(super) fn keep_last(tasks: &mut Vec<SplitTask>) {
    let mut index = hashbrown::HashMap::new();
    let mut kept: Vec<SplitTask> = Vec::new();
    for task in tasks.drain(..) {
        match index.get(&task.key).and_then(|&i: &usize| kept.get_mut(i)) {
            Some(earlier) => *earlier = task,
            None => {
                index.insert(task.key.clone(), kept.len());
                kept.push(task);
            }
        }
    }
    *tasks = kept;
}

fn read_iterables(arena: &Arena, node: NodeId) -> Result<Vec<Items>, Stop> {
    let iterables = sequence(arena, node).ok_or_else(|| Stop::python("unknown iterables"))?;
    iterables
        .into_iter()
        .map(|node| {
            items(arena, node).ok_or_else(|| Stop::python("map over something else than a list"))
        })
        .collect()
}

fn items(arena: &Arena, node: NodeId) -> Option<Items> {
    if let Some(nodes) = sequence(arena, node) {
        return Some(Items::Nodes(nodes));
    }
    let ("builtins", "range", args) = arena.call(node)? else {
        return None;
    };
    let mut bounds = [0i64; 3];
    if args.len() != 3 {
        return None;
    }
    for (bound, &arg) in bounds.iter_mut().zip(args) {
        let Kind::Int(value) = arena.kind(arg) else {
            return None;
        };
        *bound = value;
    }
    let [start, stop, step] = bounds.map(i128::from);
    let len = match step {
        0 => return None,
        1.. => (stop - start + step - 1) / step,
        _ => (start - stop - step - 1) / -step,
    };
    Some(Items::Range {
        start: bounds[0],
        step: bounds[2],
        len: usize::try_from(len.max(0)).ok()?,
    })
}

/// The elements of a plain list or tuple.
fn sequence(arena: &Arena, node: NodeId) -> Option<Vec<NodeId>> {
    match arena.kind(node) {
        Kind::Tuple(run) => Some(arena.children(run).to_vec()),
        _ => arena.list(node),
    }
}

#[derive(Default)]
struct Kwargs {
    /// The dict, if not empty.
    node: Option<NodeId>,
    dependencies: Vec<Key>,
}

fn read_kwargs(
    arena: &mut Arena,
    node: NodeId,
    maker: &mut Maker,
    parser: &mut InputParser,
    tasks: &mut TaskWriter,
    graph: &mut SplitGraph,
) -> Result<Kwargs, Stop> {
    let items = arena
        .dict(node)
        .ok_or_else(|| Stop::python("unknown keyword arguments"))?;
    let mut kwargs = Kwargs::default();
    let mut flat = Vec::new();
    for (name, value) in items {
        let key = match arena.text(name) {
            Some(text) => Key::from(text),
            None => return Err(Stop::python("keyword argument without a name")),
        };
        let value = if arena.weight(value) > LARGE_KWARG {
            let data = maker.data(arena, name, value);
            graph.tasks.push(SplitTask {
                key: key.clone(),
                dependencies: Vec::new(),
                spec: tasks.write_alone(arena, data)?,
                kind: TaskKind::Data,
            });
            Parsed {
                node: maker.alias(arena, name, name),
                is_node: true,
                dependencies: vec![key],
            }
        } else {
            parser.parse(arena, maker, value)?
        };
        union(&mut kwargs.dependencies, &value.dependencies);
        flat.extend([name, value.node]);
    }
    if !flat.is_empty() {
        let dict = arena.add(Kind::Dict);
        arena.add_op(dict, OpKind::SetItems, &flat);
        kwargs.node = Some(dict);
    }
    Ok(kwargs)
}

/// Writes the bodies of the tasks.
struct MapWriter {
    maker: Maker,
    parser: InputParser,
    func: NodeId,
    prefix: Prefix,
    kwargs: Kwargs,
    tasks: TaskWriter,
    out: Vec<u8>,
}

impl MapWriter {
    fn argument(&mut self, arena: &mut Arena, items: &Items, i: usize) -> Result<Arg, Stop> {
        match items {
            Items::Range { start, step, .. } => {
                // Within the range by construction, so within its bounds.
                let offset = step.wrapping_mul(i as i64);
                Ok(Arg::Int(start.wrapping_add(offset)))
            }
            Items::Nodes(nodes) => {
                let node = nodes
                    .get(i)
                    .copied()
                    .ok_or_else(|| Stop::python("iterable too short"))?;
                let parsed = self.parser.parse(arena, &mut self.maker, node)?;
                Ok(Arg::Parsed(parsed))
            }
        }
    }

    fn task(
        &mut self,
        arena: &mut Arena,
        key: Key,
        key_node: NodeId,
        args: &[Arg],
    ) -> Result<SplitTask, Stop> {
        let mut dependencies = KeySet::default();
        for arg in args {
            if let Arg::Parsed(parsed) = arg {
                dependencies.extend(&parsed.dependencies);
            }
        }
        dependencies.extend(&self.kwargs.dependencies);
        let dependencies = dependencies.into_vec();
        let spec = if args.iter().any(|arg| self.is_large_and_shared(arena, arg)) {
            self.whole(arena, key_node, args, &dependencies)?
        } else {
            match self.spec(arena, key_node, args, &dependencies) {
                // Arguments and function know each other, or the arguments themselves.
                Ok(None) | Err(Stop::Python(_)) => {
                    self.whole(arena, key_node, args, &dependencies)?
                }
                Ok(Some(spec)) => spec,
                Err(stop) => return Err(stop),
            }
        };
        Ok(SplitTask {
            key,
            dependencies,
            spec,
            kind: TaskKind::Task,
        })
    }

    /// Whether an argument should not be repeated in every task that has it.
    fn is_large_and_shared(&self, arena: &Arena, arg: &Arg) -> bool {
        match arg {
            Arg::Int(_) => false,
            Arg::Parsed(parsed) => {
                arena.weight(parsed.node) >= LARGE_ARGUMENT && arena.is_shared(parsed.node)
            }
        }
    }

    /// The spec on top of the prefix; nothing if it shares more with it than it can refer to.
    fn spec(
        &mut self,
        arena: &Arena,
        key: NodeId,
        args: &[Arg],
        dependencies: &[Key],
    ) -> Result<Option<Spec>, Stop> {
        let roots: Vec<NodeId> = args
            .iter()
            .filter_map(|arg| match arg {
                Arg::Parsed(parsed) if !is_leaf(arena, parsed.node) => Some(parsed.node),
                _ => None,
            })
            .collect();
        self.tasks.emitter.begin(arena, Some(&self.prefix));
        if !roots.is_empty() && !self.tasks.emitter.count(arena, &roots)? {
            return Ok(None);
        }
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        self.fetch(self.maker.task_class(), &mut out);
        out.extend([
            op::EMPTY_TUPLE,
            op::NEWOBJ,
            op::MARK,
            op::NEWFALSE,
            op::MARK,
        ]);
        for dependency in dependencies {
            write_key(dependency, &mut out);
        }
        out.extend([op::FROZENSET, op::NONE, op::NONE, op::NONE]);
        self.args(arena, args, &mut out)?;
        self.fetch(self.func, &mut out);
        self.tasks.emitter.write(arena, key, &mut out)?;
        match self.kwargs.node {
            Some(kwargs) => self.fetch(kwargs, &mut out),
            None => out.push(op::EMPTY_DICT),
        }
        out.extend([op::TUPLE, op::BUILD, op::STOP]);
        let spec = self.tasks.spec(arena, Some(&self.prefix), &out)?;
        self.out = out;
        Ok(Some(spec))
    }

    fn args(&mut self, arena: &Arena, args: &[Arg], out: &mut Vec<u8>) -> Result<(), Stop> {
        if args.len() > 3 {
            out.push(op::MARK);
        }
        for arg in args {
            match arg {
                Arg::Int(value) => emit::int(*value, out),
                Arg::Parsed(parsed) => self.tasks.emitter.write(arena, parsed.node, out)?,
            }
        }
        out.push(match args.len() {
            0 => op::EMPTY_TUPLE,
            1 => op::TUPLE1,
            2 => op::TUPLE2,
            3 => op::TUPLE3,
            _ => op::TUPLE,
        });
        Ok(())
    }

    /// Fetches a part of the prefix.
    fn fetch(&self, node: NodeId, out: &mut Vec<u8>) {
        if let Some(slot) = self.prefix.slot(node) {
            emit::get(slot, out);
        }
    }

    /// A task whose arguments share objects with the function, or are shared themselves.
    fn whole(
        &mut self,
        arena: &mut Arena,
        key: NodeId,
        args: &[Arg],
        dependencies: &[Key],
    ) -> Result<Spec, Stop> {
        let nodes: Vec<NodeId> = args
            .iter()
            .map(|arg| match arg {
                Arg::Int(value) => arena.add(Kind::Int(*value)),
                Arg::Parsed(parsed) => parsed.node,
            })
            .collect();
        let kwargs = self.kwargs.node;
        let task = self
            .maker
            .task(arena, key, self.func, &nodes, kwargs, dependencies);
        self.tasks.write(arena, task)
    }
}

/// Whether writing the node needs no counting of references: nothing hangs below it.
fn is_leaf(arena: &Arena, node: NodeId) -> bool {
    let kind = arena.kind(node);
    kind.is_atom() && !matches!(kind, Kind::Global { .. }) && arena.ops(node).next().is_none()
}

/// Writes a key that is not a node of the arena.
fn write_key(key: &Key, out: &mut Vec<u8>) {
    match key {
        Key::Str(s) => emit::text(s.as_bytes(), out),
        Key::Int(i) => emit::int(*i, out),
        Key::Bool(true) => out.push(op::NEWTRUE),
        Key::Bool(false) => out.push(op::NEWFALSE),
        Key::None => out.push(op::NONE),
        Key::Float(f) => {
            out.push(op::BINFLOAT);
            out.extend(f.to_be_bytes());
        }
        Key::UInt(u) => {
            out.extend([op::LONG1, 9]);
            out.extend(u.to_le_bytes());
            out.push(0);
        }
        Key::Bytes(b) => emit::bytes(b, out),
        Key::Tuple(items) => {
            out.push(op::MARK);
            for item in items.iter() {
                write_key(item, out);
            }
            out.push(op::TUPLE);
        }
    }
}
