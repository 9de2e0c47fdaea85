//! Log lines of the Rust side, in stock's form on stderr.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

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
        let now = chrono::Local::now().format("%Y-%m-%d %H:%M:%S,%3f");
        let level = match *event.metadata().level() {
            tracing::Level::WARN => "WARNING",
            other => other.as_str(),
        };
        let target = event.metadata().target();
        // Ours are not names that anybody configures.
        let name = match target.starts_with("distributed.") {
            true => target,
            false => "distributed.worker",
        };
        write!(writer, "{now} - {name} - {level} - ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
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
