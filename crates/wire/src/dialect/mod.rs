//! What differs between releases in what we *send*. Everything received is read tolerantly and knows
//! no release; everything sent to a worker must have exactly the fields of its release, because an
//! unknown or missing field ends its stream.
//!
//! [`Dialect`] is a table of facts about one release, each with the release it holds from; the files
//! beside this one compose messages from it: `worker.rs` (`compute-task` and the other stream
//! operations), `client.rs`, and `report.rs` for what our own workers say to schedulers. A new release that changes the protocol gets one more line here.

mod client;
mod guard;
mod report;
mod worker;

use std::sync::Arc;

pub use guard::unguarded;

use crate::message::{Composer, ErrorObject};
use crate::payload::{Payload, PayloadKind};
use crate::release::{Generation, Release};

/// Fields of `compute-task` that carry the run spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunSpecFields {
    /// `function`, `args`, `kwargs` as present, or `task` (≤ 2022.05.2).
    PartsOrTask,
    /// `run_spec` alone: a map of the parts, or the serialised task (2022.6.0).
    OneMap,
    /// `run_spec`, `function`, `args`, `kwargs`, nil where unused (2022.6.1 – 2023.8.0).
    All,
    /// `run_spec` alone, a pickle (≥ 2023.8.1).
    Pickle,
}

/// How a worker is told to forget tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FreeKeysForm {
    /// `delete-data {keys, report}` (≤ 2021.06.0).
    DeleteData,
    /// `free-keys {keys, reason}`, `superfluous-data {keys, reason}` (2021.06.1 – 2021.09.1).
    Reason,
    /// `free-keys {keys, stimulus_id}`, `remove-replicas` (≥ 2021.10.0).
    StimulusId,
}

/// Fields of `acquire-replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcquireForm {
    /// Unknown to the worker (≤ 2021.09.1).
    Unknown,
    /// `keys, priorities, who_has, stimulus_id` (2021.10.0 – 2021.12.0).
    KeysAndPriorities,
    /// `keys, who_has, stimulus_id` (2022.01.0 – 2022.05.2).
    Keys,
    /// `who_has, stimulus_id` (2022.6.0).
    WhoHas,
    /// `who_has, nbytes, stimulus_id` (≥ 2022.6.1).
    NBytes,
}

/// Fields of `close` on a worker's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseForm {
    /// `report` (≤ 2022.05.0).
    Report,
    /// None (2022.05.1 – 2022.10.0).
    Bare,
    /// `reason` (≥ 2022.10.1).
    Reason,
}

/// What kind of container `worker-plugins` is in the reply to `register-worker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerPluginsForm {
    /// Array of pickles (≤ 2.26.0).
    Pickles,
    /// Array of `{plugin, name}` (2.27.0 – 2021.04.1).
    NamedMaps,
    /// Map from name to pickle (≥ 2021.05.0).
    ByName,
}

/// Everything that is sent differently to peers of different releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    release: Release,
    generation: Generation,
    // compute-task
    run_spec: RunSpecFields,
    task_form: guard::TaskForm,
    compute_stimulus_id: bool,
    compute_who_has_always: bool,
    compute_nbytes_always: bool,
    compute_annotations: bool,
    compute_all_fields: bool,
    compute_run_id: bool,
    compute_span_id: bool,
    compute_duration: bool,
    // other worker stream operations
    free_keys: FreeKeysForm,
    acquire: AcquireForm,
    close: CloseForm,
    refresh_who_has: bool,
    steal_stimulus_id: bool,
    status_change: bool,
    status_change_stimulus_id: bool,
    remove_worker: bool,
    // client stream operations
    cancelled_keys: bool,
    cancelled_reason: bool,
    event: bool,
    adjust_heartbeat: bool,
    pubsub: bool,
}

impl Dialect {
    /// The dialect of peers of `release`. Releases newer than [`Release::NEWEST`] are spoken to as
    /// the newest we know.
    pub fn for_release(release: &Release) -> Self {
        let since = |year, month, patch| *release >= Release::new(year, month, patch);
        Self {
            release: *release,
            generation: Generation::of(release),
            run_spec: match () {
                () if since(2023, 8, 1) => RunSpecFields::Pickle,
                () if since(2022, 6, 1) => RunSpecFields::All,
                () if since(2022, 6, 0) => RunSpecFields::OneMap,
                () => RunSpecFields::PartsOrTask,
            },
            task_form: if since(2024, 11, 0) {
                guard::TaskForm::Node
            } else {
                guard::TaskForm::Triple
            },
            compute_annotations: since(2021, 6, 0),
            compute_stimulus_id: since(2021, 10, 0),
            compute_who_has_always: since(2021, 10, 0),
            compute_nbytes_always: since(2022, 5, 1),
            compute_all_fields: since(2022, 6, 0),
            compute_run_id: since(2023, 1, 1),
            compute_span_id: since(2023, 6, 0),
            compute_duration: !since(2025, 2, 0),
            free_keys: match () {
                () if since(2021, 10, 0) => FreeKeysForm::StimulusId,
                () if since(2021, 6, 1) => FreeKeysForm::Reason,
                () => FreeKeysForm::DeleteData,
            },
            acquire: match () {
                () if since(2022, 6, 1) => AcquireForm::NBytes,
                () if since(2022, 6, 0) => AcquireForm::WhoHas,
                () if since(2022, 1, 0) => AcquireForm::Keys,
                () if since(2021, 10, 0) => AcquireForm::KeysAndPriorities,
                () => AcquireForm::Unknown,
            },
            close: match () {
                () if since(2022, 10, 1) => CloseForm::Reason,
                () if since(2022, 5, 1) => CloseForm::Bare,
                () => CloseForm::Report,
            },
            steal_stimulus_id: since(2021, 10, 0),
            status_change: since(2022, 2, 0),
            status_change_stimulus_id: since(2022, 4, 2),
            refresh_who_has: since(2022, 6, 0),
            remove_worker: since(2023, 3, 2),
            event: since(2021, 9, 1),
            cancelled_keys: since(2023, 3, 1),
            cancelled_reason: since(2025, 3, 0),
            adjust_heartbeat: since(2025, 4, 0),
            pubsub: !since(2025, 4, 0),
        }
    }

    /// The release this is the dialect of.
    pub fn release(&self) -> Release {
        self.release
    }

    /// Shape of transport messages.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether workers fetch copies on `acquire-replicas` (≥ 2021.10.0); before, the RPC `gather`
    /// on the worker does it.
    pub fn has_acquire_replicas(&self) -> bool {
        self.acquire != AcquireForm::Unknown
    }

    /// Whether a stopped subscription to events can be served (≥ 2021.09.1).
    pub fn has_events(&self) -> bool {
        self.event
    }

    /// Whether keys other than text may be sent (≥ 2023.9.0).
    pub fn has_any_keys(&self) -> bool {
        self.release >= Release::new(2023, 9, 0)
    }

    /// Container of `worker-plugins` in the reply to `register-worker`.
    pub fn worker_plugins(&self) -> WorkerPluginsForm {
        if self.release >= Release::new(2021, 5, 0) {
            WorkerPluginsForm::ByName
        } else if self.release >= Release::new(2, 27, 0) {
            WorkerPluginsForm::NamedMaps
        } else {
            WorkerPluginsForm::Pickles
        }
    }

    /// Whether workers get the P2P plugin from the scheduler (≥ 2023.7.1).
    pub fn needs_shuffle_plugin(&self) -> bool {
        self.release >= Release::new(2023, 7, 1)
    }

    /// A payload with the marker this release knows: `__Pickled__` exists since 2022.04.0.
    fn payload(&self, composer: &mut Composer, payload: &Arc<Payload>) {
        if payload.kind() == PayloadKind::Pickled
            && self.release < Release::PICKLED_MARKERS
            && let Ok(older) = payload.to_serialized()
        {
            return composer.payload(&Arc::new(older));
        }
        composer.payload(payload);
    }

    /// An exception or traceback; every release reads a plain pickle as well.
    fn error_object(&self, composer: &mut Composer, error: Option<&ErrorObject>) {
        match error {
            None => composer.out.nil(),
            Some(ErrorObject::Payload(payload)) => self.payload(composer, payload),
            Some(ErrorObject::Pickle(pickle)) => composer.out.bin(pickle),
            Some(ErrorObject::Text(text)) => composer.out.str(text),
        }
    }
}

/// Begins a batch whose length is not known yet; [`finish_batch`] fills it in.
fn begin_batch() -> Composer {
    let mut composer = Composer::new();
    composer.out.buf.extend_from_slice(&[0xdd, 0, 0, 0, 0]);
    composer
}

/// Ends a batch of `count` items.
fn finish_batch(mut composer: Composer, count: u32) -> crate::message::Message {
    if let Some(head) = composer.out.buf.get_mut(1..5) {
        head.copy_from_slice(&count.to_be_bytes());
    }
    composer.finish()
}
