//! Composing what a worker says on its stream to a scheduler of this release.

use oxidask_key::Key;

use super::worker::{op, optional_text, text};
use super::{Dialect, begin_batch, finish_batch};
use crate::message::worker::{FromWorker, TaskErred, TaskFinished};
use crate::message::{Composer, Message, StartStop};
use crate::msgpack::Writer;
use crate::release::Release;

impl Dialect {
    /// One transport message for a scheduler of this release. What the release has no operation for
    /// is left out: `missing-data` is known up to 2022.05.2, `worker-status-change` from 2021.10.0 on,
    /// `request-refresh-who-has` from 2022.6.0 on. Messages of extensions are not composed here.
    pub fn encode_scheduler_batch(&self, batch: &[FromWorker<'_>]) -> Message {
        let mut composer = begin_batch();
        let mut count = 0;
        for item in batch {
            count += u32::from(self.report(&mut composer, item));
        }
        finish_batch(composer, count)
    }

    fn has(&self, year: u16, month: u16, patch: u16) -> bool {
        self.release() >= Release::new(year, month, patch)
    }

    /// Whether every message names its cause.
    fn names_cause(&self) -> bool {
        self.has(2022, 4, 2)
    }

    fn head(&self, w: &mut Writer, name: &str, fields: usize) {
        op(w, name, fields + usize::from(self.names_cause()));
    }

    fn cause(&self, w: &mut Writer, stimulus_id: Option<&str>) {
        if self.names_cause() {
            text(w, "stimulus_id", stimulus_id.unwrap_or_default());
        }
    }

    fn report(&self, c: &mut Composer, item: &FromWorker<'_>) -> bool {
        let w = &mut c.out;
        match item {
            FromWorker::TaskFinished(task) => self.finished(c, task),
            FromWorker::TaskErred(task) => self.erred(c, task),
            FromWorker::ReleaseWorkerData { keys, stimulus_id } if self.has(2021, 10, 0) => {
                let [key] = keys.as_slice() else { return false };
                self.head(w, "release-worker-data", 1);
                w.str("key");
                w.key(key);
                self.cause(w, *stimulus_id);
            }
            FromWorker::ReleaseWorkerData { keys, .. } => {
                op(w, "release-worker-data", 1);
                w.str("keys");
                w.keys(keys);
            }
            FromWorker::AddKeys { keys, stimulus_id } => {
                self.head(w, "add-keys", 1);
                w.str("keys");
                w.keys(keys);
                self.cause(w, *stimulus_id);
            }
            FromWorker::LongRunning {
                key,
                compute_duration,
                run_id,
                stimulus_id,
            } => self.long_running(w, key, *compute_duration, *run_id, *stimulus_id),
            FromWorker::Reschedule { key, stimulus_id } => {
                self.head(w, "reschedule", 1);
                w.str("key");
                w.key(key);
                self.cause(w, *stimulus_id);
            }
            FromWorker::StealResponse {
                key,
                state,
                stimulus_id,
            } => {
                let named = self.has(2021, 10, 0);
                op(w, "steal-response", 2 + usize::from(named));
                w.str("key");
                w.key(key);
                w.str("state");
                optional_text(w, *state);
                if named {
                    text(w, "stimulus_id", stimulus_id.unwrap_or_default());
                }
            }
            FromWorker::WorkerStatusChange {
                status,
                stimulus_id,
            } if self.has(2021, 10, 0) => {
                self.head(w, "worker-status-change", 1);
                text(w, "status", status);
                self.cause(w, *stimulus_id);
            }
            FromWorker::LogEvent { topic, msg } if self.has(2020, 12, 0) => {
                op(w, "log-event", 2);
                w.str("topic");
                c.value(topic);
                c.out.str("msg");
                c.value(msg);
            }
            FromWorker::RequestRefreshWhoHas { keys, stimulus_id } if self.has(2022, 6, 0) => {
                self.head(w, "request-refresh-who-has", 1);
                w.str("keys");
                w.keys(keys);
                self.cause(w, *stimulus_id);
            }
            FromWorker::MissingData {
                key,
                errant_worker,
                stimulus_id,
            } if !self.has(2022, 6, 0) => {
                self.head(w, "missing-data", 2);
                w.str("key");
                w.key(key);
                text(w, "errant_worker", errant_worker);
                self.cause(w, *stimulus_id);
            }
            FromWorker::KeepAlive => op(w, "keep-alive", 0),
            FromWorker::CloseStream => op(w, "close-stream", 0),
            _ => return false,
        }
        true
    }

    fn long_running(
        &self,
        w: &mut Writer,
        key: &Key,
        compute_duration: Option<f64>,
        run_id: Option<i64>,
        stimulus_id: Option<&str>,
    ) {
        let run = self.has(2025, 2, 0);
        self.head(w, "long-running", 2 + usize::from(run));
        w.str("key");
        w.key(key);
        w.str("compute_duration");
        match compute_duration {
            Some(seconds) => w.float(seconds),
            None => w.nil(),
        }
        if run {
            w.str("run_id");
            w.int(run_id.unwrap_or(-1));
        }
        self.cause(w, stimulus_id);
    }

    fn finished(&self, c: &mut Composer, task: &TaskFinished<'_>) {
        let (run, metadata) = (self.has(2023, 1, 1), self.has(2020, 12, 0));
        let w = &mut c.out;
        let fields = 7 + usize::from(run) + usize::from(metadata);
        self.head(w, "task-finished", fields);
        text(w, "status", "OK");
        w.str("key");
        w.key(&task.key);
        if run {
            w.str("run_id");
            w.int(task.run_id.unwrap_or(-1));
        }
        w.str("nbytes");
        w.uint(task.nbytes.unwrap_or_default());
        w.str("type");
        w.bin(task.type_.unwrap_or_default());
        w.str("typename");
        optional_text(w, task.typename);
        thread(w, task.thread);
        startstops(w, task.startstops.as_deref().unwrap_or_default());
        if metadata {
            w.str("metadata");
            if task.metadata.is_nil() {
                w.map(0);
            } else {
                c.value(&task.metadata);
            }
        }
        self.cause(&mut c.out, task.stimulus_id);
    }

    fn erred(&self, c: &mut Composer, task: &TaskErred<'_>) {
        let (run, texts) = (self.has(2023, 7, 0), self.has(2021, 8, 0));
        let fields = 6 + usize::from(run) + 2 * usize::from(texts);
        self.head(&mut c.out, "task-erred", fields);
        text(&mut c.out, "status", "error");
        c.out.str("key");
        c.out.key(&task.key);
        if run {
            c.out.str("run_id");
            c.out.int(task.run_id.unwrap_or(-1));
        }
        c.out.str("exception");
        self.error_object(c, task.exception.as_ref());
        c.out.str("traceback");
        self.error_object(c, task.traceback.as_ref());
        let w = &mut c.out;
        if texts {
            text(w, "exception_text", task.exception_text);
            text(w, "traceback_text", task.traceback_text);
        }
        thread(w, task.thread);
        startstops(w, &task.startstops);
        self.cause(w, task.stimulus_id);
    }
}

fn thread(w: &mut Writer, thread: Option<u64>) {
    w.str("thread");
    match thread {
        Some(ident) => w.uint(ident),
        None => w.nil(),
    }
}

fn startstops(w: &mut Writer, all: &[StartStop<'_>]) {
    w.str("startstops");
    w.array(all.len());
    for one in all {
        w.map(3 + usize::from(one.source.is_some()));
        text(w, "action", one.action);
        w.str("start");
        w.float(one.start);
        w.str("stop");
        w.float(one.stop);
        if let Some(source) = one.source {
            text(w, "source", source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ErrorObject;
    use crate::payload::Payload;
    use crate::value::Value;

    const RELEASES: [Release; 6] = [
        Release::new(2, 17, 0),
        Release::new(2, 30, 1),
        Release::new(2021, 10, 0),
        Release::new(2022, 12, 0),
        Release::new(2024, 12, 1),
        Release::NEWEST,
    ];

    fn finished() -> TaskFinished<'static> {
        TaskFinished {
            key: Key::from("x"),
            run_id: Some(3),
            nbytes: Some(28),
            type_: Some(b"type"),
            typename: Some("int"),
            startstops: Some(vec![
                StartStop {
                    action: "compute",
                    start: 1.0,
                    stop: 2.0,
                    source: None,
                },
                StartStop {
                    action: "transfer",
                    start: 0.5,
                    stop: 0.75,
                    source: Some("tcp://a:1"),
                },
            ]),
            metadata: Value::map([("note", "text")]),
            thread: Some(u64::MAX),
            stimulus_id: Some("s"),
        }
    }

    /// What a scheduler of the release reads.
    fn read(message: &Message) -> Vec<FromWorker<'_>> {
        let items = message.items().map(|item| item.expect("valid"));
        items
            .map(|item| FromWorker::decode(&item).expect("read"))
            .collect()
    }

    #[test]
    fn a_finished_task_is_read_as_it_was_told() {
        for release in RELEASES {
            let dialect = Dialect::for_release(&release);
            let message = dialect.encode_scheduler_batch(&[FromWorker::TaskFinished(finished())]);
            let mut expected = finished();
            if release < Release::new(2023, 1, 1) {
                expected.run_id = None;
            }
            if release < Release::new(2020, 12, 0) {
                expected.metadata = Value::Nil;
            }
            if release < Release::new(2022, 4, 2) {
                expected.stimulus_id = None;
            }
            assert_eq!(
                read(&message),
                [FromWorker::TaskFinished(expected)],
                "{release}"
            );
        }
    }

    #[test]
    fn a_failed_task_has_the_fields_of_the_release() {
        let exception = ErrorObject::Payload(Payload::bytes("pickle").into());
        let erred = TaskErred {
            key: Key::Int(1),
            run_id: Some(3),
            exception: Some(exception),
            traceback: None,
            exception_text: "ValueError()",
            traceback_text: "File",
            startstops: Vec::new(),
            thread: None,
            stimulus_id: Some("s"),
        };
        for release in RELEASES {
            let dialect = Dialect::for_release(&release);
            let message = dialect.encode_scheduler_batch(&[FromWorker::TaskErred(erred.clone())]);
            let [FromWorker::TaskErred(found)] = &read(&message)[..] else {
                panic!("{release}");
            };
            assert_eq!(found.exception, erred.exception, "{release}");
            let texts = release >= Release::new(2021, 8, 0);
            assert_eq!(found.exception_text.is_empty(), !texts, "{release}");
            let run = release >= Release::new(2023, 7, 0);
            assert_eq!(found.run_id, run.then_some(3), "{release}");
        }
    }

    #[test]
    fn what_a_release_does_not_know_is_not_said() {
        let batch = || {
            [
                FromWorker::MissingData {
                    key: Key::from("x"),
                    errant_worker: "tcp://a:1",
                    stimulus_id: Some("s"),
                },
                FromWorker::RequestRefreshWhoHas {
                    keys: vec![Key::from("x")],
                    stimulus_id: Some("s"),
                },
                FromWorker::WorkerStatusChange {
                    status: "running",
                    stimulus_id: Some("s"),
                },
                FromWorker::AddKeys {
                    keys: vec![Key::from("x")],
                    stimulus_id: Some("s"),
                },
                FromWorker::KeepAlive,
            ]
        };
        let names = |release: Release| -> Vec<String> {
            let message = Dialect::for_release(&release).encode_scheduler_batch(&batch());
            let items = message.items().map(|item| item.expect("valid"));
            items.map(|item| item.op.to_owned()).collect()
        };
        assert_eq!(
            names(Release::new(2, 30, 1)),
            ["missing-data", "add-keys", "keep-alive"]
        );
        assert_eq!(
            names(Release::NEWEST),
            [
                "request-refresh-who-has",
                "worker-status-change",
                "add-keys",
                "keep-alive"
            ]
        );
    }
}
