//! What the scheduler itself finds wrong with a task, as the exception that a client of some
//! release expects.

use std::sync::Arc;

use oxidask_http::html::bytes;
use oxidask_scheduler_core::effect::{TaskError, WorkerSummary};
use oxidask_wire::message::ErrorObject;
use oxidask_wire::pickle::{Exception, LastWorker};
use oxidask_wire::release::Release;

/// The exception of a task for clients of `release`.
pub fn of_task(error: &TaskError, release: Release) -> ErrorObject {
    match error {
        TaskError::Remote {
            exception,
            exception_text,
            ..
        } => exception
            .get::<ErrorObject>()
            .cloned()
            .unwrap_or_else(|| ErrorObject::Text(exception_text.to_string())),
        own => ErrorObject::Pickle(of_scheduler(own, release).pickle()),
    }
}

/// Exception and traceback of a task for people.
pub fn texts_of_task(error: &TaskError) -> (String, String) {
    match error {
        TaskError::Remote {
            exception_text,
            traceback_text,
            ..
        } => (exception_text.to_string(), traceback_text.to_string()),
        own => {
            let exception = of_scheduler(own, Release::NEWEST);
            let cause = exception.cause().unwrap_or_default().to_owned();
            (exception.repr(), cause)
        }
    }
}

/// The exception for what the scheduler itself found wrong.
fn of_scheduler(error: &TaskError, release: Release) -> Exception {
    match error {
        TaskError::Remote { exception_text, .. } => Exception::plain(&**exception_text),
        TaskError::KilledWorker {
            task,
            last_worker,
            allowed_failures,
        } => {
            let last_worker = (summary(last_worker), how_it_died(last_worker));
            let killed =
                Exception::killed_worker(&release, task, &last_worker.0, *allowed_failures);
            match last_worker.1 {
                Some(death) => killed.caused_by(death),
                None => killed,
            }
        }
        TaskError::NoValidWorker {
            task,
            host_restrictions,
            worker_restrictions,
            resource_restrictions,
            timeout,
        } => {
            let hosts = texts(host_restrictions);
            let workers = texts(worker_restrictions);
            let resources: Vec<(&str, f64)> = resource_restrictions
                .iter()
                .map(|(name, amount)| (&**name, *amount))
                .collect();
            Exception::no_valid_worker(&release, task, (&hosts, &workers, &resources), *timeout)
        }
        TaskError::NoWorker { task, timeout } => Exception::no_worker(&release, task, *timeout),
        TaskError::Memory { message } => Exception::memory_error(&**message),
        TaskError::ActorLost { task, worker } => Exception::runtime_error(format!(
            "Worker holding Actor was lost: {} on {worker}",
            task.repr()
        )),
    }
}

/// What is known of the end of a worker: what its nanny told, or else what it told itself before.
fn how_it_died(worker: &WorkerSummary) -> Option<String> {
    if let Some(death) = &worker.death {
        return Some(format!("worker {}: {death}", worker.address));
    }
    if worker.memory == 0 {
        return None;
    }
    let of_limit = match worker.memory_limit {
        0 => String::new(),
        limit => format!(" of {}", bytes(limit)),
    };
    Some(format!(
        "the connection to worker {} ended; its process had {}{of_limit} when it last told",
        worker.address,
        bytes(worker.memory)
    ))
}

fn texts(from: &[Arc<str>]) -> Vec<&str> {
    from.iter().map(|text| &**text).collect()
}

fn summary(worker: &WorkerSummary) -> LastWorker<'_> {
    LastWorker {
        address: &worker.address,
        name: &worker.name,
        nthreads: worker.nthreads,
        memory_limit: worker.memory_limit,
        pid: worker.pid,
        server_id: &worker.server_id,
        local_directory: &worker.local_directory,
        nanny: worker.nanny.as_deref(),
    }
}
