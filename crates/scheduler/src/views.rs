//! Questions to the core, in the form handlers want the answers.

use oxidask_scheduler_core::effect::{LoggedEvent, PlainValue};
use oxidask_wire::value::Value;

/// An entry of the event log that the core made, as peers see it.
pub fn logged_event(event: LoggedEvent) -> Value {
    match event {
        LoggedEvent::AddWorker { worker } => Value::map([
            ("action", Value::from("add-worker")),
            ("worker", worker.into()),
        ]),
        LoggedEvent::RemoveWorker {
            worker,
            processing_tasks,
            lost_computed_tasks,
            lost_scattered_tasks,
            stimulus_id,
            expected,
        } => Value::map([
            ("action", Value::from("remove-worker")),
            ("worker", worker.into()),
            ("processing-tasks", Value::array(processing_tasks)),
            ("lost-computed-tasks", Value::array(lost_computed_tasks)),
            ("lost-scattered-tasks", Value::array(lost_scattered_tasks)),
            ("stimulus_id", stimulus_id.into()),
            ("expected", expected.into()),
        ]),
        LoggedEvent::Plain(fields) => {
            Value::map(fields.into_iter().map(|(name, value)| (name, plain(value))))
        }
    }
}

fn plain(value: PlainValue) -> Value {
    match value {
        PlainValue::Str(text) => text.into(),
        PlainValue::Int(number) => number.into(),
        PlainValue::Float(number) => number.into(),
        PlainValue::Keys(keys) => Value::array(keys),
        PlainValue::Bool(flag) => flag.into(),
    }
}
