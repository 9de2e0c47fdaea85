//! The HTTP server of the dashboard port: health, metrics, JSON, `/api/v1`, info pages and a small status
//! page, with the routes of stock (releases 2.17 to 2026.8). The bokeh dashboard is not here.
//!
//! Pages know the scheduler only through [`HttpSource`], so they are tested without one.
//! To add a metric: a field in `source.rs`, a line in `metrics.rs`, its value in `live.rs`.

mod api;
mod connection;
mod html;
mod json;
mod listen;
mod live;
mod metrics;
mod pages;
mod routes;
mod source;
mod ticks;

pub use connection::{serve_connection, with_websockets};
pub use listen::{BindError, HttpListener, bind, dashboard_link, serve};
pub use live::Live;
pub use metrics::render as render_metrics;
pub use routes::{Pages, router};
pub use source::{
    Answer, Counts, ErredTask, Family, HttpSource, LogRow, Metrics, PrefixFigures, SourceError,
    TaskPage, TaskRow, TransitionRow, WorkerPage, WorkerRow, WorkerStates,
};
pub use ticks::Ticks;
