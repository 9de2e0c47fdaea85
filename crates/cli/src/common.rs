//! What both command lines do with what clap read.

use std::path::PathBuf;

/// Empty text stands for "not given" in stock's scripts (`--host ""`).
pub(crate) fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

pub(crate) fn path(text: Option<String>) -> Option<PathBuf> {
    non_empty(text).map(PathBuf::from)
}

/// A pair such as `--dashboard/--no-dashboard`: clap keeps the last one given.
pub(crate) fn pair(on: bool, off: bool) -> Option<bool> {
    match (on, off) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// The warning for an option that changes nothing yet.
pub(crate) fn without_effect(option: &str, reason: &str) -> String {
    format!("option {option} is accepted but has no effect: {reason}")
}

/// The warning for `--bokeh/--no-bokeh` of releases before 2022.10.
pub(crate) fn bokeh_renamed() -> String {
    "the --bokeh/--no-bokeh flag has been renamed to --dashboard/--no-dashboard".to_owned()
}

/// The warning for `--bokeh-port` of releases before 2022.10.
pub(crate) fn bokeh_port_renamed(port: u16) -> String {
    format!("the --bokeh-port option has been renamed; use --dashboard-address :{port}")
}
