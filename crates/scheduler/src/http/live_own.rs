//! The figures of our own that `/metrics` tells below `oxidask_`.

use std::sync::atomic::Ordering;

use super::openmetrics::Kind::{self, Counter, Gauge};
use super::source::OwnFamily;
use super::ticks::Ticks;
use crate::context::Context;
use crate::traffic::{PeerKind, Traffic};

type Samples = Vec<(Vec<(&'static str, String)>, f64)>;

fn family(name: &'static str, help: &'static str, kind: Kind, samples: Samples) -> OwnFamily {
    OwnFamily {
        name,
        help,
        kind,
        samples,
    }
}

fn one(name: &'static str, help: &'static str, kind: Kind, value: f64) -> OwnFamily {
    family(name, help, kind, vec![(Vec::new(), value)])
}

/// All families.
pub(super) fn families(context: &Context, ticks: &Ticks) -> Vec<OwnFamily> {
    let mut families = vec![family(
        "info",
        "Version of the scheduler",
        Gauge,
        vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
    )];
    families.extend(latency(context, ticks));
    families.extend(queues(context));
    families.extend(traffic(&context.traffic));
    families.extend(graphs(context));
    families.extend(python(context));
    families
}

fn latency(context: &Context, ticks: &Ticks) -> [OwnFamily; 4] {
    let (answers, seconds) = ticks.core_answers();
    [
        one(
            "core_latency_maximum_seconds",
            "Longest wait for an answer of the core since metrics were last read",
            Gauge,
            ticks.take_longest_core(),
        ),
        one(
            "core_latency_seconds",
            "Time waited for answers of the core; by oxidask_core_probes_total their average",
            Counter,
            seconds,
        ),
        one(
            "core_probes",
            "Questions to the core that measure its latency",
            Counter,
            whole(answers),
        ),
        one(
            "core_events",
            "Events that the core handled",
            Counter,
            whole(context.core.events_handled()),
        ),
    ]
}

fn queues(context: &Context) -> [OwnFamily; 3] {
    let worker: Vec<usize> = context
        .workers
        .all()
        .iter()
        .map(|worker| worker.outbox.queued())
        .collect();
    let client: Vec<usize> = context
        .clients
        .connected()
        .iter()
        .filter_map(|client| Some(client.connection.as_ref()?.outbox.queued()))
        .collect();
    let label = |peer: PeerKind| vec![("peer", peer.as_str().to_owned())];
    let by_peer = |figure: fn(&[usize]) -> usize| {
        vec![
            (label(PeerKind::Client), size(figure(&client))),
            (label(PeerKind::Worker), size(figure(&worker))),
        ]
    };
    [
        one(
            "core_pending_events",
            "Events that wait for the core",
            Gauge,
            size(context.core.pending_events()),
        ),
        family(
            "outbox_messages",
            "Messages that wait to be written, of all peers",
            Gauge,
            by_peer(|queued| queued.iter().sum()),
        ),
        family(
            "outbox_messages_maximum",
            "Messages that wait to be written, of the peer with most",
            Gauge,
            by_peer(|queued| queued.iter().copied().max().unwrap_or(0)),
        ),
    ]
}

fn traffic(traffic: &Traffic) -> [OwnFamily; 4] {
    let mut messages = Vec::new();
    let mut bytes = Vec::new();
    let (mut op_messages, mut op_bytes) = (Vec::new(), Vec::new());
    for peer in PeerKind::ALL {
        let name = || ("peer", peer.as_str().to_owned());
        for (direction, (count, size)) in ["in", "out"].into_iter().zip(traffic.totals(peer)) {
            let labels = vec![name(), ("direction", direction.to_owned())];
            messages.push((labels.clone(), whole(count)));
            bytes.push((labels, whole(size)));
        }
        for (op, (count, size)) in traffic.by_op(peer) {
            let labels = vec![name(), ("op", op)];
            op_messages.push((labels.clone(), whole(count)));
            op_bytes.push((labels, whole(size)));
        }
    }
    [
        family(
            "messages",
            "Transport messages, each of one or many ops",
            Counter,
            messages,
        ),
        family(
            "bytes",
            "Bytes of transport messages with all frames, uncompressed",
            Counter,
            bytes,
        ),
        family("op_messages", "Ops received", Counter, op_messages),
        family(
            "op_bytes",
            "Bytes of ops received, without out-of-band frames",
            Counter,
            op_bytes,
        ),
    ]
}

fn graphs(context: &Context) -> [OwnFamily; 4] {
    let counts = &context.graph_counts;
    let read = |count: &std::sync::atomic::AtomicU64| whole(count.load(Ordering::Relaxed));
    let result = |name: &str| vec![("result", name.to_owned())];
    [
        one(
            "graphs_active",
            "Graphs that are being taken in",
            Gauge,
            size(context.active_graphs.load(Ordering::Relaxed)),
        ),
        family(
            "graphs",
            "Graphs submitted",
            Counter,
            vec![
                (result("ok"), read(&counts.taken)),
                (result("error"), read(&counts.refused)),
            ],
        ),
        one(
            "graph_tasks",
            "Tasks of submitted graphs, known ones included",
            Counter,
            read(&counts.tasks),
        ),
        one(
            "graph_intake_seconds",
            "Time from the arrival of graphs until the core got them",
            Counter,
            read(&counts.micros) / 1e6,
        ),
    ]
}

fn python(context: &Context) -> [OwnFamily; 3] {
    let figures = context.python.figures();
    let state = |name: &str| vec![("state", name.to_owned())];
    [
        family(
            "python_host_processes",
            "Local Python processes that expand graphs",
            Gauge,
            vec![
                (state("busy"), size(figures.busy)),
                (state("idle"), size(figures.idle)),
            ],
        ),
        one(
            "python_host_requests",
            "Graphs given to Python",
            Counter,
            whole(figures.requests),
        ),
        one(
            "python_host_failures",
            "Graphs that Python could not expand",
            Counter,
            whole(figures.failures),
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a double")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a double")]
fn size(count: usize) -> f64 {
    count as f64
}
