//! `distributed.admin.log-format`: Python's `%(name)s` form of log lines.

use std::fmt::Write as _;

use super::levels::{level_name, level_number};
use chrono::{DateTime, Local};
use tracing::Level;

/// A parsed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A field, padded to so many characters: on the left, or (true) on the right.
    Field(Field, usize, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Asctime,
    Created,
    Name,
    LevelName,
    LevelNumber,
    Message,
    Process,
    Thread,
    /// Fields of Python code positions; a line of ours has none.
    Nothing,
}

/// One event, ready to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) time: DateTime<Local>,
    pub(super) name: &'a str,
    pub(super) level: Level,
    pub(super) message: &'a str,
}

/// Widths beyond this are not honoured.
const MAX_WIDTH: usize = 200;

impl Pattern {
    /// Parses a format; what is not understood stays as it is.
    #[must_use]
    pub fn parse(format: &str) -> Self {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at(at);
            text.push_str(before);
            if let Some((field, after)) = directive(from) {
                parts.push(Part::Text(std::mem::take(&mut text)));
                parts.push(field);
                rest = after;
            } else {
                text.push('%');
                rest = from
                    .strip_prefix("%%")
                    .or(from.strip_prefix('%'))
                    .unwrap_or_default();
            }
        }
        text.push_str(rest);
        parts.push(Part::Text(text));
        parts.retain(|part| *part != Part::Text(String::new()));
        Self { parts }
    }

    pub(super) fn write(&self, record: &Record<'_>) -> String {
        let mut line = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field(field, width, left) => {
                    let value = field.value(record);
                    let padding = width.saturating_sub(value.chars().count());
                    let pad = |line: &mut String| line.extend(std::iter::repeat_n(' ', padding));
                    if !left {
                        pad(&mut line);
                    }
                    line.push_str(&value);
                    if *left {
                        pad(&mut line);
                    }
                }
            }
        }
        line
    }
}

/// `%(name)-20s` at the start of `text`, and what follows it.
fn directive(text: &str) -> Option<(Part, &str)> {
    let (name, after) = text.strip_prefix("%(")?.split_once(')')?;
    let left = after.starts_with('-');
    let after = after.trim_start_matches(['-', '0', ' ', '+', '#']);
    let digits = after.len()
        - after
            .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
            .len();
    let (width, after) = after.split_at(digits);
    let after = after.strip_prefix(['s', 'd', 'f', 'r'])?;
    let width = width
        .split('.')
        .next()
        .and_then(|width| width.parse().ok())
        .unwrap_or(0);
    let field = match name {
        "asctime" => Field::Asctime,
        "created" => Field::Created,
        "name" => Field::Name,
        "levelname" => Field::LevelName,
        "levelno" => Field::LevelNumber,
        "message" => Field::Message,
        "process" => Field::Process,
        "threadName" => Field::Thread,
        _ => Field::Nothing,
    };
    Some((
        Part::Field(field, usize::min(width, MAX_WIDTH), left),
        after,
    ))
}

impl Field {
    fn value(self, record: &Record<'_>) -> String {
        match self {
            // The comma before the milliseconds is Python's.
            Self::Asctime => record.time.format("%Y-%m-%d %H:%M:%S,%3f").to_string(),
            Self::Created => format!("{:.6}", seconds(record.time)),
            Self::Name => record.name.to_owned(),
            Self::LevelName => level_name(record.level).to_owned(),
            Self::LevelNumber => level_number(record.level).to_string(),
            Self::Message => record.message.to_owned(),
            Self::Process => std::process::id().to_string(),
            Self::Thread => std::thread::current().name().unwrap_or("?").to_owned(),
            Self::Nothing => String::new(),
        }
    }
}

/// Seconds since 1970.
pub(super) fn seconds(time: DateTime<Local>) -> f64 {
    let mut text = String::new();
    // Parsing the decimal text gives the nearest double, as Python's clock does.
    let written = write!(
        text,
        "{}.{:09}",
        time.timestamp(),
        time.timestamp_subsec_nanos()
    );
    written.ok().and_then(|()| text.parse().ok()).unwrap_or(0.0)
}
