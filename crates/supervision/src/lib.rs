//! What a worker process is told by its launcher ([`Plan`], in an environment variable), and what it and
//! its nanny say to each other afterwards ([`ToWorker`], [`FromWorker`], over [`channel`]).
//!
//! Both ends are always of the same build, so there are no versions.

pub mod channel;
pub mod ledger;
mod plan;

pub use plan::{Name, PLAN_VARIABLE, Plan};

use serde::{Deserialize, Serialize};

/// Orders of the nanny.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum ToWorker {
    /// End now. The nanny kills the process when `timeout` has passed.
    Stop {
        /// Why, for the log.
        reason: String,
        /// Seconds.
        timeout: f64,
    },
    /// Give the data away, then end.
    CloseGracefully {
        /// Why, for the log.
        reason: String,
        /// Seconds.
        timeout: f64,
    },
}

/// Reports of the worker process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum FromWorker {
    /// It has a folder, which the nanny removes when the process can not.
    Directory {
        /// Path.
        path: String,
    },
    /// Where it writes what it runs ([`ledger`]).
    Ledger {
        /// Its descriptor of it.
        descriptor: i32,
    },
    /// It is registered and works.
    Started {
        /// Where others reach it.
        address: String,
    },
    /// It is about to leave for good: do not start another one.
    Leaving {
        /// Why.
        reason: String,
    },
    /// It could not start, or could not reach its scheduler in time (`--death-timeout`).
    Failed {
        /// Why.
        message: String,
    },
}
