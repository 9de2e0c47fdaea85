//! Graphs that only Python can expand: what is asked and what comes back.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use oxidask_key::Key;
use oxidask_wire::message::worker::{LegacySpec, RunSpec};
use oxidask_wire::payload::Payload;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;
use serde::{Deserialize, Serialize};

use super::error::{HostError, Raised};
use super::frames::Message;

/// Parts of at least this many bytes travel as frames of their own (`LARGE_PART` in `expand.py`).
const LARGE_PART: usize = 1 << 16;

/// A graph to expand.
#[derive(Clone, Debug)]
pub struct ExpandRequest {
    /// As submitted.
    pub graph: SubmittedGraph,
    /// The outputs wanted; tasks they do not need are left out.
    pub keys: Vec<Key>,
    /// The message-wide `annotations`: a pickle, then its out-of-band buffers.
    pub annotations: Vec<Bytes>,
    /// Release of `distributed` that the client runs.
    pub release: Release,
}

/// The forms a graph arrives in.
#[derive(Clone, Debug)]
pub enum SubmittedGraph {
    /// `expr_ser` (since 2025.4.0): the header of the serialised value as msgpack, and its frames.
    Expression {
        /// msgpack.
        header: Bytes,
        /// The pickle, then its out-of-band buffers.
        frames: Vec<Bytes>,
    },
    /// `graph_header` and `graph_frames` (2023.4.0 to 2025.3.1).
    Hlg {
        /// msgpack.
        header: Bytes,
        /// The pickle, then its out-of-band buffers.
        frames: Vec<Bytes>,
    },
    /// Packed layers (2020.12.0 to 2023.3.2.1): the frames of a message `{hlg: …}` as a server of the
    /// client's release would write it.
    Layers {
        /// msgpack with inline markers, then sub-headers and payloads.
        frames: Vec<Bytes>,
    },
}

impl SubmittedGraph {
    fn form(&self) -> &'static str {
        match self {
            Self::Expression { .. } => "expression",
            Self::Hlg { .. } => "hlg",
            Self::Layers { .. } => "layers",
        }
    }

    fn frames(&self) -> Vec<Bytes> {
        match self {
            Self::Expression { header, frames } | Self::Hlg { header, frames } => {
                std::iter::once(header).chain(frames).cloned().collect()
            }
            Self::Layers { frames } => frames.clone(),
        }
    }
}

/// The tasks of a graph, culled to the wanted keys, in no particular order.
#[derive(Clone, Debug)]
pub struct ExpandedGraph {
    /// The tasks.
    pub tasks: Vec<ExpandedTask>,
    /// Annotations; tasks point into this.
    pub annotations: Vec<Arc<Annotations>>,
}

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpandedTask {
    /// Name.
    pub key: Key,
    /// What a worker of the client's release is sent to run.
    pub run_spec: RunSpec,
    /// Tasks of this or earlier graphs whose results it needs.
    pub dependencies: Vec<Key>,
    /// Index into [`ExpandedGraph::annotations`].
    pub annotations: Option<usize>,
}

/// Annotations that one or more tasks have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    /// Larger runs first.
    pub priority: Option<f64>,
    /// Addresses, names or hosts as the user wrote them.
    pub workers: Option<Vec<String>>,
    /// The restriction to `workers` is a wish only.
    pub allow_other_workers: bool,
    /// How often to try again.
    pub retries: u32,
    /// Abstract resources needed.
    pub resources: Vec<(String, f64)>,
    /// The whole map as the frames of a message of the client's release.
    pub encoded: Vec<Bytes>,
}

#[derive(Serialize)]
struct RequestHeader<'a> {
    id: u64,
    op: &'static str,
    graph: &'static str,
    keys: &'a [Key],
    frames: FrameCounts,
}

#[derive(Serialize)]
struct FrameCounts {
    graph: usize,
}

/// The request as a message.
pub(super) fn encode_request(request: &ExpandRequest) -> Result<Message, HostError> {
    let mut frames = request.graph.frames();
    let header = RequestHeader {
        id: 1,
        op: "expand",
        graph: request.graph.form(),
        keys: &request.keys,
        frames: FrameCounts {
            graph: frames.len(),
        },
    };
    frames.extend(request.annotations.iter().cloned());
    Ok(Message {
        header: encode_header(&header)?,
        frames,
    })
}

/// A header as msgpack map.
pub(super) fn encode_header(header: &impl Serialize) -> Result<Bytes, HostError> {
    rmp_serde::to_vec_named(header)
        .map(Bytes::from)
        .map_err(|error| HostError::garbage("request", error))
}

/// What every answer says; the rest is read once `status` is known.
#[derive(Deserialize)]
pub(super) struct Status {
    pub(super) status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    traceback: String,
}

/// Sorts out answers that report an exception.
pub(super) fn check_status(
    answer: Message,
    host: &str,
    release: Release,
) -> Result<Message, HostError> {
    let status: Status =
        rmp_serde::from_slice(&answer.header).map_err(|error| HostError::garbage(host, error))?;
    if status.status == "OK" {
        return Ok(answer);
    }
    Err(HostError::Raised(Box::new(Raised {
        text: status.error,
        traceback: status.traceback,
        message: answer.frames,
        release,
    })))
}

#[derive(Deserialize)]
struct AnswerHeader {
    tasks: usize,
    large: usize,
    annotations: Vec<AnnotationFacts>,
}

#[derive(Deserialize)]
struct AnnotationFacts {
    priority: Option<f64>,
    workers: Option<Vec<String>>,
    #[serde(default)]
    allow_other_workers: bool,
    #[serde(default)]
    retries: u32,
    #[serde(default)]
    resources: std::collections::BTreeMap<String, f64>,
    frames: usize,
}

/// Reads an answer whose status is `OK`; the layout is described at `_answer` in `expand.py`.
pub(super) fn decode_answer(answer: Message, host: &str) -> Result<ExpandedGraph, HostError> {
    let garbage = |reason: &str| HostError::garbage(host, reason);
    let header: AnswerHeader =
        rmp_serde::from_slice(&answer.header).map_err(|error| HostError::garbage(host, error))?;
    let mut frames = answer.frames.into_iter();
    let mut next = || frames.next().ok_or_else(|| garbage("too few frames"));
    let keys: Vec<Key> =
        rmp_serde::from_slice(&next()?).map_err(|error| HostError::garbage(host, error))?;
    if keys.len() < header.tasks {
        return Err(garbage("fewer keys than tasks"));
    }
    let kinds = next()?;
    let mut counts = Numbers(next()?);
    let lengths = Numbers(next()?);
    let mut starts = Numbers(next()?);
    let mut dependencies = Numbers(next()?);
    let mut sets = Numbers(next()?);
    let small = next()?;
    let large: Vec<Bytes> = frames.by_ref().take(header.large).collect();
    let mut parts = Parts {
        lengths,
        small,
        large: large.into_iter(),
    };
    let annotations = read_annotations(header.annotations, &mut frames)
        .ok_or_else(|| garbage("too few frames of annotations"))?;
    let short = || garbage("a table of the graph is too short");
    let mut start = starts.u32().ok_or_else(short)?;
    let mut tasks = Vec::new();
    for key in keys.iter().take(header.tasks) {
        let kind = *kinds.get(tasks.len()).ok_or_else(short)?;
        let count = counts.u32().ok_or_else(short)?;
        let run_spec = parts
            .run_spec(kind, count)
            .ok_or_else(|| garbage("a run spec is incomplete"))?;
        let end = starts.u32().ok_or_else(short)?;
        let needs = (start..end)
            .map(|_| {
                let index = dependencies.u32()? as usize;
                keys.get(index).cloned()
            })
            .collect::<Option<_>>()
            .ok_or_else(|| garbage("a dependency points nowhere"))?;
        start = end;
        let set = if sets.0.is_empty() {
            Some(0)
        } else {
            sets.u32()
        };
        let set = (set.ok_or_else(short)? as usize).checked_sub(1);
        if set.is_some_and(|set| set >= annotations.len()) {
            return Err(garbage("an annotation set does not exist"));
        }
        tasks.push(ExpandedTask {
            key: key.clone(),
            run_spec,
            dependencies: needs,
            annotations: set,
        });
    }
    Ok(ExpandedGraph { tasks, annotations })
}

fn read_annotations(
    facts: Vec<AnnotationFacts>,
    frames: &mut impl Iterator<Item = Bytes>,
) -> Option<Vec<Arc<Annotations>>> {
    facts
        .into_iter()
        .map(|facts| {
            let encoded: Vec<Bytes> = frames.by_ref().take(facts.frames).collect();
            (encoded.len() == facts.frames).then(|| {
                Arc::new(Annotations {
                    priority: facts.priority,
                    workers: facts.workers,
                    allow_other_workers: facts.allow_other_workers,
                    retries: facts.retries,
                    resources: facts.resources.into_iter().collect(),
                    encoded,
                })
            })
        })
        .collect()
}

/// A packed table of little-endian numbers.
struct Numbers(Bytes);

impl Numbers {
    fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32_le().ok()
    }

    fn length(&mut self) -> Option<usize> {
        self.0.try_get_u64_le().ok()?.try_into().ok()
    }
}

/// The parts of run specs, in order.
struct Parts {
    lengths: Numbers,
    small: Bytes,
    large: std::vec::IntoIter<Bytes>,
}

impl Parts {
    fn next(&mut self) -> Option<Bytes> {
        let length = self.lengths.length()?;
        if length >= LARGE_PART {
            return self.large.next().filter(|part| part.len() == length);
        }
        (length <= self.small.len()).then(|| self.small.split_to(length))
    }

    fn run_spec(&mut self, kind: u8, count: u32) -> Option<RunSpec> {
        let first = self.next()?;
        let mut rest = self.several(count.checked_sub(1)?)?;
        Some(match kind {
            0 => RunSpec::pickled(&first[..], rest),
            1 => {
                let mut rest = rest.drain(..);
                let parts = LegacySpec::Parts {
                    function: first,
                    args: rest.next(),
                    kwargs: rest.next(),
                };
                parts.into()
            }
            2 => {
                let task = Payload::serialized(Value::decode(&first).ok()?, rest);
                LegacySpec::Serialized(Arc::new(task)).into()
            }
            _ => return None,
        })
    }

    fn several(&mut self, count: u32) -> Option<Vec<Bytes>> {
        (0..count).map(|_| self.next()).collect()
    }
}
