//! The HTTP server of the dashboard port: health, metrics, JSON, `/api/v1`, info pages and live pages, with
//! the routes of stock (releases 2.17 to 2026.8). The bokeh dashboard is not here.
//!
//! Pages know the scheduler only through [`HttpSource`], so they are tested without one.
//! To add a metric of ours: a line in `live_own.rs`. One of stock's: a field in `source.rs`, a line in
//! `metrics.rs`, its value in `live.rs`. To show more on the live pages: see `feed.rs`.

mod api;
mod dashboard;
mod feed;
mod json;
mod live;
mod live_feed;
mod live_own;
mod metrics;
mod pages;
mod routes;
mod socket;
mod source;
mod ticks;
mod values;
mod watch;

use oxidask_http::{html, openmetrics, process};

pub use feed::{
    MemoryFigures, PrefixProgress, SchedulerFigures, Snapshot, TaskFigures, Topics, WorkerFigures,
};
pub use live::Live;
pub use metrics::render as render_metrics;
pub use openmetrics::{Format, Kind};
pub use oxidask_http::connection::{serve_connection, with_websockets};
pub use oxidask_http::listen::{BindError, HttpListener, bind, dashboard_link, serve};
pub use process::ProcessFigures;
pub use routes::{Pages, router};
pub use socket::Origins;
pub use source::{
    Answer, Counts, ErredTask, Family, Health, HttpSource, LogRow, Metrics, OwnFamily,
    PrefixFigures, SourceError, TaskPage, TaskRow, TransitionRow, WorkerPage, WorkerRow,
    WorkerStates,
};
pub use ticks::Ticks;
pub use watch::{Happening, Happenings, Ran, Watch};
