//! Pickles: the walker, what is written from what it found, and the native graph intake.

use bytes::Bytes;
use oxidask_graph::decode_plain;
use oxidask_graph::intake::expr::split_expr;
use oxidask_graph::pickle::emit::Emitter;
use oxidask_graph::pickle::plain::{to_key, to_plain};
use oxidask_graph::pickle::walker::walk;
use oxidask_key::Key;

use crate::messages::INTAKE;
use crate::pieces;

/// A pickle and its out-of-band buffers, each with its length in front.
pub fn pickles(data: &[u8]) {
    let mut pieces = pieces(data);
    if pieces.is_empty() {
        pieces.push(Bytes::copy_from_slice(data));
    }
    let buffers = pieces.split_off(1);
    let pickle = pieces.remove(0);
    if let Ok((arena, root)) = walk(pickle.clone(), buffers.clone(), INTAKE) {
        let _ = to_key(&arena, root);
        let _ = to_plain(&arena, root);
        if let Ok((copy, used)) = Emitter::new(INTAKE).whole(&arena, root) {
            let copy = copy.to_bytes();
            let (again, root) = walk(copy.clone(), used, INTAKE).expect("a pickle of our own");
            let twice = Emitter::new(INTAKE).whole(&again, root);
            let (twice, _) = twice.expect("what was written once");
            assert_eq!(twice.to_bytes(), copy, "the same again");
        }
    }
    let _ = decode_plain(pickle.clone(), buffers.clone());
    let mut frames = vec![pickle];
    frames.extend(buffers);
    let _ = split_expr(&frames, &[Key::from("x"), Key::from("task-1")], INTAKE);
}
