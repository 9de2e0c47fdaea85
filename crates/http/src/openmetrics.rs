//! The two text formats of Prometheus: the classic one (0.0.4) and OpenMetrics (1.0.0).

use std::fmt::Write as _;

/// Which format a scraper wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    #[default]
    Text,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// By the `Accept` header of a request. As with the client libraries, whoever can read OpenMetrics
    /// and does not rank it below the text format gets it.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        let quality = |wanted: &str| {
            let mut ranges = header
                .split(',')
                .map(|range| range.split(';').map(str::trim));
            ranges.find_map(|mut parts| {
                if !parts.next()?.eq_ignore_ascii_case(wanted) {
                    return None;
                }
                let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
                Some(quality.unwrap_or(1.0))
            })
        };
        match quality("application/openmetrics-text") {
            Some(own) if own > 0.0 && own >= quality("text/plain").unwrap_or(0.0) => {
                Self::OpenMetrics
            }
            _ => Self::Text,
        }
    }

    /// For the reply's `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows; its samples end in `_total`.
    Counter,
    /// Anything.
    Gauge,
}

/// A page being written.
pub struct Page {
    format: Format,
    text: String,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
        }
    }

    /// One family; `name` may or may not have `_total` already.
    pub fn family<'v>(
        &mut self,
        name: &str,
        help: &str,
        kind: Kind,
        samples: impl IntoIterator<Item = (Vec<(&'v str, &'v str)>, f64)>,
    ) {
        let base = match kind {
            Kind::Counter => name.strip_suffix("_total").unwrap_or(name),
            Kind::Gauge => name,
        };
        let (sample, kind) = match kind {
            Kind::Counter => (format!("{base}_total"), "counter"),
            Kind::Gauge => (base.to_owned(), "gauge"),
        };
        let family = match self.format {
            Format::Text => sample.as_str(),
            Format::OpenMetrics => base,
        };
        let mut help = help.replace('\\', "\\\\").replace('\n', "\\n");
        if self.format == Format::OpenMetrics {
            help = help.replace('"', "\\\"");
        }
        let _ = writeln!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind}");
        for (labels, value) in samples {
            self.text.push_str(&sample);
            for (index, (label, text)) in labels.iter().enumerate() {
                let open = if index == 0 { '{' } else { ',' };
                let text = text
                    .replace('\\', "\\\\")
                    .replace('\n', "\\n")
                    .replace('"', "\\\"");
                let _ = write!(self.text, "{open}{label}=\"{text}\"");
            }
            let close = if labels.is_empty() { "" } else { "}" };
            let _ = writeln!(self.text, "{close} {}", Number(value));
        }
    }

    /// A family without labels.
    pub fn one(&mut self, name: &str, help: &str, kind: Kind, value: f64) {
        self.family(name, help, kind, [(Vec::new(), value)]);
    }

    /// The text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A figure in the spelling of the format.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            value if value.is_nan() => out.write_str("NaN"),
            f64::INFINITY => out.write_str("+Inf"),
            f64::NEG_INFINITY => out.write_str("-Inf"),
            value => write!(out, "{value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_what_is_accepted() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let table = [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html,*/*;q=0.8", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (prometheus, Format::OpenMetrics),
            (
                "text/plain, Application/OpenMetrics-Text; version=1.0.0",
                Format::OpenMetrics,
            ),
            (
                "text/plain;q=0.9, application/openmetrics-text;q=0.2",
                Format::Text,
            ),
            ("application/openmetrics-text;q=0", Format::Text),
        ];
        for (header, format) in table {
            assert_eq!(Format::accepted(header), format, "{header}");
        }
    }

    #[test]
    fn families_of_openmetrics_have_no_suffix() {
        let mut page = Page::new(Format::OpenMetrics);
        page.one("a_total", "x \"y\"", Kind::Counter, 1.0);
        page.family(
            "b",
            "z",
            Kind::Gauge,
            [(vec![("l", "v\"\n")], f64::INFINITY)],
        );
        assert_eq!(
            page.finish(),
            "# HELP a x \\\"y\\\"\n# TYPE a counter\na_total 1.0\n\
             # HELP b z\n# TYPE b gauge\nb{l=\"v\\\"\\n\"} +Inf\n# EOF\n"
        );
    }
}
