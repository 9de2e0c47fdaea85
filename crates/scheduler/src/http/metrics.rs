//! `/metrics`: stock's families under stock's names, then those of any process, then ours (`oxidask_…`).

use super::openmetrics::Kind::{self, Counter, Gauge};
use super::openmetrics::{Format, Page};
use super::source::{Metrics, OwnFamily, PrefixFigures};

/// Factors of the cost of moving a task over that of running it, by level of stealing.
const COST_MULTIPLIERS: [&str; 15] = [
    "1.0", "1.03125", "1.0625", "1.125", "1.25", "1.5", "2", "3", "5", "9", "17", "33", "65",
    "129", "257",
];

/// The page; `namespace` is `distributed.dashboard.prometheus.namespace`, empty for none.
#[must_use]
pub fn render(metrics: &Metrics, namespace: &str, format: Format) -> String {
    let mut page = Families {
        namespace,
        page: Page::new(format),
    };
    page.scheduler(metrics);
    page.prefixes(&metrics.prefixes);
    page.stealing(metrics);
    for family in &metrics.extensions {
        let kind = if family.counter { Counter } else { Gauge };
        let samples = family
            .samples
            .iter()
            .map(|(value, figure)| (vec![(family.label, value.as_str())], *figure));
        page.family(&family.name, &family.help, kind, samples);
    }
    metrics.process.write_to(&mut page.page, metrics.started);
    page.own(&metrics.own);
    page.page.finish()
}

struct Families<'a> {
    namespace: &'a str,
    page: Page,
}

impl Families<'_> {
    fn family<'v>(
        &mut self,
        name: &str,
        help: &str,
        kind: Kind,
        samples: impl IntoIterator<Item = (Vec<(&'v str, &'v str)>, f64)>,
    ) {
        // What stock does not have goes under our own name, whatever the namespace is.
        let ours = name.starts_with("oxidask_");
        let namespace = if ours { "" } else { self.namespace };
        let glue = if namespace.is_empty() { "" } else { "_" };
        let name = format!("{namespace}{glue}{name}");
        self.page.family(&name, help, kind, samples);
    }

    fn one(&mut self, name: &str, help: &str, kind: Kind, value: f64) {
        self.family(name, help, kind, [(Vec::new(), value)]);
    }

    fn own(&mut self, families: &[OwnFamily]) {
        for family in families {
            let samples = family.samples.iter().map(|(labels, figure)| {
                let labels = labels.iter().map(|(label, value)| (*label, value.as_str()));
                (labels.collect(), *figure)
            });
            let name = format!("oxidask_{}", family.name);
            self.page.family(&name, family.help, family.kind, samples);
        }
    }

    fn scheduler(&mut self, metrics: &Metrics) {
        let rows: [(&str, &str, Kind, f64); 12] = [
            (
                "clients",
                "Clients connected",
                Gauge,
                float(metrics.clients),
            ),
            (
                "client_connections_added",
                "Connections of clients so far",
                Counter,
                whole(metrics.clients_added),
            ),
            (
                "client_connections_removed",
                "Connections of clients that ended",
                Counter,
                whole(metrics.clients_removed),
            ),
            (
                "desired_workers",
                "Workers that the present work needs",
                Gauge,
                whole(metrics.desired_workers),
            ),
            (
                "workers_added",
                "Workers registered so far",
                Counter,
                whole(metrics.workers_added),
            ),
            (
                "workers_removed",
                "Workers that left",
                Counter,
                whole(metrics.workers_removed),
            ),
            (
                "gc_collection_seconds",
                "Time spent on garbage collection: none",
                Counter,
                0.0,
            ),
            (
                "last_time",
                "Time of the last look at the process",
                Counter,
                metrics.last_time,
            ),
            (
                "tasks_forgotten",
                "Tasks that are done with; those of groups without any other task are not counted",
                Counter,
                whole(metrics.tasks_forgotten),
            ),
            (
                "task_groups",
                "Task groups",
                Gauge,
                float(metrics.task_groups),
            ),
            (
                "tick_duration_maximum_seconds",
                "Longest delay of the I/O runtime since metrics were last read",
                Gauge,
                metrics.tick_duration_max,
            ),
            (
                "tick_count_total",
                "Ticks of the I/O runtime",
                Counter,
                whole(metrics.tick_count),
            ),
        ];
        for (name, help, kind, value) in rows {
            self.one(&format!("scheduler_{name}"), help, kind, value);
        }
        self.states(metrics);
    }

    fn states(&mut self, metrics: &Metrics) {
        let workers = metrics.workers;
        let states = [
            ("idle", workers.idle),
            ("partially_saturated", workers.partially_saturated),
            ("saturated", workers.saturated),
            ("paused", workers.paused),
            ("retiring", workers.retiring),
        ];
        let samples = states
            .iter()
            .map(|(state, count)| (vec![("state", *state)], float(*count)));
        self.family(
            "scheduler_workers",
            "Workers by what they do",
            Gauge,
            samples,
        );
        let samples = metrics
            .tasks
            .iter()
            .map(|(state, count)| (vec![("state", *state)], whole(*count)));
        self.family("scheduler_tasks", "Tasks by state", Gauge, samples);
    }

    fn prefixes(&mut self, prefixes: &[PrefixFigures]) {
        type Figure = fn(&PrefixFigures) -> f64;
        #[expect(clippy::cast_precision_loss, reason = "a metric is a double")]
        let rows: [(&str, &str, Kind, Figure); 4] = [
            (
                "tasks_suspicious",
                "Deaths of workers while they ran a task",
                Counter,
                |p| whole(p.suspicious),
            ),
            (
                "tasks_compute_seconds",
                "Time computed by prefix",
                Counter,
                |p| p.compute,
            ),
            (
                "tasks_transfer_seconds",
                "Time of transfers by prefix",
                Counter,
                |p| p.transfer,
            ),
            (
                "tasks_output_bytes",
                "Bytes of results in memory by prefix, copies not counted",
                Gauge,
                |p| p.nbytes as f64,
            ),
        ];
        for (name, help, kind, figure) in rows {
            let samples = prefixes
                .iter()
                .map(|p| (vec![("task_prefix_name", p.name.as_str())], figure(p)));
            self.family(&format!("scheduler_{name}"), help, kind, samples);
        }
        let samples = prefixes.iter().flat_map(|p| {
            let labels = |state| vec![("task_prefix_name", p.name.as_str()), ("state", state)];
            p.state_totals
                .iter()
                .map(move |(state, count)| (labels(*state), whole(*count)))
        });
        let help = "How often tasks of a prefix entered a state";
        self.family("scheduler_prefix_state_totals", help, Counter, samples);
    }

    fn stealing(&mut self, metrics: &Metrics) {
        if metrics.stealing.is_empty() {
            return;
        }
        let levels = || COST_MULTIPLIERS.iter().zip(&metrics.stealing);
        let counts =
            levels().map(|(level, (count, _))| (vec![("cost_multiplier", *level)], whole(*count)));
        self.family(
            "stealing_request_count_total",
            "Requests to steal by cost",
            Counter,
            counts,
        );
        let costs = levels().map(|(level, (_, cost))| (vec![("cost_multiplier", *level)], *cost));
        self.family(
            "stealing_request_cost_total",
            "Cost of requests to steal",
            Counter,
            costs,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a double")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a double")]
fn float(count: usize) -> f64 {
    count as f64
}
