//! Comparing the packages of peers, as stock does when one registers. The scheduler itself runs no
//! Python, so only peers are compared with each other.

use std::collections::BTreeSet;

use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::context::Context;

/// The packages that a worker told when it registered, or else a client; of one with this release if
/// there is any.
pub fn packages_of_a_peer(context: &Context, release: Release) -> Option<Value> {
    let workers = context.workers.all();
    let clients = context.clients.connected();
    let of_workers = workers.iter().map(|w| (w.release, &w.versions));
    let of_clients = clients
        .iter()
        .filter_map(|client| client.connection.as_ref())
        .map(|connection| (connection.release, &connection.versions));
    let mut peers: Vec<_> = of_workers
        .chain(of_clients)
        .filter_map(|(release, versions)| Some((release, versions.get("packages")?)))
        .filter(|(_, packages)| packages.as_map().is_some())
        .collect();
    // Stable: workers stay before clients.
    peers.sort_by_key(|(of_peer, _)| *of_peer != release);
    peers.first().map(|(_, packages)| (*packages).clone())
}

/// The machine that the scheduler runs on, under stock's names.
pub fn host() -> Value {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| "None".to_owned());
    let byteorder = if cfg!(target_endian = "little") {
        "little"
    } else {
        "big"
    };
    Value::map([
        ("python", Value::Nil),
        ("python-bits", 64.into()),
        ("OS", std::env::consts::OS.into()),
        ("machine", std::env::consts::ARCH.into()),
        ("byteorder", byteorder.into()),
        ("LC_ALL", variable("LC_ALL").into()),
        ("LANG", variable("LANG").into()),
    ])
}

/// What a peer says of one package.
fn version(versions: &Value, package: &str) -> String {
    match versions.get("packages") {
        None => "UNKNOWN".to_owned(),
        Some(packages) => match packages.get(package) {
            None => "MISSING".to_owned(),
            Some(Value::Str(version)) => version.clone(),
            Some(_) => "None".to_owned(),
        },
    }
}

/// The warning for a peer (`source`) whose packages differ from those of the workers; empty when
/// they agree.
pub fn mismatch_warning<'a>(
    versions: &Value,
    source: &str,
    workers: impl Iterator<Item = (&'a str, &'a Value)>,
) -> String {
    let workers: Vec<(&str, &Value)> = workers.collect();
    let packages = |versions: &Value| -> Vec<String> {
        let packages = versions.get("packages").and_then(Value::as_map);
        let names = packages.unwrap_or(&[]).iter();
        names
            .filter_map(|(name, _)| name.as_str().map(str::to_owned))
            .collect()
    };
    let mut names: BTreeSet<String> = packages(versions).into_iter().collect();
    for (_, worker) in &workers {
        names.extend(packages(worker));
    }
    let mut rows = Vec::new();
    for name in names {
        let own = version(versions, &name);
        let theirs: BTreeSet<String> = workers.iter().map(|(_, w)| version(w, &name)).collect();
        if theirs.iter().all(|version| *version == own) {
            continue;
        }
        let theirs = match theirs.len() {
            1 => theirs.into_iter().next().unwrap_or_default(),
            _ => {
                let quoted: Vec<String> = theirs.iter().map(|v| format!("'{v}'")).collect();
                format!("{{{}}}", quoted.join(", "))
            }
        };
        rows.push([name, own, "None".to_owned(), theirs]);
    }
    if rows.is_empty() {
        return String::new();
    }
    let table = ascii_table(["Package", source, "Scheduler", "Workers"], &rows);
    format!("Mismatched versions found\n\n{table}")
}

fn ascii_table<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|i| {
        let cells = rows.iter().filter_map(|row| row.get(i));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(columns.get(i).map_or(0, |c| c.chars().count()))
    });
    let line = |cells: &[&str]| {
        let padded = cells.iter().zip(widths);
        let padded: Vec<String> = padded
            .map(|(cell, width)| format!(" {cell:width$} |"))
            .collect();
        format!("|{}", padded.concat())
    };
    let bars: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let bar = format!("+{}+", bars.join("+"));
    let mut out = vec![bar.clone(), line(&columns), bar.clone()];
    out.extend(
        rows.iter()
            .map(|row| line(&row.each_ref().map(String::as_str))),
    );
    out.push(bar);
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(packages: &[(&str, &str)]) -> Value {
        Value::map([("packages", Value::map(packages.iter().copied()))])
    }

    #[test]
    fn only_differences_are_reported() {
        let client = versions(&[("dask", "1"), ("numpy", "2")]);
        let same = versions(&[("dask", "1"), ("numpy", "2")]);
        let other = versions(&[("dask", "1"), ("numpy", "3")]);
        assert_eq!(mismatch_warning(&client, "Client", [].into_iter()), "");
        assert_eq!(
            mismatch_warning(&client, "Client", [("a", &same)].into_iter()),
            ""
        );
        let warning =
            mismatch_warning(&client, "Client", [("a", &same), ("b", &other)].into_iter());
        assert_eq!(
            warning,
            "Mismatched versions found\n\n\
             +---------+--------+-----------+------------+\n\
             | Package | Client | Scheduler | Workers    |\n\
             +---------+--------+-----------+------------+\n\
             | numpy   | 2      | None      | {'2', '3'} |\n\
             +---------+--------+-----------+------------+"
        );
    }
}
