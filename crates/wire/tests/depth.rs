//! The deepest values that a peer may send are handled within half of a thread's stack.

use bytes::Bytes;
use oxidask_wire::error::DecodeError;
use oxidask_wire::pickle::Object;
use oxidask_wire::value::{MAX_DEPTH, STACK_SIZE, Value};

/// msgpack of `nil` within so many maps.
fn nested(depth: usize) -> Bytes {
    let mut bytes = Vec::new();
    for _ in 0..depth {
        bytes.extend_from_slice(b"\x81\xa1k");
    }
    bytes.push(0xc0);
    bytes.into()
}

fn on_half_a_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_SIZE / 2);
    let thread = thread.spawn(work).expect("a thread");
    thread.join().expect("no panic");
}

#[test]
fn the_deepest_values_are_handled() {
    on_half_a_stack(|| {
        let bytes = nested(MAX_DEPTH);
        let mut value = Value::decode(&bytes).expect("deep");
        assert_eq!(value.encode(), bytes);
        assert_eq!(value.clone(), value);
        value.shift_markers(1);
        assert!(Object::from(&value).pickle().len() > MAX_DEPTH);
        let json = serde_json::to_string(&value).expect("JSON");
        assert_eq!(json.matches('{').count(), MAX_DEPTH);
        let typed: Value = rmp_serde::from_slice(&bytes).expect("deep");
        assert_eq!(typed, value);
    });
}

#[test]
fn deeper_ones_are_refused() {
    on_half_a_stack(|| {
        for depth in [MAX_DEPTH + 1, 1_000_000] {
            let bytes = nested(depth);
            assert!(matches!(Value::decode(&bytes), Err(DecodeError::TooDeep)));
            assert!(rmp_serde::from_slice::<Value>(&bytes).is_err());
        }
    });
}
