//! Results of the harness, and the page made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace;

/// Why tests fail: id and reason.
pub(super) type Reasons = BTreeMap<String, String>;

/// One or more runs of the harness, each of the whole suite or of parts of it.
#[derive(Debug, Default)]
pub(super) struct Results {
    version: String,
    seconds: f64,
    /// How often each test ran, and how often it did not pass.
    tests: BTreeMap<String, (u32, u32)>,
    /// Of each run, how many tests passed and how many there were.
    runs: Vec<(usize, usize)>,
    /// The slow tests are among them.
    slow: bool,
}

impl Results {
    /// Reads what `--json` of the harness wrote.
    pub(super) fn read(files: &[impl AsRef<Path>]) -> Result<Self> {
        let mut all = Self::default();
        for file in files {
            let text = fs::read_to_string(file)
                .context("the harness wrote no result; what it printed says why")?;
            let one = serde_json::from_str(&text).context("the harness' result is not JSON")?;
            all.add(&one)?;
        }
        Ok(all)
    }

    fn add(&mut self, result: &Value) -> Result<()> {
        let tests = result
            .get("tests")
            .and_then(Value::as_object)
            .context("the harness' result has no tests")?;
        let mut passed = 0;
        for (id, record) in tests {
            let failed = record.get("outcome").and_then(Value::as_str) != Some("passed");
            let (runs, failures) = self.tests.entry(id.clone()).or_default();
            *runs += 1;
            *failures += u32::from(failed);
            passed += usize::from(!failed);
        }
        self.runs.push((passed, tests.len()));
        self.seconds += result
            .get("seconds")
            .and_then(Value::as_f64)
            .unwrap_or_default();
        if let Some(version) = result.get("version").and_then(Value::as_str) {
            version.clone_into(&mut self.version);
        }
        Ok(())
    }

    /// Fails if a test of the suite, or of the slow ones if there are any, was not run.
    pub(super) fn expect_complete(&mut self, harness: &Path) -> Result<()> {
        let list = |name: &str| -> Result<BTreeSet<String>> {
            let file = harness.join(format!("suite-{}{name}.txt", self.version));
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            Ok(text
                .lines()
                .filter(|l| !l.is_empty())
                .map(Into::into)
                .collect())
        };
        let slow = list("-slow")?;
        let mut wanted = list("")?;
        self.slow = slow.iter().any(|id| self.tests.contains_key(id));
        if self.slow {
            wanted.extend(slow);
        }
        let missing: Vec<_> = wanted
            .iter()
            .filter(|id| !self.tests.contains_key(*id))
            .collect();
        if let Some(first) = missing.first() {
            bail!("{} tests were not run, e.g. {first}", missing.len());
        }
        Ok(())
    }

    fn failing(&self) -> impl Iterator<Item = &str> {
        let failed = self.tests.iter().filter(|(_, (_, failures))| *failures > 0);
        failed.map(|(id, _)| id.as_str())
    }

    /// Tests with a reason that pass, or that no longer exist.
    pub(super) fn stale<'a>(&'a self, reasons: &'a Reasons) -> impl Iterator<Item = &'a str> {
        let stale = |id: &&str| {
            self.tests
                .get(*id)
                .is_none_or(|(_, failures)| *failures == 0)
        };
        reasons.keys().map(String::as_str).filter(stale)
    }

    /// The page: one row per test file, then the tests that fail and why.
    pub(super) fn page(&self, reasons: &Reasons) -> Result<String> {
        let mut files: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (id, (_, failures)) in &self.tests {
            let file = id.split("::").next().unwrap_or(id);
            let counts = files.entry(file).or_default();
            counts.0 += u64::from(*failures == 0);
            counts.1 += 1;
        }
        let total = self.tests.len();
        let passed = total - self.failing().count();
        let share = 100.0 * passed as f64 / total.max(1) as f64;
        let mut page = String::from("# Conformance with the upstream test-suite\n\n");
        writeln!(page, "**{passed} of {total}** tests pass ({share:.1} %).\n")?;
        self.describe(&mut page)?;
        page.push_str("| file | passed | of |\n| --- | ---: | ---: |\n");
        for (file, (passed, total)) in &files {
            writeln!(page, "| {file} | {passed} | {total} |")?;
        }
        writeln!(page, "| **all** | **{passed}** | **{total}** |")?;
        self.failures(reasons, &mut page)?;
        Ok(page)
    }

    fn describe(&self, page: &mut String) -> Result<()> {
        let date = workspace::output_of(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let commit =
            workspace::output_of(Command::new("git").current_dir(workspace::root()).args([
                "rev-parse",
                "--short",
                "HEAD",
            ]))?;
        let runs = self.tests.values().map(|(runs, _)| *runs).min();
        let runs = match runs.unwrap_or_default() {
            0 | 1 => "once".to_owned(),
            n => {
                let each: Vec<String> = self
                    .runs
                    .iter()
                    .map(|(p, t)| format!("{p} of {t}"))
                    .collect();
                let each = each.join(", ");
                format!("{n} times ({each}; a test passes if it passed each time)")
            }
        };
        let which = if self.slow {
            "with its slow tests"
        } else {
            "without its slow tests"
        };
        writeln!(
            page,
            "Made by `cargo xtask conformance` on {date} at {commit}: the suite of distributed {}, {which}, black box, run {runs}. \
             Clients and workers are the stock ones; the scheduler is our binary. The stock scheduler passes all of them by \
             construction of the suite. {:.0} minutes on {} processors.\n",
            self.version,
            self.seconds / 60.0,
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        )?;
        Ok(())
    }

    fn failures(&self, reasons: &Reasons, page: &mut String) -> Result<()> {
        let (decided, open): (Vec<&str>, Vec<&str>) =
            self.failing().partition(|id| reasons.contains_key(*id));
        if !decided.is_empty() {
            page.push_str("\n## Tests that fail for a known reason\n\n");
            // The reasons are in `docs/conformance-reasons.json`.
            for id in decided {
                let reason = reasons.get(id).map_or("", String::as_str);
                writeln!(page, "* `{id}`{}: {reason}", self.how_often(id))?;
            }
        }
        if !open.is_empty() {
            page.push_str("\n## Tests that fail without a known reason\n\n");
            for id in open {
                writeln!(page, "* `{id}`{}", self.how_often(id))?;
            }
        }
        Ok(())
    }

    /// In how many of several runs a test failed.
    fn how_often(&self, id: &str) -> String {
        match self.tests.get(id) {
            Some((runs @ 2.., failures)) => format!(" (in {failures} of {runs} runs)"),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reasons, Results};

    fn result(outcomes: &[(&str, &str)]) -> serde_json::Value {
        let tests: serde_json::Map<_, _> = outcomes
            .iter()
            .map(|(id, outcome)| ((*id).to_owned(), serde_json::json!({"outcome": outcome})))
            .collect();
        serde_json::json!({"version": "2026.8.0", "seconds": 120.0, "tests": tests})
    }

    #[test]
    fn the_page_counts_by_file_and_gives_reasons() {
        let mut results = Results::default();
        let first = result(&[
            ("tests/test_a.py::test_1", "passed"),
            ("tests/test_a.py::test_2", "failed"),
            ("tests/test_a.py::test_3", "timeout"),
            ("tests/test_b.py::test_1[x::y]", "passed"),
        ]);
        results.add(&first).expect("complete");
        let reasons = Reasons::from([
            ("tests/test_a.py::test_2".into(), "decided".into()),
            ("tests/test_b.py::test_1[x::y]".into(), "once".into()),
        ]);
        let page = results.page(&reasons).expect("a page");
        for line in [
            "**2 of 4** tests pass (50.0 %)",
            "| tests/test_a.py | 1 | 3 |",
            "| tests/test_b.py | 1 | 1 |",
            "* `tests/test_a.py::test_2`: decided",
            "without a known reason\n\n* `tests/test_a.py::test_3`\n",
        ] {
            assert!(page.contains(line), "{line} is not in:\n{page}");
        }
        let stale: Vec<&str> = results.stale(&reasons).collect();
        assert_eq!(stale, ["tests/test_b.py::test_1[x::y]"]);
    }

    #[test]
    fn a_test_passes_if_it_passed_in_every_run() {
        let mut results = Results::default();
        for second in ["failed", "passed"] {
            let one = result(&[("a::1", "passed"), ("a::2", second)]);
            results.add(&one).expect("complete");
        }
        let page = results.page(&Reasons::new()).expect("a page");
        assert!(page.contains("**1 of 2** tests pass"), "{page}");
        assert!(page.contains("run 2 times (1 of 2, 2 of 2;"), "{page}");
        assert!(page.contains("* `a::2` (in 1 of 2 runs)"), "{page}");
    }
}
