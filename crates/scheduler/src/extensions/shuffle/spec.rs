//! What a barrier task says about its shuffle, and the run spec made of it, both as pickles that
//! nobody runs here.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_graph::pickle::arena::{Arena, Kind, NodeId};
use oxidask_graph::pickle::emit::Emitter;
use oxidask_graph::pickle::plain::{PlainValue, to_plain};
use oxidask_graph::pickle::walker::{Limits, walk};
use oxidask_key::Key;
use oxidask_wire::value::Value;

/// Most output partitions of one shuffle.
const MAX_PARTITIONS: usize = 10_000_000;

/// Why a shuffle cannot be set up from its barrier task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    /// Not a pickle we can read.
    #[error("the barrier task cannot be read: {0}")]
    Pickle(String),
    /// The barrier task of a release that stores no spec in it, or of a kind of shuffle unknown
    /// to this build.
    #[error("the barrier task describes no shuffle known to this scheduler")]
    Unknown,
    /// More partitions than sensible.
    #[error("a shuffle can have at most {MAX_PARTITIONS} output partitions")]
    TooMany,
}

/// Name of an output partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Partition {
    /// Of a DataFrame shuffle.
    Number(i64),
    /// Of an array rechunk: position along each axis.
    Position(Vec<i64>),
}

/// The outputs of a shuffle, and how they are spread over workers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outputs {
    /// `DataFrameShuffleSpec`.
    Frame {
        /// Partitions altogether.
        npartitions: i64,
        /// Those that are wanted.
        parts: Vec<i64>,
    },
    /// `ArrayRechunkSpec`.
    Array {
        /// Number of new chunks along each axis.
        chunks: Vec<i64>,
    },
}

impl Outputs {
    /// Of the fields of a request (up to 2023.8.0): `npartitions`, and `parts_out` since 2023.5.0, or
    /// `new` for arrays. Nothing if they say neither.
    ///
    /// # Errors
    /// More partitions than sensible.
    pub(crate) fn of_fields(fields: &Value) -> Result<Option<Self>, SpecError> {
        if let Some(npartitions) = fields.get("npartitions").and_then(Value::as_i64) {
            let parts = match fields.get("parts_out").and_then(Value::as_seq) {
                Some(parts) => parts.iter().filter_map(Value::as_i64).collect(),
                None => range(0, npartitions, 1)?,
            };
            return Ok(Some(Self::Frame { npartitions, parts }));
        }
        let Some(axes) = fields.get("new").and_then(Value::as_seq) else {
            return Ok(None);
        };
        let length = |axis: &Value| axis.as_seq().map(<[Value]>::len);
        let lengths: Option<Vec<usize>> = axes.iter().map(length).collect();
        lengths.map(Self::array).transpose()
    }

    fn array(lengths: Vec<usize>) -> Result<Self, SpecError> {
        let total = lengths
            .iter()
            .try_fold(1usize, |total, &n| total.checked_mul(n));
        if total.is_none_or(|total| total > MAX_PARTITIONS) {
            return Err(SpecError::TooMany);
        }
        let chunks = lengths.into_iter().filter_map(|n| i64::try_from(n).ok());
        Ok(Self::Array {
            chunks: chunks.collect(),
        })
    }

    /// All output partitions, each with the index of its worker among `workers`.
    pub(crate) fn assign(&self, workers: usize) -> Vec<(Partition, usize)> {
        let pick = |position: i64, total: i64| {
            let share = i128::from(position) * workers as i128 / i128::from(total.max(1));
            let last = workers.saturating_sub(1);
            usize::try_from(share).map_or(0, |index| index.min(last))
        };
        match self {
            Self::Frame { npartitions, parts } => parts
                .iter()
                .map(|&part| (Partition::Number(part), pick(part, *npartitions)))
                .collect(),
            Self::Array { chunks } => {
                // Stock's own rule leaves workers without work beyond two axes; workers take any.
                let total = chunks.iter().product();
                (0..)
                    .zip(positions(chunks))
                    .map(|(i, position)| (Partition::Position(position), pick(i, total)))
                    .collect()
            }
        }
    }

    /// The partition that an output task makes: as its annotation `shuffle` says (up to 2023.10.1),
    /// or by its place in its collection.
    pub(crate) fn partition_of(&self, key: &Key, annotation: Option<&Value>) -> Option<Partition> {
        let place = match annotation {
            Some(annotation) => annotation.to_key()?,
            None => match key {
                Key::Tuple(items) => Key::Tuple(items.get(1..)?.into()),
                // Up to 2023.8.1 keys are texts such as `('name-token', 0, 1)`.
                Key::Str(text) => return self.partition_in_text(text),
                _ => return None,
            },
        };
        let numbers: Option<Vec<i64>> = match &place {
            Key::Tuple(items) => items.iter().map(number).collect(),
            one => number(one).map(|i| vec![i]),
        };
        self.partition(numbers?)
    }

    fn partition_in_text(&self, text: &str) -> Option<Partition> {
        let inner = text.strip_prefix('(')?.strip_suffix(')')?;
        let mut parts = inner.split(", ");
        parts.next()?;
        let numbers: Option<Vec<i64>> = parts.map(|part| part.parse().ok()).collect();
        self.partition(numbers?)
    }

    fn partition(&self, numbers: Vec<i64>) -> Option<Partition> {
        match self {
            Self::Frame { .. } => match *numbers {
                [part] => Some(Partition::Number(part)),
                _ => None,
            },
            Self::Array { chunks } => {
                (numbers.len() == chunks.len()).then_some(Partition::Position(numbers))
            }
        }
    }
}

fn number(key: &Key) -> Option<i64> {
    match key {
        Key::Int(i) => Some(*i),
        _ => None,
    }
}

/// A `ShuffleSpec`: in requests from 2023.8.1 on, in the barrier task from 2024.11.0 on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PickledSpec {
    /// What the shuffle makes.
    pub(crate) outputs: Outputs,
    /// Name of the shuffle.
    pub(crate) id: String,
    /// The spec as a pickle of its own.
    pickle: Bytes,
    buffers: Vec<Bytes>,
}

impl PickledSpec {
    /// Reads the spec out of the pickle of a barrier task.
    ///
    /// # Errors
    /// See [`SpecError`].
    pub(crate) fn of_barrier(pickle: Bytes, buffers: Vec<Bytes>) -> Result<Self, SpecError> {
        Self::read(pickle, buffers, find_spec)
    }

    /// Reads the spec of a request.
    ///
    /// # Errors
    /// See [`SpecError`].
    pub(crate) fn of_request(pickle: Bytes, buffers: Vec<Bytes>) -> Result<Self, SpecError> {
        Self::read(pickle, buffers, |_, root| Some(root))
    }

    fn read(
        pickle: Bytes,
        buffers: Vec<Bytes>,
        find: impl FnOnce(&Arena, NodeId) -> Option<NodeId>,
    ) -> Result<Self, SpecError> {
        let unreadable = |error: &dyn std::fmt::Display| SpecError::Pickle(error.to_string());
        let (arena, root) =
            walk(pickle, buffers, Limits::default()).map_err(|error| unreadable(&error))?;
        let node = find(&arena, root).ok_or(SpecError::Unknown)?;
        let outputs = outputs(&arena, node)?;
        let id = arena.text(field(&arena, node, "id")?);
        let id = id.ok_or(SpecError::Unknown)?.to_owned();
        let (pickle, buffers) = Emitter::new(Limits::default())
            .whole(&arena, node)
            .map_err(|error| unreadable(&error))?;
        Ok(Self {
            outputs,
            id,
            pickle: pickle.to_bytes(),
            buffers,
        })
    }

    /// Pickle and buffers of a `ShuffleRunSpec` for this spec.
    pub(crate) fn run_spec(
        &self,
        run_id: i64,
        span_id: Option<&str>,
        worker_for: &[(Partition, Arc<str>)],
    ) -> (Vec<u8>, Vec<Bytes>) {
        let mut out = PickleWriter::default();
        out.global("distributed.shuffle._core", "ShuffleRunSpec");
        // An empty tuple, NEWOBJ, and a dict as state.
        out.raw(b")\x81}(");
        out.text("run_id");
        out.int(run_id);
        out.text("span_id");
        match span_id {
            Some(span_id) => out.text(span_id),
            None => out.raw(b"N"),
        }
        out.text("worker_for");
        out.raw(b"}(");
        for (partition, worker) in worker_for {
            match partition {
                Partition::Number(part) => out.int(*part),
                Partition::Position(position) => {
                    out.raw(b"(");
                    position.iter().for_each(|&i| out.int(i));
                    out.raw(b"t");
                }
            }
            out.text(worker);
        }
        out.raw(b"u");
        out.text("spec");
        // The one part with a memo, so its indexes need no shift.
        out.raw(body(&self.pickle));
        out.raw(b"ub.");
        (out.bytes, self.buffers.clone())
    }
}

/// The `spec` in the state of a `P2PBarrierTask`: a tuple of all slots, or (up to 2024.12.1) what
/// Python makes of an object with slots, a pair of nothing and a dict.
fn find_spec(arena: &Arena, root: NodeId) -> Option<NodeId> {
    let Kind::NewObj { cls, .. } = arena.kind(root) else {
        return None;
    };
    let (module, name) = arena.global(cls)?;
    if !module.starts_with("distributed.shuffle") || name != "P2PBarrierTask" {
        return None;
    }
    let state = arena.tuple(arena.state(root)?)?;
    if let [_, slots] = state
        && let Some(slots) = arena.dict(*slots)
    {
        let spec = slots.iter().find(|(k, _)| arena.text(*k) == Some("spec"));
        return spec.map(|(_, spec)| *spec);
    }
    state
        .iter()
        .rev()
        .copied()
        .find(|&node| class_of(arena, node).is_some())
}

/// Name of the class of an object of `distributed.shuffle`.
fn class_of(arena: &Arena, node: NodeId) -> Option<&str> {
    let Kind::NewObj { cls, .. } = arena.kind(node) else {
        return None;
    };
    let (module, name) = arena.global(cls)?;
    module.starts_with("distributed.shuffle").then_some(name)
}

/// An attribute of the spec.
fn field(arena: &Arena, spec: NodeId, name: &str) -> Result<NodeId, SpecError> {
    let state = arena
        .state(spec)
        .and_then(|state| arena.dict(state))
        .ok_or(SpecError::Unknown)?;
    let found = state
        .iter()
        .rev()
        .find(|(k, _)| arena.text(*k) == Some(name));
    found.map(|(_, value)| *value).ok_or(SpecError::Unknown)
}

fn outputs(arena: &Arena, spec: NodeId) -> Result<Outputs, SpecError> {
    let field = |name: &str| field(arena, spec, name);
    match class_of(arena, spec) {
        Some("DataFrameShuffleSpec") => {
            let npartitions = int(arena, field("npartitions")?)?;
            let parts = parts(arena, field("parts_out")?)?;
            Ok(Outputs::Frame { npartitions, parts })
        }
        Some("ArrayRechunkSpec") => {
            let axes = chunked_axes(arena, field("new")?).ok_or(SpecError::Unknown)?;
            let length = |axis: &NodeId| arena.tuple(*axis).map(<[NodeId]>::len);
            let lengths: Option<Vec<usize>> = axes.iter().map(length).collect();
            Outputs::array(lengths.ok_or(SpecError::Unknown)?)
        }
        _ => Err(SpecError::Unknown),
    }
}

/// A tuple of axes. Some releases of 2024 wrap it in a class derived from tuple (`DoNotUnpack`), which
/// is made of the tuple.
fn chunked_axes(arena: &Arena, node: NodeId) -> Option<&[NodeId]> {
    match arena.kind(node) {
        Kind::NewObj { args, .. } => match arena.tuple(args)? {
            [axes] => arena.tuple(*axes),
            _ => None,
        },
        _ => arena.tuple(node),
    }
}

fn int(arena: &Arena, node: NodeId) -> Result<i64, SpecError> {
    match to_plain(arena, node) {
        Ok(PlainValue::Int(i)) => Ok(i),
        _ => Err(SpecError::Unknown),
    }
}

/// `parts_out`: a number of partitions, a list of them, or a `range`.
fn parts(arena: &Arena, node: NodeId) -> Result<Vec<i64>, SpecError> {
    if let Some(("builtins", "range", args)) = arena.call(node) {
        let args: Result<Vec<i64>, _> = match args {
            [only] => match arena.tuple(*only) {
                Some(args) => args.iter().map(|&arg| int(arena, arg)).collect(),
                None => Ok(vec![int(arena, *only)?]),
            },
            args => args.iter().map(|&arg| int(arena, arg)).collect(),
        };
        return match args?.as_slice() {
            [stop] => range(0, *stop, 1),
            [start, stop] => range(*start, *stop, 1),
            [start, stop, step] => range(*start, *stop, *step),
            _ => Err(SpecError::Unknown),
        };
    }
    match to_plain(arena, node) {
        Ok(PlainValue::Int(n)) => range(0, n, 1),
        Ok(PlainValue::List(items) | PlainValue::Tuple(items) | PlainValue::Set(items)) => items
            .into_iter()
            .map(|item| match item {
                PlainValue::Int(i) => Ok(i),
                _ => Err(SpecError::Unknown),
            })
            .collect(),
        _ => Err(SpecError::Unknown),
    }
}

fn range(start: i64, stop: i64, step: i64) -> Result<Vec<i64>, SpecError> {
    let mut all = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        if all.len() >= MAX_PARTITIONS {
            return Err(SpecError::TooMany);
        }
        all.push(at);
        at = at.saturating_add(step);
    }
    Ok(all)
}

/// All positions of a grid, the last axis running fastest.
fn positions(chunks: &[i64]) -> impl Iterator<Item = Vec<i64>> {
    let mut next = chunks.iter().all(|&n| n > 0).then(|| vec![0; chunks.len()]);
    let chunks = chunks.to_vec();
    std::iter::from_fn(move || {
        let current = next.clone()?;
        next = None;
        let mut following = current.clone();
        for (i, n) in following.iter_mut().zip(&chunks).rev() {
            *i += 1;
            if *i < *n {
                next = Some(following);
                break;
            }
            *i = 0;
        }
        Some(current)
    })
}

/// A pickle without its header and its end.
fn body(pickle: &[u8]) -> &[u8] {
    let without_end = pickle.strip_suffix(b".").unwrap_or(pickle);
    match without_end {
        [0x80, _, rest @ ..] => rest,
        rest => rest,
    }
}

/// Writes the few opcodes of protocol 4 that are needed here.
struct PickleWriter {
    bytes: Vec<u8>,
}

impl Default for PickleWriter {
    fn default() -> Self {
        Self {
            bytes: vec![0x80, 5],
        }
    }
}

impl PickleWriter {
    fn raw(&mut self, opcodes: &[u8]) {
        self.bytes.extend_from_slice(opcodes);
    }

    fn text(&mut self, text: &str) {
        self.bytes.push(b'X');
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn int(&mut self, i: i64) {
        match i32::try_from(i) {
            Ok(i) => {
                self.bytes.push(b'J');
                self.bytes.extend_from_slice(&i.to_le_bytes());
            }
            Err(_) => {
                self.bytes.extend_from_slice(&[0x8a, 8]);
                self.bytes.extend_from_slice(&i.to_le_bytes());
            }
        }
    }

    fn global(&mut self, module: &str, name: &str) {
        self.bytes.push(b'c');
        self.bytes.extend_from_slice(module.as_bytes());
        self.bytes.push(b'\n');
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pickle.dumps(P2PBarrierTask(…, spec=DataFrameShuffleSpec(npartitions=6, parts_out=range(6),
    /// …)), 5)` of 2026.8.0.
    const FRAME: &[u8] = include_bytes!("vectors/frame_barrier.pickle");
    /// The same with `ArrayRechunkSpec(new=((10, 20, 30), (5, 5)), …)`.
    const ARRAY: &[u8] = include_bytes!("vectors/array_barrier.pickle");
    /// The first one of 2024.12.1, with `parts_out={0, 1, 2, 3, 4, 5}`.
    const FRAME_SLOTS: &[u8] = include_bytes!("vectors/frame_barrier_slots.pickle");
    /// The `ArrayRechunkSpec` of a request of 2024.8.0, whose `new` is a `DoNotUnpack`.
    const ARRAY_REQUEST: &[u8] = include_bytes!("vectors/array_request.pickle");

    fn spec(pickle: &'static [u8]) -> PickledSpec {
        PickledSpec::of_barrier(Bytes::from_static(pickle), Vec::new()).expect("a barrier task")
    }

    #[test]
    fn partitions_of_a_frame_go_to_workers_in_ranges() {
        for frame in [FRAME, FRAME_SLOTS] {
            let assigned = spec(frame).outputs.assign(4);
            let workers: Vec<usize> = assigned.iter().map(|(_, worker)| *worker).collect();
            assert_eq!(workers, [0, 0, 1, 2, 2, 3]);
            assert_eq!(assigned[5].0, Partition::Number(5));
        }
    }

    #[test]
    fn chunks_of_an_array_go_to_workers_evenly() {
        let request = PickledSpec::of_request(Bytes::from_static(ARRAY_REQUEST), Vec::new());
        assert_eq!(request.expect("a spec").outputs, spec(ARRAY).outputs);
        let assigned = spec(ARRAY).outputs.assign(3);
        let expected = [
            ([0, 0], 0),
            ([0, 1], 0),
            ([1, 0], 1),
            ([1, 1], 1),
            ([2, 0], 2),
            ([2, 1], 2),
        ];
        let expected = expected.map(|(at, worker)| (Partition::Position(at.to_vec()), worker));
        assert_eq!(assigned, expected);
    }

    #[test]
    fn a_run_spec_can_be_read_back() {
        for pickle in [FRAME, ARRAY, FRAME_SLOTS] {
            let spec = spec(pickle);
            let assigned = spec.outputs.assign(1);
            let worker_for: Vec<(Partition, Arc<str>)> = assigned
                .into_iter()
                .map(|(partition, _)| (partition, "tcp://a:1".into()))
                .collect();
            let (pickle, buffers) = spec.run_spec(7, Some("span"), &worker_for);
            let (arena, root) = walk(pickle.into(), buffers, Limits::default()).expect("a pickle");
            let state = arena.dict(arena.state(root).expect("state")).expect("dict");
            let field = |name: &str| {
                let found = state.iter().find(|(k, _)| arena.text(*k) == Some(name));
                found.expect(name).1
            };
            let plain = |name: &str| to_plain(&arena, field(name)).expect(name);
            assert_eq!(plain("run_id"), PlainValue::Int(7));
            assert_eq!(plain("span_id"), PlainValue::Str("span".into()));
            assert!(matches!(plain("worker_for"), PlainValue::Dict(items) if items.len() == 6));
            assert_eq!(outputs(&arena, field("spec")), Ok(spec.outputs));
        }
    }

    #[test]
    fn fields_of_a_request_describe_the_outputs() {
        let frame = |parts: &[i64]| Outputs::Frame {
            npartitions: 3,
            parts: parts.to_vec(),
        };
        let fields = Value::map([("npartitions", Value::Int(3))]);
        assert_eq!(Outputs::of_fields(&fields), Ok(Some(frame(&[0, 1, 2]))));
        let fields = Value::map([("npartitions", 3.into()), ("parts_out", Value::set([2]))]);
        assert_eq!(Outputs::of_fields(&fields), Ok(Some(frame(&[2]))));
        let new = Value::array([Value::array([10, 20]), Value::array([5])]);
        let array = Outputs::Array { chunks: vec![2, 1] };
        assert_eq!(
            Outputs::of_fields(&Value::map([("new", new)])),
            Ok(Some(array))
        );
        assert_eq!(Outputs::of_fields(&Value::Nil), Ok(None));
    }

    #[test]
    fn outputs_are_told_by_annotation_or_by_key() {
        let frame = spec(FRAME).outputs;
        let array = spec(ARRAY).outputs;
        let by_key = |outputs: &Outputs, key: &str| outputs.partition_of(&Key::from(key), None);
        assert_eq!(by_key(&frame, "('s-1', 4)"), Some(Partition::Number(4)));
        assert_eq!(
            by_key(&array, "('s-1', 4, 2)"),
            Some(Partition::Position(vec![4, 2]))
        );
        for strange in ["s-1", "('s-1',)", "('s-1', x)", "('s', 1, 2, 3)"] {
            assert_eq!(by_key(&frame, strange), None, "{strange}");
            assert_eq!(by_key(&array, strange), None, "{strange}");
        }
        let key = Key::from("fused-1");
        let of = |outputs: &Outputs, note: &Value| outputs.partition_of(&key, Some(note));
        assert_eq!(of(&frame, &3.into()), Some(Partition::Number(3)));
        assert_eq!(
            of(&array, &Value::array([0, 1])),
            Some(Partition::Position(vec![0, 1]))
        );
        assert_eq!(of(&frame, &Value::Nil), None);
    }

    #[test]
    fn other_tasks_are_no_barriers() {
        for pickle in [&b"N."[..], b"cos\nsystem\n(Vls\ntR.", b"", b"\x80\x05]."] {
            let spec = PickledSpec::of_barrier(Bytes::copy_from_slice(pickle), Vec::new());
            assert!(spec.is_err(), "{pickle:?}");
        }
    }

    #[test]
    fn absurd_numbers_of_partitions_are_refused() {
        assert_eq!(range(0, i64::MAX, 1), Err(SpecError::TooMany));
        assert_eq!(range(0, 5, 2), Ok(vec![0, 2, 4]));
        assert_eq!(range(3, 0, -1), Ok(vec![3, 2, 1]));
        assert_eq!(range(0, 5, 0), Ok(vec![]));
    }
}
