//! HTML pages with plots, as text: nothing is loaded from elsewhere. Whatever is put in is escaped.

use std::fmt::Write as _;

use serde_json::Value;

use crate::bench::median;

/// Width of a plot, pixels.
const WIDTH: f64 = 420.0;
/// Height of a plot over an axis, pixels.
const HEIGHT: f64 = 220.0;
/// Around what is plotted: room for numbers, pixels.
const EDGE: f64 = 45.0;
/// Of series, in their order: the first is what the others are compared with.
const COLOURS: [&str; 6] = ["#c60", "#06c", "#093", "#909", "#666", "#a00"];

/// A figure of several series.
pub(in crate::bench) struct Row {
    /// What it is about; rows of one group follow each other under one heading.
    pub(in crate::bench) group: String,
    /// The figure, with its unit.
    pub(in crate::bench) text: String,
    /// Name of a series, and its value in each run.
    pub(in crate::bench) series: Vec<(String, Vec<f64>)>,
}

/// A page with a bar for the median of each series of each row, and a thin line from its smallest to its largest value.
pub(in crate::bench) fn bars(title: &str, machine: &Value, rows: &[Row]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.series) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let note = "bars: medians; thin lines: from the smallest to the largest of all runs";
    let mut out = head(title, machine, &names, note);
    let mut group = "";
    for row in rows {
        if row.group != group {
            group = &row.group;
            let _ = writeln!(out, "<h2>{}</h2>", escaped(group));
        }
        out.push_str(&bar_plot(row, &names));
    }
    out
}

/// The start of a page: its title, the machine, the colours of the series, and how to read it.
pub(in crate::bench) fn head(title: &str, machine: &Value, series: &[&str], note: &str) -> String {
    let mut out = format!(
        "<!doctype html><meta charset=utf-8><title>{0}</title><style>body{{font:15px sans-serif;margin:2em}}\
         svg{{margin-right:1em}}",
        escaped(title)
    );
    for (number, colour) in COLOURS.iter().enumerate() {
        let _ = write!(out, ".s{number}{{fill:{colour};stroke:{colour}}}");
    }
    let _ = write!(
        out,
        "</style><h1>{}</h1><p>{}</p><p>",
        escaped(title),
        escaped(&machine.to_string())
    );
    for (number, name) in series.iter().enumerate() {
        let _ = write!(
            out,
            "<b style=color:{}>{}</b> ",
            COLOURS[number % COLOURS.len()],
            escaped(name)
        );
    }
    let _ = writeln!(out, "</p><p>{}</p>", escaped(note));
    out
}

/// Series over what is varied, both axes logarithmic: for each the places on the axis and its figures there.
pub(in crate::bench) fn plot(title: &str, series: &[Vec<(f64, f64)>]) -> String {
    let log = |value: f64| value.max(1e-6).log10();
    let seen = || {
        let points = series.iter().flatten();
        points.filter(|(_, figure)| figure.is_finite())
    };
    let (left, across) = range(seen().map(|&(at, _)| log(at)));
    let (low, up) = range(seen().map(|&(_, figure)| log(figure)));
    let x = |value: f64| EDGE + (log(value) - left) / across * (WIDTH - 2.0 * EDGE);
    let y = |value: f64| HEIGHT - EDGE - (log(value) - low) / up * (HEIGHT - 2.0 * EDGE);
    let mut out = svg(title, HEIGHT);
    for (number, series) in series.iter().enumerate() {
        let figures = series.iter().filter(|(_, figure)| figure.is_finite());
        let places: Vec<_> = figures
            .clone()
            .map(|&(at, figure)| (x(at), y(figure)))
            .collect();
        polyline(&mut out, number, &places);
        for (&(at, figure), (x, y)) in figures.zip(places) {
            let _ = write!(
                out,
                "<circle class={} cx={x:.0} cy={y:.0} r=3 /><text x={x:.0} y={:.0} font-size=11>{figure:.3}</text>\
                 <text x={x:.0} y={} font-size=11>{at}</text>",
                class(number),
                y - 6.0,
                HEIGHT - 10.0,
            );
        }
    }
    out + "</svg>\n"
}

/// One series over time, from 0 up: seconds and figures.
pub(in crate::bench) fn timeline(title: &str, series: &[(f64, f64)]) -> String {
    let most = |values: Vec<f64>| values.into_iter().fold(f64::MIN_POSITIVE, f64::max);
    let end = most(series.iter().map(|point| point.0).collect());
    let top = most(series.iter().map(|point| point.1).collect());
    let x = |at: f64| EDGE + at / end * (WIDTH - 2.0 * EDGE);
    let y = |figure: f64| HEIGHT - EDGE - figure / top * (HEIGHT - 2.0 * EDGE);
    let mut out = svg(title, HEIGHT);
    let places: Vec<_> = series.iter().map(|&(at, f)| (x(at), y(f))).collect();
    polyline(&mut out, 1, &places);
    let _ = writeln!(
        out,
        "<path d='M{EDGE} {EDGE}V{0}H{1}' fill=none stroke=#999 /><text x=2 y={EDGE} font-size=11>{top:.1}</text>\
         <text x=2 y={0} font-size=11>0</text><text x={1} y={2} font-size=11>{end:.0} s</text></svg>",
        HEIGHT - EDGE,
        WIDTH - EDGE,
        HEIGHT - EDGE + 15.0,
    );
    out
}

fn bar_plot(row: &Row, names: &[&str]) -> String {
    const TOP: f64 = 26.0;
    const BAR: f64 = 14.0;
    const STEP: f64 = 20.0;
    /// For the number behind a bar.
    const NUMBER: f64 = 75.0;
    let finite = |values: &[f64]| -> Vec<f64> {
        let values = values.iter().copied();
        values.filter(|value| value.is_finite()).collect()
    };
    let all = row.series.iter().flat_map(|(_, values)| finite(values));
    let scale = (WIDTH - NUMBER) / all.fold(f64::MIN_POSITIVE, f64::max);
    let mut out = svg(&row.text, TOP + STEP * row.series.len() as f64);
    for (at, (name, values)) in row.series.iter().enumerate() {
        let values = finite(values);
        if values.is_empty() {
            continue;
        }
        let y = TOP + STEP * at as f64;
        // Memory that a process has given back is less than none.
        let x = |value: f64| (value * scale).max(0.0);
        let (low, spread) = range(values.iter().copied());
        let middle = median(values);
        let number = names.iter().position(|known| known == name).unwrap_or(0);
        let _ = write!(
            out,
            "<rect class={0} x=0 y={y} width={1:.1} height={BAR}><title>{2}</title></rect>\
             <path d='M{3:.1} {4}H{5:.1}' stroke=#000 /><text x={6:.1} y={7} font-size=11>{middle:.2}</text>",
            class(number),
            x(middle),
            escaped(name),
            x(low),
            y + BAR / 2.0,
            x(low + spread),
            x(low + spread) + 4.0,
            y + BAR - 3.0,
        );
    }
    out + "</svg>\n"
}

/// The smallest value, and how much larger the largest is: never nothing, since it divides.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let bounds = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values.fold(bounds, |(low, high), value| {
        (low.min(value), high.max(value))
    });
    (low, (high - low).max(1e-3))
}

fn svg(title: &str, height: f64) -> String {
    let title = escaped(title);
    format!("<svg width={WIDTH} height={height}><text x=10 y=15>{title}</text>")
}

fn polyline(out: &mut String, number: usize, places: &[(f64, f64)]) {
    let places: Vec<_> = places
        .iter()
        .map(|(x, y)| format!("{x:.0},{y:.0}"))
        .collect();
    let _ = write!(
        out,
        "<polyline class={} style=fill:none points='{}'/>",
        class(number),
        places.join(" ")
    );
}

fn class(number: usize) -> String {
    format!("s{}", number % COLOURS.len())
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(group: &str, series: &[(&str, &[f64])]) -> Row {
        let series = series.iter();
        Row {
            group: group.to_owned(),
            text: "wall, s".to_owned(),
            series: series
                .map(|(name, values)| ((*name).to_owned(), values.to_vec()))
                .collect(),
        }
    }

    #[test]
    fn a_bar_is_as_long_as_the_median_and_its_line_as_the_spread() {
        let rows = [row("a", &[("stock", &[1.0, 2.0, 4.0]), ("native", &[1.0])])];
        let page = bars("tasks", &Value::Null, &rows);
        // 345 pixels for the largest value there is.
        assert!(page.contains("class=s0 x=0 y=26 width=172.5"), "{page}");
        assert!(page.contains("M86.2 33H345.0"), "{page}");
        assert!(page.contains("class=s1 x=0 y=46 width=86.2"), "{page}");
    }

    #[test]
    fn rows_of_a_group_are_under_one_heading() {
        let rows = ["a", "a", "b"].map(|group| row(group, &[("stock", &[1.0])]));
        let page = bars("tasks", &Value::Null, &rows);
        assert_eq!(page.matches("<h2>").count(), 2);
        assert_eq!(page.matches("<svg").count(), 3);
    }

    #[test]
    fn a_series_has_its_colour_also_where_another_is_missing() {
        let both = row("a", &[("stock", &[1.0]), ("native", &[1.0])]);
        let one = row("b", &[("native", &[1.0])]);
        let page = bars("tasks", &Value::Null, &[both, one]);
        assert_eq!(page.matches("<rect class=s1").count(), 2);
    }

    #[test]
    fn figures_that_are_missing_have_no_bar() {
        let rows = [row("a", &[("stock", &[]), ("native", &[f64::NAN])])];
        let page = bars("tasks", &Value::Null, &rows);
        assert!(!page.contains("<rect") && !page.contains("NaN"), "{page}");
    }

    #[test]
    fn what_is_put_in_is_escaped() {
        let rows = [row("<a>", &[("<b>", &[1.0])])];
        let page = bars("1 < 2 & 3", &json!({"cpu": "<x>"}), &rows);
        for raw in ["<a>", "<b>", "<x>", "2 & 3"] {
            assert!(!page.contains(raw), "{raw}");
        }
        assert!(page.contains("&lt;a&gt;") && page.contains("1 &lt; 2 &amp; 3"));
    }

    #[test]
    fn a_timeline_goes_from_nothing_to_the_largest() {
        let plot = timeline("memory, MiB", &[(0.0, 0.0), (5.0, 1.0), (10.0, 2.0)]);
        assert!(plot.contains("points='45,175 210,110 375,45'"), "{plot}");
        assert!(plot.contains(">2.0<") && plot.contains(">10 s<"), "{plot}");
        assert!(!timeline("memory, MiB", &[]).contains("NaN"));
    }
}
