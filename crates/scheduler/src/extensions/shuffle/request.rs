//! Requests of workers to take part in a shuffle, read into one form.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::value::Value;

use super::protocol::{AnswerForm, Protocol};
use super::spec::{Outputs, PickledSpec, SpecError};
use super::state::ConsistencyError;
use crate::context::Context;
use crate::rpc::{Call, RpcError};

/// Largest spec read, in bytes (it holds an empty frame of the table's types).
const MAX_SPEC: usize = 256 << 20;
/// Fields of requests up to 2023.8.0 that come back in the answer.
const ECHOED: [&str; 4] = ["column", "schema", "old", "new"];

/// A worker wants to take part in a shuffle.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) id: String,
    /// Who asks; not told up to 2022.12.0.
    pub(super) worker: Option<Arc<str>>,
    pub(super) protocol: Protocol,
    /// The input task that asks (since 2023.8.0).
    pub(super) input: Option<Key>,
    pub(super) shuffle: Description,
}

/// What the request says about the shuffle.
#[derive(Clone, Debug)]
pub(super) enum Description {
    /// Nothing: it must be going on.
    GoingOn,
    /// What it makes, and what the answer is made of.
    Here(Outputs, AnswerForm),
    /// The barrier task says it (since 2024.11.0).
    InBarrier,
}

impl Request {
    /// `shuffle_get`. Up to 2023.2.0 it sets the shuffle up if it says of what kind it is.
    ///
    /// # Errors
    /// The worker is unknown, or an argument is not what it should be.
    pub(super) fn get(context: &Context, call: &Call) -> Result<Self, RpcError> {
        let (worker, protocol) = asking(context, call)?;
        let shuffle = match Outputs::of_fields(&call.args)? {
            Some(outputs) if protocol < Protocol::Arrays => {
                Description::Here(outputs, AnswerForm::Fields(echo(&call.args)))
            }
            _ => Description::GoingOn,
        };
        Ok(Self {
            id: call.str("id")?.to_owned(),
            worker,
            protocol,
            input: None,
            shuffle,
        })
    }

    /// `shuffle_get_or_create` (since 2023.2.1).
    ///
    /// # Errors
    /// The worker is unknown, or an argument is not what it should be.
    pub(super) fn get_or_create(context: &Context, call: &Call) -> Result<Self, RpcError> {
        let (worker, protocol) = asking(context, call)?;
        let (id, shuffle) = if let Some(id) = call.opt_str("shuffle_id")? {
            (id.to_owned(), Description::InBarrier)
        } else {
            let spec = call.required("spec")?;
            match spec {
                Value::Payload(payload) => {
                    let unreadable = |_| SpecError::Unknown;
                    let pickle = payload.as_pickle(MAX_SPEC).map_err(unreadable)?;
                    let (pickle, buffers) = pickle.ok_or(SpecError::Unknown)?;
                    let spec = PickledSpec::of_request(pickle, buffers)?;
                    let form = AnswerForm::Object(spec.clone());
                    (spec.id, Description::Here(spec.outputs, form))
                }
                fields => {
                    let outputs = Outputs::of_fields(fields)?.ok_or(SpecError::Unknown)?;
                    let mut echoed = echo(fields);
                    echoed.push(("type", call.required("type")?.clone()));
                    let form = AnswerForm::Fields(echoed);
                    (call.str("id")?.to_owned(), Description::Here(outputs, form))
                }
            }
        };
        Ok(Self {
            id,
            worker,
            protocol,
            input: call.get("key").map(|_| call.key("key")).transpose()?,
            shuffle,
        })
    }
}

fn echo(fields: &Value) -> Vec<(&'static str, Value)> {
    let echoed = ECHOED.into_iter();
    echoed
        .filter_map(|name| Some((name, fields.get(name)?.clone())))
        .collect()
}

/// Who asks, and how its release speaks.
fn asking(context: &Context, call: &Call) -> Result<(Option<Arc<str>>, Protocol), RpcError> {
    let Some(address) = call.opt_str("worker")? else {
        return Ok((None, Protocol::OneRun));
    };
    match context.workers.at(address) {
        Some(worker) => Ok((
            Some(Arc::clone(&worker.info.address)),
            Protocol::of(worker.release),
        )),
        None => {
            let error = ConsistencyError::UnknownWorker(address.to_owned());
            Err(Protocol::of(call.caller.release).refusal(&error))
        }
    }
}

impl From<SpecError> for RpcError {
    fn from(error: SpecError) -> Self {
        Self::runtime_error(error.to_string())
    }
}
