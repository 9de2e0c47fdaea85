//! What a measurement says: a table for the terminal, JSON and an HTML page with plots under `target/bench`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::load::Suite;
use super::median;
use crate::stock::Kind;

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

/// JSON, and a page with a plot per figure.
pub(super) fn write(suite: Suite, folder: &Path, record: &Value) -> Result<()> {
    let json = folder.join(format!("{}.json", suite.name()));
    fs::write(&json, serde_json::to_string_pretty(record)?)?;
    let html = folder.join(format!("{}.html", suite.name()));
    fs::write(&html, page(suite, record))?;
    println!("written: {} and {}", json.display(), html.display());
    Ok(())
}

fn page(suite: Suite, record: &Value) -> String {
    let points = record.get("points").and_then(Value::as_array);
    let points = points.map_or(&[][..], Vec::as_slice);
    let mut releases: Vec<&str> = points
        .iter()
        .filter_map(|p| p.get("release")?.as_str())
        .collect();
    releases.dedup();
    let mut out = format!(
        "<!doctype html><meta charset=utf-8><title>{0}</title><style>body{{font:15px sans-serif;margin:2em}}\
         .stock{{fill:#c60;stroke:#c60}}.native{{fill:#06c;stroke:#06c}}</style><h1>{0}</h1><p>{1}</p>\
         <p><b class=stock style=color:#c60>stock</b> <b style=color:#06c>native</b>; both axes are logarithmic</p>\n",
        suite.name(),
        record.get("machine").unwrap_or(&Value::Null),
    );
    for release in releases {
        let here: Vec<&Value> = points.iter().filter(|p| p["release"] == release).collect();
        let _ = writeln!(out, "<h2>{release}</h2>");
        for (path, text, more) in suite.figures() {
            let at = |point: &Value| {
                let pairs = point["pairs"].as_array().map_or(&[][..], Vec::as_slice);
                let [stock, native, ..] = summary(pairs, path, *more);
                (point["x"].as_f64().unwrap_or(0.0), stock, native)
            };
            let series: Vec<_> = here.iter().map(|point| at(point)).collect();
            out.push_str(&plot(text, &series));
        }
    }
    out
}

/// Stock and native figures over what is varied.
fn plot(title: &str, series: &[(f64, f64, f64)]) -> String {
    const WIDTH: f64 = 420.0;
    const HEIGHT: f64 = 220.0;
    const EDGE: f64 = 45.0;
    let log = |value: f64| value.max(1e-6).log10();
    let range = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low, (high - low).max(1e-3))
    };
    let (left, across) = range(series.iter().map(|s| log(s.0)).collect());
    let (low, up) = range(series.iter().flat_map(|s| [log(s.1), log(s.2)]).collect());
    let x = |value: f64| EDGE + (log(value) - left) / across * (WIDTH - 2.0 * EDGE);
    let y = |value: f64| HEIGHT - EDGE - (log(value) - low) / up * (HEIGHT - 2.0 * EDGE);
    let mut out = format!("<svg width={WIDTH} height={HEIGHT}><text x=10 y=15>{title}</text>");
    for (class, pick) in [("stock", 1), ("native", 2)] {
        let figures = series
            .iter()
            .map(|s| (s.0, if pick == 1 { s.1 } else { s.2 }));
        let figures: Vec<_> = figures.filter(|(_, figure)| figure.is_finite()).collect();
        let line: Vec<_> = figures
            .iter()
            .map(|&(at, figure)| format!("{:.0},{:.0}", x(at), y(figure)))
            .collect();
        let _ = write!(
            out,
            "<polyline class={class} style=fill:none points='{}'/>",
            line.join(" ")
        );
        for (at, figure) in figures {
            let _ = write!(
                out,
                "<circle class={class} cx={0:.0} cy={1:.0} r=3 /><text x={0:.0} y={2:.0} font-size=11>{figure:.3}</text>\
                 <text x={0:.0} y={3} font-size=11>{at}</text>",
                x(at),
                y(figure),
                y(figure) - 6.0,
                HEIGHT - 10.0,
            );
        }
    }
    out + "</svg>\n"
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
        let page = page(Suite::Zero, &record);
        assert_eq!(page.matches("<svg").count(), Suite::Zero.figures().len());
        assert!(page.contains("tasks per second") && page.contains("<h2>2.30.1</h2>"));
    }
}
