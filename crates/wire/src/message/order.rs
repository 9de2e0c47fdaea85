//! What schedulers of any release say on a worker's stream, read tolerantly: the other end of what
//! [`crate::dialect`] composes.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use serde::Deserialize;

use super::fields::{decode, keys, pairs};
use super::{Item, Message};
use crate::error::DecodeError;
use crate::value::Value;

/// Scheduler → worker, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Run a task.
    ComputeTask(Box<ComputeOrder>),
    /// Forget tasks and results: `free-keys`, before 2021.06.1 `delete-data` and `release-task`, and
    /// `superfluous-data`.
    FreeKeys {
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: Arc<str>,
    },
    /// Do not begin the task (2021.07.2 – 2022.10).
    CancelCompute {
        /// Which.
        key: Key,
        /// Cause.
        stimulus_id: Arc<str>,
    },
    /// Drop copies unless needed.
    RemoveReplicas {
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: Arc<str>,
    },
    /// Fetch copies.
    AcquireReplicas {
        /// What, where, how large.
        replicas: Vec<Input>,
        /// Cause.
        stimulus_id: Arc<str>,
    },
    /// Answer to `request-refresh-who-has`.
    RefreshWhoHas {
        /// Addresses of the holders of each key.
        who_has: Vec<(Key, Vec<Arc<str>>)>,
        /// Cause.
        stimulus_id: Arc<str>,
    },
    /// Give a task back.
    StealRequest {
        /// Which.
        key: Key,
        /// Repeated in the answer.
        stimulus_id: Arc<str>,
    },
    /// Change status.
    StatusChange {
        /// Stock's spelling.
        status: String,
        /// Cause.
        stimulus_id: Arc<str>,
    },
    /// Another worker left.
    RemoveWorker {
        /// Its address.
        worker: Arc<str>,
        /// Cause.
        stimulus_id: Arc<str>,
    },
    /// Shut down.
    Close {
        /// Why (sent since 2022.10.1).
        reason: Option<String>,
    },
    /// End of the stream.
    CloseStream,
    /// Anything else: handlers of extensions and plugins.
    Other {
        /// Its name.
        op: String,
        /// The map, payloads bound.
        fields: Value,
    },
}

/// Data that a task needs, or that is to be fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub key: Key,
    /// Addresses of its holders.
    pub who_has: Vec<Arc<str>>,
    /// Size in bytes, if told.
    pub nbytes: Option<u64>,
}

/// `compute-task`.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputeOrder {
    /// Which task.
    pub key: Key,
    /// Which assignment (since 2023.1.1).
    pub run_id: Option<i64>,
    /// The smaller runs first; missing parts are 0.
    pub priority: [f64; 3],
    /// What it needs.
    pub inputs: Vec<Input>,
    /// What to run.
    pub run_spec: OrderedSpec,
    /// Abstract resources it takes.
    pub resource_restrictions: Vec<(Arc<str>, f64)>,
    /// Whether the result is an actor.
    pub actor: bool,
    /// A map, or nil.
    pub annotations: Value,
    /// Since 2023.6.0.
    pub span_id: Option<Arc<str>>,
    /// Cause (since 2021.10.0).
    pub stimulus_id: Arc<str>,
}

/// What a task runs, as its worker gets it.
#[derive(Clone, Debug, PartialEq)]
pub enum OrderedSpec {
    /// A pickle (since 2023.8.1).
    Pickled {
        /// The stream.
        pickle: Bytes,
        /// Buffers in the order the stream asks for them.
        buffers: Vec<Bytes>,
    },
    /// Older forms: a map with `function`, `args`, `kwargs`, `run_spec` (≤ 2022.05.2: `task`) as sent,
    /// payloads bound.
    Parts(Value),
}

#[derive(Deserialize)]
struct RawCompute<'a> {
    key: Key,
    #[serde(default)]
    run_id: Option<i64>,
    #[serde(default)]
    priority: Option<Vec<f64>>,
    #[serde(default, deserialize_with = "pairs")]
    who_has: Vec<(Key, Vec<Arc<str>>)>,
    #[serde(default, deserialize_with = "pairs")]
    nbytes: Vec<(Key, u64)>,
    #[serde(default)]
    run_spec: Value,
    #[serde(default)]
    function: Value,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    kwargs: Value,
    #[serde(default)]
    task: Value,
    #[serde(default, deserialize_with = "pairs")]
    resource_restrictions: Vec<(Arc<str>, f64)>,
    #[serde(default)]
    actor: Option<bool>,
    #[serde(default)]
    annotations: Value,
    #[serde(default, borrow)]
    span_id: Option<&'a str>,
    #[serde(default, borrow)]
    stimulus_id: Option<&'a str>,
}

/// The small messages, whose fields are a subset of these.
#[derive(Deserialize)]
struct Small<'a> {
    #[serde(default)]
    key: Option<Key>,
    #[serde(default, deserialize_with = "keys")]
    keys: Vec<Key>,
    #[serde(default, deserialize_with = "pairs")]
    who_has: Vec<(Key, Vec<Arc<str>>)>,
    #[serde(default, deserialize_with = "pairs")]
    nbytes: Vec<(Key, u64)>,
    #[serde(default, borrow)]
    status: Option<&'a str>,
    #[serde(default, borrow)]
    worker: Option<&'a str>,
    #[serde(default, borrow)]
    reason: Option<&'a str>,
    #[serde(default, borrow)]
    stimulus_id: Option<&'a str>,
}

impl Order {
    /// Reads one item of the stream. `limit`: bytes of a run spec that may be produced anew by
    /// decompressing and joining.
    pub fn decode(item: &Item<'_>, limit: usize) -> Result<Self, DecodeError> {
        match item.op {
            "compute-task" => return compute(item, limit).map(Self::ComputeTask),
            "close-stream" => return Ok(Self::CloseStream),
            "free-keys"
            | "delete-data"
            | "release-task"
            | "superfluous-data"
            | "cancel-compute"
            | "remove-replicas"
            | "acquire-replicas"
            | "refresh-who-has"
            | "steal-request"
            | "worker-status-change"
            | "remove-worker"
            | "close" => {}
            op => {
                return Ok(Self::Other {
                    op: op.to_owned(),
                    fields: item.value()?,
                });
            }
        }
        let small: Small<'_> = decode(item)?;
        // Up to 2021.09.1 `reason` stands where `stimulus_id` does later.
        let stimulus_id: Arc<str> = small.stimulus_id.or(small.reason).unwrap_or(item.op).into();
        let one = |key: Option<Key>| key.ok_or(DecodeError::Missing("key"));
        Ok(match item.op {
            "cancel-compute" => Self::CancelCompute {
                key: one(small.key)?,
                stimulus_id,
            },
            "remove-replicas" => Self::RemoveReplicas {
                keys: small.keys,
                stimulus_id,
            },
            "acquire-replicas" => Self::AcquireReplicas {
                replicas: inputs(small.who_has, small.nbytes),
                stimulus_id,
            },
            "refresh-who-has" => Self::RefreshWhoHas {
                who_has: small.who_has,
                stimulus_id,
            },
            "steal-request" => Self::StealRequest {
                key: one(small.key)?,
                stimulus_id,
            },
            "worker-status-change" => Self::StatusChange {
                status: small
                    .status
                    .ok_or(DecodeError::Missing("status"))?
                    .to_owned(),
                stimulus_id,
            },
            "remove-worker" => Self::RemoveWorker {
                worker: small.worker.ok_or(DecodeError::Missing("worker"))?.into(),
                stimulus_id,
            },
            "close" => Self::Close {
                reason: small.reason.map(str::to_owned),
            },
            _ => Self::FreeKeys {
                keys: small.keys.into_iter().chain(small.key).collect(),
                stimulus_id,
            },
        })
    }
}

fn compute(item: &Item<'_>, limit: usize) -> Result<Box<ComputeOrder>, DecodeError> {
    let raw: RawCompute<'_> = decode(item)?;
    let mut priority = [0.0; 3];
    for (slot, given) in priority.iter_mut().zip(raw.priority.unwrap_or_default()) {
        *slot = given;
    }
    let parts = [
        ("function", raw.function),
        ("args", raw.args),
        ("kwargs", raw.kwargs),
        ("task", raw.task),
    ];
    Ok(Box::new(ComputeOrder {
        key: raw.key,
        run_id: raw.run_id,
        priority,
        inputs: inputs(raw.who_has, raw.nbytes),
        run_spec: spec(item.message, raw.run_spec, parts, limit)?,
        resource_restrictions: raw.resource_restrictions,
        actor: raw.actor.unwrap_or(false),
        annotations: item.message.bind(raw.annotations)?,
        span_id: raw.span_id.map(Into::into),
        stimulus_id: raw.stimulus_id.unwrap_or(item.op).into(),
    }))
}

fn spec(
    message: &Message,
    run_spec: Value,
    parts: [(&'static str, Value); 4],
    limit: usize,
) -> Result<OrderedSpec, DecodeError> {
    if let Value::Map(entries) = &run_spec
        && let [(Value::Str(name), Value::Int(index))] = entries.as_slice()
        && name == "__Pickled__"
        && let Some((pickle, buffers)) = message.payload_at(*index)?.as_pickle(limit)?
    {
        return Ok(OrderedSpec::Pickled { pickle, buffers });
    }
    let parts = parts.into_iter().chain([("run_spec", run_spec)]);
    let present = parts.filter(|(_, part)| !part.is_nil());
    message.bind(Value::map(present)).map(OrderedSpec::Parts)
}

fn inputs(who_has: Vec<(Key, Vec<Arc<str>>)>, nbytes: Vec<(Key, u64)>) -> Vec<Input> {
    let sizes: std::collections::HashMap<Key, u64> = nbytes.into_iter().collect();
    let input = |(key, who_has)| Input {
        nbytes: sizes.get(&key).copied(),
        key,
        who_has,
    };
    who_has.into_iter().map(input).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::message::worker::{ComputeTask, LegacySpec, RunSpec, ToWorker};
    use crate::release::Release;

    const LIMIT: usize = 1 << 20;

    fn orders(release: Release, batch: &[ToWorker<'_>]) -> Vec<Order> {
        let message = Dialect::for_release(&release).encode_worker_batch(batch);
        let items = message.items().map(|item| item.expect("valid"));
        items
            .map(|item| Order::decode(&item, LIMIT).expect("read"))
            .collect()
    }

    fn task<'a>(
        key: &'a Key,
        spec: &'a RunSpec,
        input: &'a [(Key, Vec<Arc<str>>)],
    ) -> ToWorker<'a> {
        ToWorker::ComputeTask(ComputeTask {
            key,
            run_id: 7,
            priority: [-1.0, 2.0, 3.5],
            duration: 0.5,
            run_spec: spec,
            unproven: false,
            who_has: input,
            nbytes: &[],
            resource_restrictions: &[],
            actor: false,
            annotations: None,
            span_id: Some("span"),
            stimulus_id: "s",
        })
    }

    #[test]
    fn a_task_is_read_as_every_release_writes_it() {
        let key = Key::from("x");
        let input = [(Key::from("y"), vec![Arc::from("tcp://a:1")])];
        let pickled = RunSpec::pickled(&b"pickle"[..], vec![Bytes::from("buffer")]);
        let parts = RunSpec::from(LegacySpec::Parts {
            function: "f".into(),
            args: Some("a".into()),
            kwargs: None,
        });
        for (release, spec) in [
            (Release::new(2, 30, 1), &parts),
            (Release::new(2022, 6, 0), &parts),
            (Release::new(2022, 12, 0), &parts),
            (Release::new(2024, 12, 1), &pickled),
            (Release::NEWEST, &pickled),
        ] {
            let read = orders(release, &[task(&key, spec, &input)]);
            let [Order::ComputeTask(order)] = read.as_slice() else {
                panic!("{release}: {read:?}");
            };
            assert_eq!(order.key, key, "{release}");
            assert_eq!(order.priority, [-1.0, 2.0, 3.5], "{release}");
            assert_eq!(order.inputs[0].key, input[0].0, "{release}");
            assert_eq!(order.inputs[0].who_has, input[0].1, "{release}");
            match &order.run_spec {
                OrderedSpec::Pickled { pickle, buffers } => {
                    assert_eq!((&pickle[..], buffers.len()), (b"pickle".as_slice(), 1));
                }
                OrderedSpec::Parts(parts) => {
                    let one_map = parts.get("run_spec").unwrap_or(parts);
                    let function = one_map.get("function").and_then(Value::as_bin);
                    assert_eq!(function, Some(&Bytes::from("f")), "{release}");
                }
            }
        }
    }

    #[test]
    fn the_other_orders_are_read_in_all_spellings() {
        let keys = [Key::from("x"), Key::Int(1)];
        for release in [
            Release::new(2, 30, 1),
            Release::new(2021, 7, 0),
            Release::NEWEST,
        ] {
            let batch = [
                ToWorker::FreeKeys {
                    keys: &keys,
                    stimulus_id: "s",
                },
                ToWorker::StealRequest {
                    key: &keys[0],
                    stimulus_id: "steal",
                },
                ToWorker::Close { reason: "done" },
                ToWorker::CloseStream,
            ];
            let read = orders(release, &batch);
            let freed: Vec<&Key> = read
                .iter()
                .filter_map(|order| match order {
                    Order::FreeKeys { keys, .. } => Some(keys),
                    _ => None,
                })
                .flatten()
                .collect();
            assert!(keys.iter().all(|key| freed.contains(&key)), "{release}");
            let [
                ..,
                Order::StealRequest { .. },
                Order::Close { .. },
                Order::CloseStream,
            ] = read.as_slice()
            else {
                panic!("{release}: {read:?}");
            };
        }
        let who_has = [(keys[0].clone(), vec![Arc::from("tcp://a:1")])];
        let batch = [
            ToWorker::AcquireReplicas {
                who_has: &who_has,
                nbytes: &[(keys[0].clone(), 9)],
                stimulus_id: "a",
            },
            ToWorker::RefreshWhoHas {
                who_has: &[(keys[0].clone(), Vec::new())],
                stimulus_id: "r",
            },
            ToWorker::RemoveReplicas {
                keys: &keys,
                stimulus_id: "d",
            },
            ToWorker::StatusChange {
                status: "paused",
                stimulus_id: "p",
            },
            ToWorker::RemoveWorker {
                worker: "tcp://a:1",
                stimulus_id: "w",
            },
        ];
        let read = orders(Release::NEWEST, &batch);
        let input = Input {
            key: keys[0].clone(),
            who_has: who_has[0].1.clone(),
            nbytes: Some(9),
        };
        assert_eq!(
            read,
            [
                Order::AcquireReplicas {
                    replicas: vec![input],
                    stimulus_id: "a".into()
                },
                Order::RefreshWhoHas {
                    who_has: vec![(keys[0].clone(), Vec::new())],
                    stimulus_id: "r".into()
                },
                Order::RemoveReplicas {
                    keys: keys.to_vec(),
                    stimulus_id: "d".into()
                },
                Order::StatusChange {
                    status: "paused".into(),
                    stimulus_id: "p".into()
                },
                Order::RemoveWorker {
                    worker: "tcp://a:1".into(),
                    stimulus_id: "w".into()
                },
            ]
        );
    }
}
