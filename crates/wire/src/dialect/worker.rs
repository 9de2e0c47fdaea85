//! Composing the stream operations of workers.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;

use super::guard::guarded;
use super::{
    AcquireForm, CloseForm, Dialect, FreeKeysForm, RunSpecFields, begin_batch, finish_batch,
};
use crate::message::worker::{ComputeTask, LegacySpec, Pickle, RunSpec, ToWorker, WhoHas};
use crate::message::{Composer, Message};
use crate::msgpack::Writer;
use crate::payload::Payload;
use crate::value::Value;

impl Dialect {
    /// One transport message for a worker of this release. What the release has no operation for is
    /// left out; so is a task whose run spec it cannot run ([`Self::accepts`]), which the caller
    /// should have refused before.
    pub fn encode_worker_batch(&self, batch: &[ToWorker<'_>]) -> Message {
        let mut composer = begin_batch();
        let mut count = 0;
        for item in batch {
            count += self.worker_item(&mut composer, item);
        }
        finish_batch(composer, count)
    }

    /// Whether workers of this release can run such a spec: the three parts and serialised tasks
    /// until 2023.8.0, pickles since.
    pub fn accepts(&self, run_spec: &RunSpec) -> bool {
        let wants_pickle = self.run_spec == RunSpecFields::Pickle;
        wants_pickle == matches!(run_spec, RunSpec::Pickled { .. })
    }

    /// Appends one operation; returns how many messages it became.
    fn worker_item(&self, c: &mut Composer, item: &ToWorker<'_>) -> u32 {
        match item {
            ToWorker::ComputeTask(task) => return u32::from(self.compute_task(c, task)),
            ToWorker::FreeKeys { keys, stimulus_id }
                if self.free_keys == FreeKeysForm::DeleteData =>
            {
                // `delete-data` alone would make the worker report tasks that it had not finished;
                // `release-task` lets go of them in silence.
                for key in *keys {
                    op(&mut c.out, "release-task", 1);
                    c.out.str("key");
                    c.out.key(key);
                }
                self.free_keys(&mut c.out, "", "", keys, stimulus_id);
                return u32::try_from(keys.len())
                    .unwrap_or(u32::MAX)
                    .saturating_add(1);
            }
            ToWorker::FreeKeys { keys, stimulus_id } => {
                self.free_keys(&mut c.out, "free-keys", "free-keys", keys, stimulus_id);
            }
            ToWorker::RemoveReplicas { keys, stimulus_id } => {
                self.free_keys(
                    &mut c.out,
                    "remove-replicas",
                    "superfluous-data",
                    keys,
                    stimulus_id,
                );
            }
            ToWorker::AcquireReplicas {
                who_has,
                nbytes,
                stimulus_id,
            } => {
                return u32::from(self.acquire_replicas(&mut c.out, who_has, nbytes, stimulus_id));
            }
            ToWorker::RefreshWhoHas {
                who_has,
                stimulus_id,
            } if self.refresh_who_has => {
                let w = &mut c.out;
                op(w, "refresh-who-has", 2);
                w.str("who_has");
                who_has_map(w, who_has);
                text(w, "stimulus_id", stimulus_id);
            }
            ToWorker::StealRequest { key, stimulus_id } => {
                let w = &mut c.out;
                op(w, "steal-request", 1 + usize::from(self.steal_stimulus_id));
                w.str("key");
                w.key(key);
                if self.steal_stimulus_id {
                    text(w, "stimulus_id", stimulus_id);
                }
            }
            ToWorker::StatusChange {
                status,
                stimulus_id,
            } if self.status_change => {
                let w = &mut c.out;
                op(
                    w,
                    "worker-status-change",
                    1 + usize::from(self.status_change_stimulus_id),
                );
                text(w, "status", status);
                if self.status_change_stimulus_id {
                    text(w, "stimulus_id", stimulus_id);
                }
            }
            ToWorker::RemoveWorker {
                worker,
                stimulus_id,
            } if self.remove_worker => {
                let w = &mut c.out;
                op(w, "remove-worker", 2);
                text(w, "worker", worker);
                text(w, "stimulus_id", stimulus_id);
            }
            ToWorker::Close { reason } => self.close(&mut c.out, reason),
            ToWorker::CloseStream => op(&mut c.out, "close-stream", 0),
            ToWorker::Other(value) => c.value(value),
            ToWorker::RefreshWhoHas { .. }
            | ToWorker::StatusChange { .. }
            | ToWorker::RemoveWorker { .. } => return 0,
        }
        1
    }

    fn free_keys(&self, w: &mut Writer, new: &str, middle: &str, keys: &[Key], stimulus_id: &str) {
        match self.free_keys {
            FreeKeysForm::StimulusId => op(w, new, 2),
            FreeKeysForm::Reason => op(w, middle, 2),
            FreeKeysForm::DeleteData => op(w, "delete-data", 2),
        }
        w.str("keys");
        w.keys(keys);
        match self.free_keys {
            FreeKeysForm::StimulusId => text(w, "stimulus_id", stimulus_id),
            FreeKeysForm::Reason => text(w, "reason", stimulus_id),
            FreeKeysForm::DeleteData => {
                w.str("report");
                w.bool(false);
            }
        }
    }

    fn acquire_replicas(
        &self,
        w: &mut Writer,
        who_has: WhoHas<'_>,
        nbytes: &[(Key, u64)],
        stimulus_id: &str,
    ) -> bool {
        let fields = match self.acquire {
            AcquireForm::Unknown => return false,
            AcquireForm::KeysAndPriorities => 4,
            AcquireForm::Keys | AcquireForm::NBytes => 3,
            AcquireForm::WhoHas => 2,
        };
        op(w, "acquire-replicas", fields);
        if matches!(
            self.acquire,
            AcquireForm::Keys | AcquireForm::KeysAndPriorities
        ) {
            w.str("keys");
            w.array(who_has.len());
            who_has.iter().for_each(|(key, _)| w.key(key));
        }
        if self.acquire == AcquireForm::KeysAndPriorities {
            w.str("priorities");
            w.map(who_has.len());
            for (key, _) in who_has {
                w.key(key);
                w.array(1);
                w.int(0);
            }
        }
        w.str("who_has");
        who_has_map(w, who_has);
        if self.acquire == AcquireForm::NBytes {
            w.str("nbytes");
            nbytes_map(w, nbytes);
        }
        text(w, "stimulus_id", stimulus_id);
        true
    }

    fn close(&self, w: &mut Writer, reason: &str) {
        match self.close {
            CloseForm::Bare => op(w, "close", 0),
            CloseForm::Reason => {
                op(w, "close", 1);
                text(w, "reason", reason);
            }
            CloseForm::Report => {
                op(w, "close", 1);
                w.str("report");
                w.bool(false);
            }
        }
    }

    fn compute_task(&self, c: &mut Composer, task: &ComputeTask<'_>) -> bool {
        if !self.accepts(task.run_spec) {
            tracing::error!(
                key = %task.key, release = %self.release,
                "the run spec of this task is not one of the worker's release; not sent"
            );
            return false;
        }
        let all = self.compute_all_fields;
        let who_has = self.compute_who_has_always || !task.who_has.is_empty();
        let nbytes = self.compute_nbytes_always || !task.who_has.is_empty();
        let restrictions = all || !task.resource_restrictions.is_empty();
        let actor = all || task.actor;
        let annotations = all || (self.compute_annotations && task.annotations.is_some());
        let optional = [
            self.compute_duration,
            self.compute_stimulus_id,
            self.compute_run_id,
            self.compute_span_id,
            who_has,
            nbytes,
            restrictions,
            actor,
            annotations,
        ];
        let fields = 2 + optional.iter().filter(|present| **present).count();
        let w = &mut c.out;
        op(
            w,
            "compute-task",
            fields + self.run_spec_fields(task.run_spec),
        );
        w.str("key");
        w.key(task.key);
        w.str("priority");
        w.array(task.priority.len());
        task.priority.iter().for_each(|p| number(w, *p));
        if self.compute_duration {
            w.str("duration");
            w.float(task.duration);
        }
        if self.compute_stimulus_id {
            text(w, "stimulus_id", task.stimulus_id);
        }
        if self.compute_run_id {
            w.str("run_id");
            w.int(task.run_id);
        }
        if who_has {
            w.str("who_has");
            who_has_map(w, task.who_has);
        }
        if nbytes {
            w.str("nbytes");
            nbytes_map(w, task.nbytes);
        }
        if restrictions {
            w.str("resource_restrictions");
            w.map(task.resource_restrictions.len());
            for (name, amount) in task.resource_restrictions {
                w.str(name);
                number(w, *amount);
            }
        }
        if actor {
            w.str("actor");
            w.bool(task.actor);
        }
        if annotations {
            w.str("annotations");
            match task.annotations {
                Some(map) => w.raw(map),
                None => w.map(0),
            }
        }
        if self.compute_span_id {
            w.str("span_id");
            optional_text(w, task.span_id);
        }
        self.run_spec(c, task.run_spec, task.unproven);
        true
    }

    /// How many fields [`Self::run_spec`] writes.
    fn run_spec_fields(&self, spec: &RunSpec) -> usize {
        match (self.run_spec, Form::of(spec)) {
            (RunSpecFields::PartsOrTask, Form::Call(call)) => call.parts().count(),
            (RunSpecFields::All, _) => 4,
            _ => 1,
        }
    }

    fn run_spec(&self, c: &mut Composer, spec: &RunSpec, unproven: bool) {
        match (self.run_spec, Form::of(spec)) {
            (_, Form::Pickled(pickle, buffers)) if unproven => {
                let pickle = guarded(pickle, buffers.len(), self.task_form);
                c.out.str("run_spec");
                c.payload(&Payload::pickled(pickle, buffers.to_vec()).into());
            }
            (_, Form::Pickled(pickle, buffers)) => {
                c.out.str("run_spec");
                let payload = Payload::pickled_in_pieces(pickle.pieces(), buffers.to_vec());
                c.payload(&payload.into());
            }
            (RunSpecFields::Pickle, _) => {
                // Refused by `accepts`; nil keeps the count of fields right.
                c.out.str("run_spec");
                c.out.nil();
            }
            (RunSpecFields::PartsOrTask, Form::Call(call)) => self.call(c, &call),
            (RunSpecFields::OneMap, Form::Call(call)) => {
                c.out.str("run_spec");
                c.out.map(call.parts().count());
                self.call(c, &call);
            }
            (RunSpecFields::All, Form::Call(call)) => {
                c.out.str("run_spec");
                c.out.nil();
                self.call(c, &call);
                for (name, part) in call.0 {
                    if part.is_none() {
                        c.out.str(name);
                        c.out.nil();
                    }
                }
            }
            (fields, Form::Task(task)) => {
                if fields == RunSpecFields::All {
                    for name in CALL {
                        c.out.str(name);
                        c.out.nil();
                    }
                }
                c.out.str(match fields {
                    RunSpecFields::PartsOrTask => "task",
                    _ => "run_spec",
                });
                self.part(c, &task);
            }
        }
    }

    fn call(&self, c: &mut Composer, call: &Call<'_>) {
        for (name, part) in call.parts() {
            c.out.str(name);
            self.part(c, part);
        }
    }

    fn part(&self, c: &mut Composer, part: &Part<'_>) {
        match part {
            Part::Bytes(bytes) => c.out.bin(bytes),
            Part::Payload(payload) => self.payload(c, payload),
            Part::Value(value) => c.value(value),
        }
    }
}

/// Names of the parts of a call.
const CALL: [&str; 3] = ["function", "args", "kwargs"];

/// A run spec as the forms on the wire tell them apart.
enum Form<'a> {
    Call(Call<'a>),
    Task(Part<'a>),
    Pickled(&'a Pickle, &'a [Bytes]),
}

/// Function, arguments, keyword arguments; what is absent is not sent, or as nil.
struct Call<'a>([(&'static str, Option<Part<'a>>); 3]);

enum Part<'a> {
    Bytes(&'a [u8]),
    Payload(&'a Arc<Payload>),
    Value(&'a Value),
}

impl<'a> Form<'a> {
    fn of(spec: &'a RunSpec) -> Self {
        let value = |value: &'a Value| (!value.is_nil()).then_some(Part::Value(value));
        let call = |function: &'a Bytes, args, kwargs| {
            let [first, second, third] = CALL;
            let function = Some(Part::Bytes(function));
            Self::Call(Call([(first, function), (second, args), (third, kwargs)]))
        };
        let legacy = match spec {
            RunSpec::Pickled { pickle, buffers } => return Self::Pickled(pickle, buffers),
            RunSpec::Legacy(legacy) => &**legacy,
        };
        match legacy {
            LegacySpec::Parts {
                function,
                args,
                kwargs,
            } => {
                let bytes = |part: &'a Option<Bytes>| part.as_deref().map(Part::Bytes);
                call(function, bytes(args), bytes(kwargs))
            }
            LegacySpec::Call {
                function,
                args,
                kwargs,
            } => call(function, value(args), value(kwargs)),
            LegacySpec::Serialized(payload) => Self::Task(Part::Payload(payload)),
            LegacySpec::Task(task) => Self::Task(Part::Value(task)),
        }
    }
}

impl<'a> Call<'a> {
    fn parts(&self) -> impl Iterator<Item = (&'static str, &Part<'a>)> {
        let parts = self.0.iter();
        parts.filter_map(|(name, part)| Some((*name, part.as_ref()?)))
    }
}

/// Head of an operation with that many fields besides `op`.
pub(super) fn op(w: &mut Writer, name: &str, fields: usize) {
    w.map(1 + fields);
    w.str("op");
    w.str(name);
}

pub(super) fn text(w: &mut Writer, name: &str, value: &str) {
    w.str(name);
    w.str(value);
}

pub(super) fn optional_text(w: &mut Writer, value: Option<&str>) {
    match value {
        Some(value) => w.str(value),
        None => w.nil(),
    }
}

/// Whole numbers as ints, as Python has them.
fn number(w: &mut Writer, n: f64) {
    if n.fract() == 0.0 && n.abs() < 9e15 {
        w.int(n as i64);
    } else {
        w.float(n);
    }
}

fn who_has_map(w: &mut Writer, who_has: WhoHas<'_>) {
    // Once, not by doubling what may be megabytes.
    let length = |(key, addresses): &(Key, Vec<Arc<str>>)| {
        let addresses: usize = addresses.iter().map(|address| address.len() + 3).sum();
        key.heap_bytes() + addresses
    };
    w.buf.reserve(who_has.iter().map(length).sum());
    w.map(who_has.len());
    for (key, addresses) in who_has {
        w.key(key);
        w.array(addresses.len());
        addresses.iter().for_each(|address| w.str(address));
    }
}

fn nbytes_map(w: &mut Writer, nbytes: &[(Key, u64)]) {
    w.buf
        .reserve(nbytes.iter().map(|(key, _)| key.heap_bytes()).sum());
    w.map(nbytes.len());
    for (key, n) in nbytes {
        w.key(key);
        w.uint(*n);
    }
}
