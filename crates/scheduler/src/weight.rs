//! What messages take in memory, roughly: enough to bound queues and logs of them.

use oxidask_scheduler_core::effect::{ClientMsg, WorkerMsg};
use oxidask_wire::value::Value;

/// A message, its name and its cause.
const MESSAGE: usize = 160;
/// A further key with what is said of it.
const KEY: usize = 64;

/// Something that waits in memory.
pub trait Weigh {
    /// Bytes, roughly.
    fn weight(&self) -> usize;
}

impl Weigh for WorkerMsg {
    fn weight(&self) -> usize {
        let keys = match self {
            Self::ComputeTask(task) => task.who_has.len(),
            Self::FreeKeys { keys, .. } | Self::RemoveReplicas { keys, .. } => keys.len(),
            Self::AcquireReplicas { who_has, .. } | Self::RefreshWhoHas { who_has, .. } => {
                who_has.len()
            }
            Self::StealRequest { .. }
            | Self::StatusChange { .. }
            | Self::RemoveWorker { .. }
            | Self::Close { .. } => 0,
        };
        MESSAGE + keys * KEY
    }
}

impl Weigh for ClientMsg {
    fn weight(&self) -> usize {
        let keys = match self {
            Self::CancelledKeys { keys, .. } => keys.len(),
            Self::KeyInMemory { .. }
            | Self::TaskErred { .. }
            | Self::TaskRetried { .. }
            | Self::LostData { .. }
            | Self::Restart => 0,
        };
        MESSAGE + keys * KEY
    }
}

impl Weigh for Value {
    fn weight(&self) -> usize {
        let inner: usize = match self {
            Self::Str(text) => text.len(),
            Self::Bin(bytes) => bytes.len(),
            Self::Array(items) => items.iter().map(Self::weight).sum(),
            Self::Map(entries) => entries
                .iter()
                .map(|(key, value)| key.weight() + value.weight())
                .sum(),
            Self::Payload(payload) => payload.wire_bytes(),
            _ => 0,
        };
        size_of::<Self>() + inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxidask_key::Key;

    #[test]
    fn what_holds_more_weighs_more() {
        let cancelled = |count: i64| ClientMsg::CancelledKeys {
            keys: (0..count).map(Key::Int).collect(),
            reason: None,
            msg: None,
        };
        assert!(cancelled(1000).weight() > 1000 * KEY);
        assert!(cancelled(0).weight() < 1000);
        assert!(Value::from("x".repeat(5000)).weight() > 5000);
    }
}
