//! What a measurement says: a table for the terminal, JSON and an HTML page with plots (`page`) under `target/bench`.

pub(super) mod page;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::load::Suite;
use super::median;
use crate::stock::Kind;
use page::Row;

/// Where it was measured.
pub(super) fn machine() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "cpu": model.map(|(_, name)| name),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "load_average": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "unix_time": std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    })
}

/// Figures of one kind of scheduler at one point.
fn values(pairs: &[Value], kind: Kind, path: &str) -> Vec<f64> {
    let runs = pairs.iter().filter_map(|pair| pair.get(kind.name()));
    runs.filter_map(|run| run.pointer(path)?.as_f64()).collect()
}

/// Medians of both, median of the ratios pair by pair (above 1 where native is better), and their smallest and largest.
pub(super) fn summary(pairs: &[Value], path: &str, more_is_better: bool) -> [f64; 5] {
    let (stock, native) = (
        values(pairs, Kind::Stock, path),
        values(pairs, Kind::Native, path),
    );
    let ratios: Vec<f64> = stock
        .iter()
        .zip(&native)
        .map(|(stock, native)| match more_is_better {
            true => native / stock,
            false => stock / native,
        })
        .collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [median(stock), median(native), median(ratios), least, most]
}

/// A table of one point.
pub(super) fn print(suite: Suite, release: &str, axis: &str, x: u64, pairs: &[Value]) {
    println!(
        "\n{} {release}, {axis} {x}, {} pairs (medians)",
        suite.name(),
        pairs.len()
    );
    println!(
        "{:<42} {:>12} {:>12} {:>10} {:>17}",
        "", "stock", "native", "better by", "spread"
    );
    for (path, text, more) in suite.figures() {
        let [stock, native, ratio, least, most] = summary(pairs, path, *more);
        if stock.is_nan() && native.is_nan() {
            continue;
        }
        if ratio.is_nan() {
            println!("{text:<42} {:>12} {native:>12.2}", "");
            continue;
        }
        println!(
            "{text:<42} {stock:>12.2} {native:>12.2} {ratio:>9.1}× {least:>7.1} – {most:>6.1}×"
        );
    }
    println!();
}

/// Writes JSON and an HTML page to files of this name, and says so.
pub(super) fn write(folder: &Path, name: &str, record: &Value, page: &str) -> Result<()> {
    let json = folder.join(format!("{name}.json"));
    fs::write(&json, serde_json::to_string_pretty(record)?)?;
    let html = folder.join(format!("{name}.html"));
    fs::write(&html, page)?;
    println!("written: {} and {}", json.display(), html.display());
    Ok(())
}

/// The stock and the native values of a figure in all pairs, for a page.
pub(super) fn row(group: &str, text: &str, pairs: &[Value], path: &str) -> Row {
    let series = [Kind::Stock, Kind::Native];
    Row {
        group: group.to_owned(),
        text: text.to_owned(),
        series: series
            .map(|kind| (kind.name().to_owned(), values(pairs, kind, path)))
            .into(),
    }
}

/// A page with a plot per figure of a suite of the load generator.
pub(super) fn load_page(suite: Suite, record: &Value) -> String {
    let points = record.get("points").and_then(Value::as_array);
    let points = points.map_or(&[][..], Vec::as_slice);
    let mut releases: Vec<&str> = points
        .iter()
        .filter_map(|p| p.get("release")?.as_str())
        .collect();
    releases.dedup();
    let machine = record.get("machine").unwrap_or(&Value::Null);
    let note = format!("both axes are logarithmic; across: {}", suite.axis());
    let kinds = [Kind::Stock, Kind::Native];
    let mut out = page::head(suite.name(), machine, &kinds.map(Kind::name), &note);
    for release in releases {
        let here = || points.iter().filter(|p| p["release"] == release);
        let _ = writeln!(out, "<h2>{release}</h2>");
        for (path, text, _) in suite.figures() {
            let at = |point: &Value, kind| {
                let pairs = point["pairs"].as_array().map_or(&[][..], Vec::as_slice);
                let x = point["x"].as_f64().unwrap_or(0.0);
                (x, median(values(pairs, kind, path)))
            };
            let series = kinds.map(|kind| here().map(|point| at(point, kind)).collect());
            out.push_str(&page::plot(text, &series));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(stock: f64, native: f64) -> Value {
        json!({"stock": {"a": {"b": stock}}, "native": {"a": {"b": native}}})
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let pairs = [pair(10.0, 1.0), pair(20.0, 10.0), pair(30.0, 1.0)];
        assert_eq!(summary(&pairs, "/a/b", false), [20.0, 1.0, 10.0, 2.0, 30.0]);
        assert_eq!(summary(&pairs[..1], "/a/b", true)[2], 0.1);
    }

    #[test]
    fn the_page_has_a_plot_of_each_figure() {
        let point = |x: u64| json!({"release": "2.30.1", "x": x, "pairs": [{"stock": {"tasks_per_second": 10.0}}]});
        let record = json!({"points": [point(1), point(10)]});
        let page = load_page(Suite::Zero, &record);
        assert_eq!(page.matches("<svg").count(), Suite::Zero.figures().len());
        assert!(page.contains("tasks per second") && page.contains("<h2>2.30.1</h2>"));
    }
}
