//! Small helpers for pages. All pages are well-formed XML, as stock's are, and link relatively, so that
//! they work behind any prefix.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters that stay themselves in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Text as it may stand in a page.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are not allowed in XML at all.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A link to `folder/<name>.html`, showing the name.
pub fn link(folder: &str, name: &str) -> String {
    let path = utf8_percent_encode(name, SEGMENT);
    format!("<a href=\"{folder}{path}.html\">{}</a>", escape(name))
}

const STYLE: &str = "body{font-family:sans-serif;margin:2em;color:#222}\
    table{border-collapse:collapse;margin:1em 0}th,td{border:1px solid #ddd;padding:.3em .6em;text-align:left}\
    th{background:#f5f5f5}pre{background:#f5f5f5;padding:1em;overflow:auto}a{color:#b5390f}.late td{background:#ffcdd2}";

/// A whole page. `head` goes into its head as it is.
pub fn page(title: &str, head: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>{title}</title>{head}\
         <style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"
    )
}

/// A table; cells are markup already.
pub fn table(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = "<table><thead><tr>".to_owned();
    for header in headers {
        let _ = write!(out, "<th>{}</th>", escape(header));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
    out
}

/// `1.50 GiB`.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn bytes(amount: u64) -> String {
    let units = [
        ("PiB", 50),
        ("TiB", 40),
        ("GiB", 30),
        ("MiB", 20),
        ("kiB", 10),
    ];
    let amount = amount as f64;
    for (unit, power) in units {
        let size = 2f64.powi(power);
        if amount >= size * 0.9 {
            return format!("{:.2} {unit}", amount / size);
        }
    }
    format!("{amount} B")
}

/// `12.50 ms`, `3m 5s`.
pub fn seconds(time: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, for people"
    )]
    let whole = time.max(0.0) as u64;
    match time {
        time if time >= 2.0 * 86_400.0 => {
            format!("{}d {}hr", whole / 86_400, whole % 86_400 / 3600)
        }
        time if time >= 2.0 * 3600.0 => format!("{}hr {}m", whole / 3600, whole % 3600 / 60),
        time if time >= 600.0 => format!("{}m {}s", whole / 60, whole % 60),
        time if time >= 1.0 => format!("{time:.2} s"),
        time if time >= 1e-3 => format!("{:.2} ms", time * 1e3),
        time => format!("{:.2} us", time * 1e6),
    }
}
