//! What a scheduler is besides its state: a Python program with packages, a profile and a current
//! directory. Where that matters to clients, Python (`python/server.py`) answers for it.

use std::time::Duration;

use bytes::Bytes;
use oxidask_wire::pickle::Object;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::PythonHost;
use super::error::HostError;
use super::service::PythonService;
use super::session::Function;
use super::source::BUNDLE;

/// Bytes that an answer about Python itself may have.
const MAX_ANSWER: usize = 256 << 20;
/// For answers about Python itself.
const PATIENCE: Duration = Duration::from_secs(30);

impl PythonHost {
    /// A function of `server.py`.
    async fn call(
        &self,
        name: &str,
        args: Vec<Object>,
        release: Release,
        timeout: Duration,
    ) -> Result<Value, HostError> {
        let function = Object::global(&format!("{}.server", BUNDLE.name), name);
        let function = Function {
            parts: vec![
                ("function", function.pickle()),
                ("args", Object::Tuple(args).pickle()),
            ],
            wait: true,
            serializers: None,
            interval: Value::Nil,
        };
        let session = self.sessions.get(self, release).await?;
        let mut answer = session.run_function(function, timeout).await?;
        let packed = match answer.remove("result") {
            Some(Value::Bin(packed)) => Ok(Some(packed)),
            Some(Value::Payload(packed)) => packed.as_plain_bytes(MAX_ANSWER),
            _ => return Err(HostError::Answered(answer)),
        };
        packed
            .and_then(|packed| Value::decode(&packed.unwrap_or_default()))
            .map_err(|error| HostError::garbage("server.py", error))
    }
}

impl PythonService {
    /// Versions of the packages of the Python that runs functions of clients, in stock's form; nothing
    /// when it does not run: starting one takes longer than those who ask would wait.
    pub async fn versions(&self, release: Release, packages: &[String]) -> Option<Value> {
        if !self.has_session(release).await {
            return None;
        }
        let packages = packages.iter().map(|name| Object::from(name.as_str()));
        let args = vec![Object::List(packages.collect())];
        match self.host.call("versions", args, release, PATIENCE).await {
            Ok(versions) => Some(versions),
            Err(error) => {
                tracing::warn!("versions of the Python host are not known: {error}");
                None
            }
        }
    }

    /// Where the Python that runs functions of clients spent its time; nothing when it does not run.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn profile(
        &self,
        release: Release,
        start: Option<f64>,
        stop: Option<f64>,
    ) -> Result<Option<Value>, HostError> {
        if !self.has_session(release).await {
            return Ok(None);
        }
        let time = |time: Option<f64>| time.map_or(Object::None, Object::Float);
        let args = vec![time(start), time(stop)];
        let profile = self.host.call("profile", args, release, PATIENCE).await;
        profile.map(Some)
    }

    /// Writes to a path or URL as Python's fsspec understands it, seen from the current directory of
    /// the functions of clients.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn write_file(
        &self,
        release: Release,
        url: &str,
        data: Bytes,
        options: &Value,
    ) -> Result<(), HostError> {
        let args = vec![url.into(), Object::Bytes(data), Object::from(options)];
        let timeout = self.host.config.function_timeout;
        let written = self.host.call("write_file", args, release, timeout).await;
        written.map(drop)
    }

    /// Whether functions of clients of this release have been run and may have left something.
    pub async fn has_session(&self, release: Release) -> bool {
        self.host.sessions.is_open(release).await
    }
}
