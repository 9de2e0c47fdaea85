//! `cargo xtask tidy`: what neither rustfmt nor clippy looks at.
//!
//! Lengths of files and functions, style of the Python here (ruff), and who depends on whom. The rule about dependencies is read from the table in
//! `docs/architecture.md`, so the page cannot say something else than the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::envs;
use crate::releases::TOOLS;
use crate::workspace;

/// A file that is longer holds more than one concern.
const FILE_LINES_MAX: usize = 800;
/// A function that is longer does not fit in a head. The aim is 80; this is where it stops being a matter of taste.
const FUNCTION_LINES_MAX: usize = 100;
/// What a crate without I/O must not use, ours or not.
const NOT_IN_A_CORE: [&str; 5] = ["tokio", "mio", "socket2", "rand", "tracing-subscriber"];

/// What `cargo xtask tidy` takes.
#[derive(clap::Args)]
pub(crate) struct Options {}

/// Prints every finding; any finding is an error.
pub(crate) fn run(_options: &Options) -> Result<()> {
    let mut findings = Vec::new();
    lengths(&mut findings)?;
    dependencies(&mut findings)?;
    python_style(&mut findings)?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} finding(s)", findings.len());
    }
    println!("tidy: nothing found");
    Ok(())
}

fn lengths(findings: &mut Vec<String>) -> Result<()> {
    let files = workspace::output_of(
        Command::new("git")
            .current_dir(workspace::root())
            .args(["ls-files", "*.rs", "*.py"]),
    )?;
    for file in files.lines() {
        // A file that is deleted but not committed is listed, too.
        let Ok(text) = fs::read_to_string(workspace::root().join(file)) else {
            continue;
        };
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!(
                "{file}: {lines} lines, the limit is {FILE_LINES_MAX}"
            ));
        }
        // A test may be a long list of examples.
        if file.ends_with(".rs") && !file.contains("/tests/") {
            for (line, name, length) in long_functions(&text) {
                findings.push(format!(
                    "{file}:{line}: fn {name} has {length} lines, the limit is {FUNCTION_LINES_MAX}"
                ));
            }
        }
    }
    Ok(())
}

/// ruff prints what it finds by itself.
fn python_style(findings: &mut Vec<String>) -> Result<()> {
    let ruff = envs::ensure(TOOLS)?.with_file_name("ruff");
    for arguments in [["check", "--quiet", "."], ["format", "--check", "."]] {
        let status = Command::new(&ruff)
            .current_dir(workspace::root())
            .args(arguments)
            .status()?;
        if !status.success() {
            findings.push(format!(
                "python: `ruff {}` found something",
                arguments.join(" ")
            ));
        }
    }
    Ok(())
}

/// Functions over the limit: line number, name, length. Relies on rustfmt: a function ends at the brace in its column.
fn long_functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[at..].iter().position(|line| **line == closing) else {
            continue;
        };
        if length + 1 > FUNCTION_LINES_MAX {
            found.push((at + 1, name.to_owned(), length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for word in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "async ",
        "unsafe ",
    ] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    // A body on the same line, or none at all, is not long.
    if line.ends_with('}') || line.ends_with(';') {
        return None;
    }
    rest.split(['(', '<']).next()
}

fn dependencies(findings: &mut Vec<String>) -> Result<()> {
    let page = fs::read_to_string(workspace::root().join("docs/architecture.md"))?;
    let rules = rules(&page);
    let text = workspace::output_of(workspace::cargo().args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata
        .get("packages")
        .and_then(Value::as_array)
        .context("cargo metadata lists packages")?;
    for package in packages {
        let name = short_name(package);
        let Some(allowed) = rules.get(name) else {
            findings.push(format!(
                "crate {name} is missing in the table of docs/architecture.md"
            ));
            continue;
        };
        let listed = package
            .get("dependencies")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        // Tests may use more (`kind` is null for what the crate itself uses).
        for dependency in listed
            .iter()
            .filter(|dependency| dependency.get("kind").is_none_or(Value::is_null))
        {
            let used = short_name(dependency);
            if dependency.get("path").is_some_and(Value::is_string) && !allowed.contains(used) {
                findings.push(format!(
                    "crate {name} uses {used}, which docs/architecture.md does not allow"
                ));
            }
            if name.ends_with("-core") && NOT_IN_A_CORE.contains(&used) {
                findings.push(format!(
                    "crate {name} uses {used}: a core does no I/O and takes chance from outside"
                ));
            }
        }
    }
    Ok(())
}

fn short_name(package: &Value) -> &str {
    let name = package
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    name.strip_prefix("oxidask-").unwrap_or(name)
}

/// Reads the table "crate | holds | may use": a list of names, or "all of the above", or words for none.
fn rules(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut rules = BTreeMap::new();
    let mut above = BTreeSet::new();
    for line in page.lines() {
        let cells: Vec<_> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let [name, _, uses] = cells.as_slice() else {
            continue;
        };
        let Some(name) = name
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'))
        else {
            continue;
        };
        let allowed: BTreeSet<String> = match *uses {
            "all of the above" => above.clone(),
            uses => uses
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect(),
        };
        above.insert(name.to_owned());
        rules.insert(name.to_owned(), allowed);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::{FUNCTION_LINES_MAX, function_name, long_functions, rules};

    #[test]
    fn the_table_of_crates_is_understood() {
        let rules = rules(
            "| crate | holds | may use |\n| --- | --- | --- |\n| `key` | keys | nothing of ours |\n\
             | `wire` | frames | `key` |\n| `scheduler` | it | all of the above |\n",
        );
        assert_eq!(rules.len(), 3);
        assert!(rules["key"].is_empty());
        assert!(rules["wire"].contains("key"));
        assert!(rules["scheduler"].contains("key") && rules["scheduler"].contains("wire"));
    }

    #[test]
    fn long_functions_are_found_by_their_closing_brace() {
        let body = "        let _ = 1;\n".repeat(FUNCTION_LINES_MAX);
        let text = format!(
            "impl A {{\n    pub(crate) async fn long<T>(&self) {{\n{body}    }}\n\n    fn short() {{\n    }}\n}}\n"
        );
        assert_eq!(
            long_functions(&text),
            [(2, "long".to_owned(), FUNCTION_LINES_MAX + 2)]
        );
    }

    #[test]
    fn names_of_functions() {
        assert_eq!(
            function_name("    pub const fn get(self) -> u32 {"),
            Some("get")
        );
        assert_eq!(function_name("    fn declared(&self);"), None);
        assert_eq!(function_name("    let fn_name = 1;"), None);
    }
}
