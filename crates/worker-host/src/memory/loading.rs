//! Bringing back what is on disk, when a task, a caller or Python wants it.

use std::sync::Arc;

use oxidask_key::Key;

use super::numbers::Activity;
use super::spilled::Spilled;
use super::spilling::Memory;
use crate::interpreter::{Failure, Object};
use crate::store::Held;

/// Why a value can not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is gone, or not as it was written.
    #[error("the file of {key} can not be read: {source}")]
    File {
        /// Which value.
        key: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Python can not make an object of it.
    #[error("{key} can not be unpickled: {}", failure.exception_text)]
    Unpickle {
        /// Which value.
        key: String,
        /// What Python says.
        failure: Box<Failure>,
    },
    /// The interpreter has ended.
    #[error("the worker is ending")]
    Ending,
}

impl Memory {
    /// The object. It is in memory again from now on, unless it is too large for that.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub(crate) async fn load(&self, key: &Key, held: Held) -> Result<Object, LoadError> {
        let file = match held {
            Held::Here(object) => return Ok(object),
            Held::Spilled(file) => file,
        };
        let reading = file.reading.lock().await;
        if let Some(object) = file.object() {
            self.restored(key, &file, &object);
            return Ok(object);
        }
        let (from, numbers) = (Arc::clone(&file), Arc::clone(&self.numbers));
        let frames = tokio::task::spawn_blocking(move || from.read(&numbers)).await;
        let frames = frames.map_err(|_| LoadError::Ending)?;
        let frames = frames.map_err(|source| LoadError::File {
            key: key.repr(),
            source,
        })?;
        let start = std::time::Instant::now();
        let value = self.interpreter.unpack(frames).await;
        self.numbers.took(Activity::Deserialize, start.elapsed());
        let value = value.map_err(|_| LoadError::Ending)?;
        let value = value.map_err(|failure| LoadError::Unpickle {
            key: key.repr(),
            failure: Box::new(failure),
        })?;
        let object = file.object_of(value);
        self.restored(key, &file, &object);
        drop(reading);
        Ok(object)
    }

    /// Somebody has made an object of the file: it is in memory again.
    pub fn restored(&self, key: &Key, file: &Arc<Spilled>, object: &Object) {
        self.store.restored(key, file, object, self.most_managed());
        self.check();
    }

    /// Reads a file for [`Self::restored`]. Blocks.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn read_blocking(&self, key: &Key, file: &Spilled) -> Result<Vec<bytes::Bytes>, LoadError> {
        file.read(&self.numbers).map_err(|source| LoadError::File {
            key: key.repr(),
            source,
        })
    }
}
