//! Log lines of the Rust side: on stderr in the form that is configured, and the latest kept for `get_logs`.

use std::collections::VecDeque;

use oxidask_cli::LogFormat;
use oxidask_config::{Config, Env};
use oxidask_logging::{Form, LogOptions, logger_name, text_of};
use parking_lot::Mutex;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// Lines kept until Python takes them.
const KEPT: usize = 1000;

/// `(seconds since the epoch, logger, level as Python numbers it, text)`.
pub(crate) type Line = (f64, String, u32, String);

static LINES: Mutex<VecDeque<Line>> = Mutex::new(VecDeque::new());

/// The lines since the last time.
pub(crate) fn take() -> Vec<Line> {
    LINES.lock().drain(..).collect()
}

struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => 40,
            tracing::Level::WARN => 30,
            tracing::Level::INFO => 20,
            _ => 10,
        };
        let name = logger_name(event.metadata().target()).into_owned();
        let now = chrono::Local::now().timestamp_micros() as f64 / 1e6;
        let mut lines = LINES.lock();
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        lines.push_back((now, name, level, text_of(event)));
    }
}

/// Starts logging, once per process; true: lines are to be JSON. The launcher has read the same configuration and
/// told of its mistakes.
pub(crate) fn init(python: Option<&str>, format: Option<LogFormat>) -> bool {
    let mut env = Env::from_process();
    if let Some(python) = python {
        env = env.with_executable(python);
    }
    let config = Config::load(&env).unwrap_or_else(|_| Config::defaults());
    let (options, _) = LogOptions::from_config(&config);
    let options = options.with_json(format.map(|format| format == LogFormat::Json));
    let json = matches!(options.form, Form::Json);
    let (subscriber, _) = oxidask_logging::subscriber(options, Box::new(std::io::stderr()));
    tracing::subscriber::set_global_default(subscriber.with(Keep)).ok();
    if json {
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or("unnamed");
            tracing::error!(target: "distributed.worker", "thread {thread} {panic}");
        }));
    }
    json
}
