//! Log lines: stock's form or JSON on stderr, levels by logger as in `distributed.logging`, and the
//! last lines kept in memory for the `get_logs` operation.
//!
//! Code logs through `tracing`; its targets become names of stock's loggers ([`logger_name`]), which
//! people and their tools filter by.

mod buffer;
mod layer;
mod levels;
mod pattern;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use oxidask_config::Config;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt as _;

pub use buffer::{LogBuffer, LogLine};
pub use layer::text_of;
pub use levels::{Levels, logger_name};
pub use pattern::Pattern;

/// Form of the lines on stderr.
#[derive(Clone, Debug)]
pub enum Form {
    /// By `distributed.admin.log-format`.
    Text,
    /// One JSON object per line: `timestamp`, `level`, `logger`, `message` and the event's fields.
    Json,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Form of the lines.
    pub form: Form,
    /// Form of the lines in memory: always text.
    pub pattern: Pattern,
    /// Which events are logged.
    pub levels: Levels,
    /// Most lines kept in memory; None: bounded by bytes alone.
    pub kept_lines: Option<usize>,
    /// Most bytes of lines kept in memory.
    pub kept_bytes: usize,
}

impl LogOptions {
    /// Reads `distributed.logging` (or `logging`), `distributed.admin.log-format`, `log-length`,
    /// `oxidask.log.*`. Also gives one line for each level it could not read.
    #[must_use]
    pub fn from_config(config: &Config) -> (Self, Vec<String>) {
        let (levels, problems) = Levels::from_config(config);
        let pattern = Pattern::parse(
            &config
                .str("distributed.admin.log-format")
                .unwrap_or_default(),
        );
        let form = match config.str("oxidask.log.format").as_deref() {
            Some("json") => Form::Json,
            _ => Form::Text,
        };
        let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let options = Self {
            form,
            pattern,
            levels,
            kept_lines: config.count("distributed.admin.log-length").map(size),
            kept_bytes: config
                .bytes("oxidask.log.buffer-bytes")
                .map_or(usize::MAX, size),
        };
        (options, problems)
    }

    /// With what a command line says: JSON, text, or nothing.
    #[must_use]
    pub fn with_json(mut self, wanted: Option<bool>) -> Self {
        match wanted {
            Some(true) => self.form = Form::Json,
            Some(false) => self.form = Form::Text,
            None => {}
        }
        self
    }
}

/// Starts logging for the whole process. A second scheduler in the same process (tests) keeps the first
/// one's log.
pub fn start(options: LogOptions) {
    let json = matches!(options.form, Form::Json);
    let (subscriber, buffer) = subscriber(options, Box::new(std::io::stderr()));
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = BUFFER.set(buffer);
        if json {
            IS_JSON.store(true, Ordering::Relaxed);
            log_panics();
        }
    }
}

/// Whether lines on stderr are JSON, and nothing else should be written there.
#[must_use]
pub fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Panics, too, become one line each.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(target: "distributed.scheduler", "thread {thread} {panic}");
    }));
}

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// The last lines of the process, as logging itself there is one for all; empty before [`start`].
#[must_use]
pub fn buffer() -> LogBuffer {
    BUFFER
        .get()
        .cloned()
        .unwrap_or_else(|| LogBuffer::new(Some(0), 0))
}

static BUFFER: OnceLock<LogBuffer> = OnceLock::new();

/// The subscriber that writes to `out`, for [`start`] and tests.
pub fn subscriber(
    options: LogOptions,
    out: Box<dyn std::io::Write + Send>,
) -> (impl tracing::Subscriber + Send + Sync, LogBuffer) {
    let buffer = LogBuffer::new(options.kept_lines, options.kept_bytes);
    let layer = layer::LogLayer::new(options.form, options.pattern, buffer.clone(), out);
    let levels = options.levels;
    let most = levels.most_verbose();
    let filter =
        FilterFn::new(move |event| levels.allow(&logger_name(event.target()), *event.level()))
            .with_max_level_hint(most);
    (
        tracing_subscriber::registry().with(layer.with_filter(filter)),
        buffer,
    )
}
