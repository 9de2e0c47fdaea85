//! How our nannies tell our schedulers what a worker's process died of. Not a part of stock's protocol: it
//! travels in an event and in `extra` of a registration, which every scheduler keeps and none minds.

use crate::value::Value;

/// `action` of the event.
pub const ACTION: &str = "worker-process-ended";
/// What of `extra` is ours.
pub const EXTRA: &str = "oxidask";
const FLAG: &str = "obituaries";

/// What a worker of ours says below [`EXTRA`]. `will_be_told`: its nanny will tell how the process ended.
pub fn extra(version: &str, will_be_told: bool) -> Value {
    Value::map([
        ("version", Value::from(version)),
        (FLAG, will_be_told.into()),
    ])
}

/// Whether somebody will tell of the end of a worker with this `extra`.
pub fn will_be_told(extra: &Value) -> bool {
    let flag = extra.get(EXTRA).and_then(|ours| ours.get(FLAG));
    flag == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_says_so_is_waited_for() {
        let registered_with = |ours| Value::map([(EXTRA, ours)]);
        assert!(will_be_told(&registered_with(extra("1", true))));
        assert!(!will_be_told(&registered_with(extra("1", false))));
        assert!(!will_be_told(&registered_with(Value::Nil)));
        assert!(!will_be_told(&Value::Nil));
    }
}
