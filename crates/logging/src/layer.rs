//! Turns events into lines: one write to stderr, and one entry of the buffer.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use chrono::{Local, SecondsFormat};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Form;
use super::buffer::{LogBuffer, LogLine};
use super::levels::{level_name, logger_name};
use super::pattern::{Pattern, Record, seconds};

/// Where lines go.
pub(super) type Out = Box<dyn Write + Send>;

/// The layer.
pub(super) struct LogLayer {
    form: Form,
    pattern: Pattern,
    buffer: LogBuffer,
    out: Mutex<Out>,
}

impl LogLayer {
    pub(super) fn new(form: Form, pattern: Pattern, buffer: LogBuffer, out: Out) -> Self {
        Self {
            form,
            pattern,
            buffer,
            out: Mutex::new(out),
        }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let name = logger_name(event.metadata().target());
        let message = fields.text();
        let record = Record {
            time: Local::now(),
            name: &name,
            level: *event.metadata().level(),
            message: &message,
        };
        let text = self.pattern.write(&record);
        let mut line = match &self.form {
            Form::Text => text.clone(),
            Form::Json => json(&record, fields),
        };
        line.push('\n');
        if is_kept(&name, record.level) {
            self.buffer.push(LogLine {
                created: seconds(record.time),
                level: level_name(record.level),
                text: text.into(),
            });
        }
        // Nobody can be told when stderr is closed.
        let _ = self
            .out
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(line.as_bytes());
    }
}

/// The message of an event, and its fields behind it as `name=value`.
#[must_use]
pub fn text_of(event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    fields.text()
}

/// Whether `get_logs` shall tell of it. Stock keeps the lines of its scheduler's or nanny's logger alone; a
/// warning of another part is worth more to those who ask than its absence would be.
fn is_kept(name: &str, level: Level) -> bool {
    name.starts_with("distributed.scheduler")
        || name.starts_with("distributed.nanny")
        || level <= Level::WARN
}

/// The message of an event and its further fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        self.others.push((field.name(), value));
    }

    /// The message, and the fields behind it as `name=value`.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.others {
            let blank = if text.is_empty() { "" } else { " " };
            let _ = match value {
                Value::String(value) => write!(text, "{blank}{name}={value}"),
                value => write!(text, "{blank}{name}={value}"),
            };
        }
        text
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.add(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.add(field, value.into());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

fn json(record: &Record<'_>, fields: Fields) -> String {
    let mut object = Map::new();
    object.insert(
        "timestamp".to_owned(),
        record
            .time
            .to_rfc3339_opts(SecondsFormat::Micros, true)
            .into(),
    );
    object.insert("level".to_owned(), level_name(record.level).into());
    object.insert("logger".to_owned(), record.name.into());
    object.insert("message".to_owned(), fields.message.into());
    for (name, value) in fields.others {
        object.entry(name).or_insert(value);
    }
    Value::Object(object).to_string()
}
