//! Command lines of the binaries: every option of every covered release of stock, with the rules of
//! click, which stock is built on.
//!
//! `click` splits and checks words as click does and renders usage errors; clap declares the options,
//! converts values and renders `--help`. Nothing here acts on an option.

mod click;
mod common;
mod scheduler;
mod values;
mod worker;

pub use click::{Outcome, Parsed, UsageError};
pub use scheduler::{SchedulerArgs, parse_scheduler, scheduler_command};
pub use values::{
    HostAndPort, LogFormat, PortSpec, PythonHostMode, WorkerCount, parse_dashboard_address,
};
pub use worker::{WorkerArgs, parse_worker, worker_command};
