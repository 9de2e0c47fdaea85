//! Files that exist while the scheduler runs.

use std::path::{Path, PathBuf};

use oxidask_config::Config;
use oxidask_scheduler_core::config::CoreConfig;

use super::StartError;
use crate::context::Context;
use crate::core_thread::Recorder;
use crate::handlers::identity::scheduler_identity;

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct RemovedAtEnd(PathBuf);

impl RemovedAtEnd {
    pub(super) fn write(path: &Path, content: &str) -> Result<Self, StartError> {
        std::fs::write(path, content).map_err(|source| StartError::File {
            path: path.display().to_string(),
            source,
        })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes the identity as JSON, from which clients and workers learn the address.
pub(super) async fn write_scheduler_file(
    path: &Path,
    context: &Context,
) -> Result<RemovedAtEnd, StartError> {
    let identity = scheduler_identity(context, usize::MAX).await;
    let identity = identity.map_err(|error| std::io::Error::other(error.to_string()))?;
    let json = serde_json::to_string_pretty(&identity)
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    RemovedAtEnd::write(path, &json)
}

/// The recording that `--record` asks for, begun.
pub(super) fn recorder(config: &Config, core: &CoreConfig) -> Result<Option<Recorder>, StartError> {
    let Some(path) = config.str("oxidask.scheduler.record") else {
        return Ok(None);
    };
    let limit = config.bytes("oxidask.scheduler.record-max-bytes");
    let recorder = Recorder::create(Path::new(&path), core, limit.unwrap_or(u64::MAX));
    let recorder = recorder.map_err(|source| StartError::File { path, source })?;
    Ok(Some(recorder))
}
