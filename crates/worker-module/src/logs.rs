//! Log lines of the Rust side, in stock's form on stderr; the latest are kept for `get_logs`.

use std::collections::VecDeque;
use std::fmt;

use parking_lot::Mutex;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines kept until Python takes them.
const KEPT: usize = 1000;

/// `(seconds since the epoch, logger, level as Python numbers it, text)`.
pub(crate) type Line = (f64, &'static str, u32, String);

static LINES: Mutex<VecDeque<Line>> = Mutex::new(VecDeque::new());

/// The lines since the last time.
pub(crate) fn take() -> Vec<Line> {
    LINES.lock().drain(..).collect()
}

fn keep(line: Line) {
    let mut lines = LINES.lock();
    if lines.len() >= KEPT {
        lines.pop_front();
    }
    lines.push_back(line);
}

struct StockLines;

impl<S, N> FormatEvent<S, N> for StockLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = chrono::Local::now();
        let (level, number) = match *event.metadata().level() {
            tracing::Level::ERROR => ("ERROR", 40),
            tracing::Level::WARN => ("WARNING", 30),
            tracing::Level::INFO => ("INFO", 20),
            other => (other.as_str(), 10),
        };
        let target = event.metadata().target();
        // Ours are not names that anybody configures.
        let name = match target.starts_with("distributed.") {
            true => target,
            false => "distributed.worker",
        };
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        writeln!(
            writer,
            "{} - {name} - {level} - {text}",
            now.format("%Y-%m-%d %H:%M:%S,%3f")
        )?;
        keep((now.timestamp_micros() as f64 / 1e6, name, number, text));
        Ok(())
    }
}

/// Once per process; a second call does nothing.
pub(crate) fn init() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .event_format(StockLines)
        .try_init()
        .ok();
}
