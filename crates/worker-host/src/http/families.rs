//! `/metrics`: the families of stock's worker of 2026.8.0 under their names and labels, then those of any
//! process with a Python in it. Without the one that needs gilknocker, which stock leaves out, too, without it.

use oxidask_http::openmetrics::Kind::{Counter, Gauge};
use oxidask_http::openmetrics::{Format, Kind, Page};
use oxidask_http::process::ProcessFigures;
use oxidask_worker_core::Worker;
use oxidask_worker_core::task::TaskState;
use oxidask_worker_core::views::TransferFigures;

use crate::host::Handle;
use crate::ticks::Garbage;

pub(super) async fn render(handle: &Handle, format: Format) -> String {
    let asked = handle.ask(|core| {
        let counts: Vec<(TaskState, usize)> = core.task_counts().collect();
        (counts, core.transfer_figures(), Worker::nbytes(core))
    });
    let (counts, transfers, nbytes) = asked.await.unwrap_or_default();
    let mut page = Families {
        namespace: &handle.settings().http.namespace,
        page: Page::new(format),
    };
    let process = ProcessFigures::read();
    page.tasks(&counts, handle.store().sizes().spilled_count);
    page.worker(handle);
    page.memory(handle, process.resident_bytes, nbytes);
    page.transfers(&transfers, handle.transfers().outgoing_bytes());
    page.spilling(handle);
    page.ticks(handle);
    page.medians(handle);
    process.write_to(&mut page.page, process.start_time);
    page.python(handle);
    page.page.finish()
}

/// One of the numbers.
type CountOf = fn(&Garbage) -> u64;

struct Families<'a> {
    namespace: &'a str,
    page: Page,
}

impl Families<'_> {
    fn name(&self, name: &str) -> String {
        let glue = if self.namespace.is_empty() { "" } else { "_" };
        format!("{}{glue}worker_{name}", self.namespace)
    }

    fn one(&mut self, name: &str, help: &str, kind: Kind, value: f64) {
        let name = self.name(name);
        self.page.one(&name, help, kind, value);
    }

    fn by<'v>(
        &mut self,
        name: &str,
        help: &str,
        kind: Kind,
        label: &'v str,
        samples: impl IntoIterator<Item = (&'v str, f64)>,
    ) {
        let name = self.name(name);
        let samples = samples
            .into_iter()
            .map(|(value, figure)| (vec![(label, value)], figure));
        self.page.family(&name, help, kind, samples);
    }

    fn tasks(&mut self, counts: &[(TaskState, usize)], spilled: usize) {
        let mut samples = Vec::new();
        for (state, count) in counts {
            if *state == TaskState::Memory {
                samples.push(("memory", count.saturating_sub(spilled)));
                samples.push(("disk", spilled));
            } else {
                samples.push((state.as_str(), *count));
            }
        }
        let samples = samples.into_iter().filter(|(_, count)| *count > 0);
        let samples = samples.map(|(state, count)| (state, count as f64));
        let help = "Number of tasks at worker.";
        self.by("tasks", help, Gauge, "state", samples);
    }

    fn worker(&mut self, handle: &Handle) {
        self.one(
            "gc_collection_seconds",
            "Total time spent on garbage collection",
            Counter,
            handle.ticks().garbage_seconds(),
        );
        let threads = f64::from(handle.settings().nthreads);
        self.one("threads", "Number of worker threads", Gauge, threads);
        self.one(
            "latency_seconds",
            "Latency of worker connection",
            Gauge,
            handle.latency(),
        );
    }

    fn memory(&mut self, handle: &Handle, process: u64, nbytes: u64) {
        let sizes = handle.store().sizes();
        let managed = process.min(nbytes.saturating_sub(sizes.spilled_memory));
        let samples = [
            ("managed", managed),
            ("unmanaged", process - managed),
            ("spilled", sizes.spilled_disk),
        ];
        let samples = samples.map(|(kind, bytes)| (kind, bytes as f64));
        self.by("memory_bytes", "Memory breakdown", Gauge, "type", samples);
    }

    fn transfers(&mut self, t: &TransferFigures, outgoing_bytes_total: u64) {
        let rows: [(&str, &str, Kind, f64); 7] = [
            (
                "incoming_bytes",
                "Total size of open data transfers from other workers",
                Gauge,
                t.incoming_bytes as f64,
            ),
            (
                "incoming_count",
                "Number of open data transfers from other workers",
                Gauge,
                t.incoming_count as f64,
            ),
            (
                "incoming_count_total",
                "Total number of data transfers from other workers since the worker was started",
                Counter,
                t.incoming_count_total as f64,
            ),
            (
                "outgoing_bytes",
                "Total size of open data transfers to other workers",
                Gauge,
                t.outgoing_bytes as f64,
            ),
            (
                "outgoing_count",
                "Number of open data transfers to other workers",
                Gauge,
                t.outgoing_count as f64,
            ),
            (
                "outgoing_bytes_total",
                "Total size of data transfers to other workers since the worker was started",
                Counter,
                outgoing_bytes_total as f64,
            ),
            (
                "outgoing_count_total",
                "Total number of data transfers to other workers since the worker was started",
                Counter,
                t.outgoing_count_total as f64,
            ),
        ];
        for (name, help, kind, value) in rows {
            self.one(&format!("transfer_{name}"), help, kind, value);
        }
    }

    fn spilling(&mut self, handle: &Handle) {
        if !handle.memory().settings().thresholds.spills() {
            return;
        }
        let all = handle.memory().cumulative();
        let families = [
            (
                "bytes",
                "spill_bytes",
                "Total size of memory and disk accesses caused by managed data since the latest worker restart",
            ),
            (
                "count",
                "spill_count",
                "Total number of memory and disk accesses caused by managed data since the latest worker restart",
            ),
            (
                "seconds",
                "spill_time_seconds",
                "Total time spent spilling/unspilling since the latest worker restart",
            ),
        ];
        for (unit, name, help) in families {
            let samples = all.iter().filter(|(_, of, _)| *of == unit);
            let samples = samples.map(|(activity, _, value)| (*activity, *value));
            self.by(name, help, Counter, "activity", samples);
        }
    }

    fn ticks(&mut self, handle: &Handle) {
        let ticks = handle.ticks();
        self.one(
            "tick_duration_maximum_seconds",
            "Maximum tick duration observed since Prometheus last scraped metrics",
            Gauge,
            ticks.take_longest(),
        );
        self.one(
            "tick_count",
            "Total number of ticks observed since the server started",
            Counter,
            ticks.count() as f64,
        );
    }

    /// Stock has them where crick is installed.
    fn medians(&mut self, handle: &Handle) {
        let rows = [
            (
                "tick_duration_median_seconds",
                "Median tick duration at worker",
                handle.ticks().median(),
            ),
            (
                "task_duration_median_seconds",
                "Median task runtime at worker",
                handle.digests().median_duration(),
            ),
            (
                "transfer_bandwidth_median_bytes",
                "Bandwidth for transfer at worker",
                handle.transfers().median_bandwidth(),
            ),
        ];
        for (name, help, value) in rows {
            self.one(name, help, Gauge, value);
        }
    }

    /// What Prometheus' client library tells of the interpreter.
    fn python(&mut self, handle: &Handle) {
        let generations = ["0", "1", "2"];
        let garbage = handle.ticks().garbage();
        let families: [(&str, &str, CountOf); 3] = [
            (
                "objects_collected",
                "Objects collected during gc",
                |garbage| garbage.collected,
            ),
            (
                "objects_uncollectable",
                "Uncollectable objects found during GC",
                |garbage| garbage.uncollectable,
            ),
            (
                "collections",
                "Number of times this generation was collected",
                |garbage| garbage.collections,
            ),
        ];
        for (name, help, count) in families {
            let samples = generations.iter().zip(&garbage);
            let samples = samples.map(|(generation, garbage)| {
                (vec![("generation", *generation)], count(garbage) as f64)
            });
            let name = format!("python_gc_{name}");
            self.page.family(&name, help, Counter, samples);
        }
        let labels = &handle.settings().http.python;
        if !labels.is_empty() {
            let labels = labels.iter();
            let labels = labels
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let sample = [(labels, 1.0)];
            self.page
                .family("python_info", "Python platform information", Gauge, sample);
        }
    }
}
