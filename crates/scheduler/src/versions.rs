//! Comparing the packages of peers, as stock does when one registers. The scheduler itself runs no
//! Python, so only peers are compared with each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::context::Context;

/// The packages that a worker told when it registered, or else a client; of one with this release if
/// there is any.
pub fn packages_of_a_peer(context: &Context, release: Release) -> Option<Value> {
    let workers = context.workers.all();
    let clients = context.clients.connected();
    let of_workers = workers.iter().map(|w| (w.release, &*w.versions));
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

/// What workers say of themselves when they register, each kind once: most say the same, and whoever comes is
/// compared with all of them.
#[derive(Debug, Default)]
pub(crate) struct Kinds(Vec<(Arc<Value>, usize)>);

impl Kinds {
    /// Notes what one more worker says; the value that all who say it share.
    pub(crate) fn add(&mut self, versions: &Arc<Value>) -> Arc<Value> {
        if let Some((shared, workers)) = self.0.iter_mut().find(|(kind, _)| kind == versions) {
            *workers += 1;
            return Arc::clone(shared);
        }
        self.0.push((Arc::clone(versions), 1));
        Arc::clone(versions)
    }

    /// A worker that said this has left.
    pub(crate) fn remove(&mut self, versions: &Arc<Value>) {
        let found = self
            .0
            .iter()
            .position(|(kind, _)| Arc::ptr_eq(kind, versions));
        if let Some((at, (_, workers))) = found.and_then(|at| Some((at, self.0.get_mut(at)?))) {
            *workers -= 1;
            if *workers == 0 {
                self.0.remove(at);
            }
        }
    }

    /// All kinds, without that of one worker unless others say the same.
    pub(crate) fn of_others(&self, one: Option<&Arc<Value>>) -> Vec<Arc<Value>> {
        let alone = |(kind, workers): &&(Arc<Value>, usize)| {
            *workers == 1 && one.is_some_and(|one| Arc::ptr_eq(kind, one))
        };
        let others = self.0.iter().filter(|kind| !alone(kind));
        others.map(|(kind, _)| Arc::clone(kind)).collect()
    }
}

/// The warning for a peer (`source`) whose packages differ from those of the workers (each kind of
/// them); empty when they agree.
pub fn mismatch_warning(versions: &Value, source: &str, workers: &[Arc<Value>]) -> String {
    let packages = |versions: &Value| -> Vec<String> {
        let packages = versions.get("packages").and_then(Value::as_map);
        let names = packages.unwrap_or(&[]).iter();
        names
            .filter_map(|(name, _)| name.as_str().map(str::to_owned))
            .collect()
    };
    let mut names: BTreeSet<String> = packages(versions).into_iter().collect();
    for worker in workers {
        names.extend(packages(worker));
    }
    let mut rows = Vec::new();
    for name in names {
        let own = version(versions, &name);
        let theirs: BTreeSet<String> = workers.iter().map(|w| version(w, &name)).collect();
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
        let same = Arc::new(versions(&[("dask", "1"), ("numpy", "2")]));
        let other = Arc::new(versions(&[("dask", "1"), ("numpy", "3")]));
        assert_eq!(mismatch_warning(&client, "Client", &[]), "");
        let workers = [same, other];
        assert_eq!(mismatch_warning(&client, "Client", &workers[..1]), "");
        let warning = mismatch_warning(&client, "Client", &workers);
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

    #[test]
    fn workers_that_say_the_same_share_it() {
        let said = |version| Arc::new(versions(&[("dask", version)]));
        let mut kinds = Kinds::default();
        let first = kinds.add(&said("1"));
        let second = kinds.add(&said("1"));
        let other = kinds.add(&said("2"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(kinds.of_others(None), [said("1"), said("2")]);
        assert_eq!(kinds.of_others(Some(&first)), [said("1"), said("2")]);
        assert_eq!(kinds.of_others(Some(&other)), [said("1")]);
        kinds.remove(&first);
        assert_eq!(kinds.of_others(Some(&second)), [said("2")]);
        kinds.remove(&second);
        kinds.remove(&other);
        assert!(kinds.of_others(None).is_empty());
    }
}
