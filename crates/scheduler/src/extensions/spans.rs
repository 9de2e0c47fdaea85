//! What workers measured for spans (`Span.cumulative_worker_metrics`, since 2023.6.0). The spans
//! themselves are state of the core, as groups of tasks belong to them.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::event::{Event, SpanMetric};
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::RpcTable;
use crate::workers::WorkerEntry;

/// Bytes of a label above which it is left out.
const MAX_LABEL: usize = 10_000;

/// Passes on what heartbeats say; there is no state.
pub(crate) struct SpansExtension;

/// The figures of a heartbeat: `{(context, span, *label): value}`; in 2023.6.0 itself
/// `{span: {(context, *label): value}}`.
fn measured(data: &Value) -> Vec<SpanMetric> {
    let mut metrics = Vec::new();
    for (key, value) in data.as_map().unwrap_or_default() {
        match (key.to_key(), value) {
            (Some(Key::Str(span)), Value::Map(of_span)) => {
                let of_span = of_span.iter();
                let label = |(label, value): &(Value, Value)| {
                    metric((&*span).into(), label.to_key()?, value)
                };
                metrics.extend(of_span.filter_map(label));
            }
            (Some(Key::Tuple(parts)), value) => {
                if let [context, Key::Str(span), label @ ..] = &*parts {
                    let label = std::iter::once(context).chain(label).cloned();
                    let label = Key::Tuple(label.collect());
                    metrics.extend(metric((&**span).into(), label, value));
                }
            }
            _ => {}
        }
    }
    metrics
}

fn metric(span: Arc<str>, what: Key, value: &Value) -> Option<SpanMetric> {
    (what.heap_bytes() <= MAX_LABEL).then_some(())?;
    Some(SpanMetric {
        span,
        what,
        value: value.as_f64().filter(|value| value.is_finite())?,
        whole: matches!(value, Value::Int(_) | Value::UInt(_)),
    })
}

impl Extension for SpansExtension {
    fn register(self: Arc<Self>, _table: &mut RpcTable) {}

    fn heartbeat(
        &self,
        context: &Arc<Context>,
        _worker: &Arc<WorkerEntry>,
        name: &str,
        data: &Value,
    ) {
        if name == "spans" {
            let measured = measured(data);
            if !measured.is_empty() {
                context.core.send(Event::SpansMeasured { measured });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_all_releases_are_read() {
        let label = |parts: &[&str]| Value::array(parts.iter().copied());
        let expected = |value: f64, whole: bool| SpanMetric {
            span: "id".into(),
            what: label(&["execute", "inc", "disk-read", "bytes"])
                .to_key()
                .expect("a key"),
            value,
            whole,
        };
        let flat = |value: Value| {
            let key = label(&["execute", "id", "inc", "disk-read", "bytes"]);
            measured(&Value::Map(vec![(key, value)]))
        };
        assert_eq!(flat(7.into()), [expected(7.0, true)]);
        assert_eq!(flat(0.5.into()), [expected(0.5, false)]);
        assert_eq!(flat(f64::NAN.into()), []);
        assert_eq!(flat("much".into()), []);
        let of_span = Value::Map(vec![(
            label(&["execute", "inc", "disk-read", "bytes"]),
            0.5.into(),
        )]);
        let nested = Value::map([("id", of_span)]);
        assert_eq!(measured(&nested), [expected(0.5, false)]);
        assert_eq!(measured(&Value::Nil), []);
        let no_span = Value::Map(vec![(label(&["execute"]), 1.into())]);
        assert_eq!(measured(&no_span), []);
    }
}
