//! Graphs as a stock client sends them, from a file of `benches/encode.py`.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail};
use oxidask_wire::connection::{Limits, Reader};
use oxidask_wire::error::ReadError;
use oxidask_wire::{Generation, Message, Release, Value};

/// A submission.
pub(crate) struct Graph {
    /// One batch with `update-graph` in it.
    pub(crate) message: Message,
    /// What the client wants.
    pub(crate) keys: Vec<Value>,
}

/// All graphs of a file, which holds the bytes as they go over the wire.
pub(crate) async fn read(path: &Path, release: &Release) -> Result<Vec<Graph>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let generation = Generation::of(release);
    let mut reader = Reader::over(Cursor::new(bytes), generation, Limits::default());
    let mut graphs = Vec::new();
    loop {
        match reader.read().await {
            Ok(message) => graphs.push(Graph::new(message)?),
            Err(ReadError::Closed) => return Ok(graphs),
            Err(error) => bail!("{} is not for {release}: {error}", path.display()),
        }
    }
}

impl Graph {
    fn new(message: Message) -> Result<Self> {
        let mut items = message.items();
        let item = items.next().context("an empty batch")??;
        let mut value = item.value()?;
        let keys = value.remove("keys").context("a graph without keys")?;
        let Some(keys) = keys.as_seq().map(<[Value]>::to_vec) else {
            bail!("keys are a {}", keys.type_name());
        };
        Ok(Self { message, keys })
    }
}
