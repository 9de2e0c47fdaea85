//! A byte stream of a peer: framing, and finding out what the peer speaks.

use std::io::Cursor;

use oxidask_wire::Generation;
use oxidask_wire::connection::{AcceptPolicy, Connection, Limits, Reader};
use tokio::io::{AsyncWriteExt, duplex, sink};

use crate::messages::swallow;
use crate::{choice, run};

/// Small, so that the limits are met.
pub(crate) const LIMITS: Limits = Limits {
    max_message: 1 << 20,
    max_frames: 1 << 10,
};

/// Larger than what libFuzzer makes.
const PIPE: usize = 1 << 20;

/// The first byte says who reads the rest: a reader of some generation, or the listener, which has
/// to find out.
pub fn frames(data: &[u8]) {
    let (way, data) = choice(data);
    match way % 5 {
        0 => read(data, Generation::M0),
        1 => read(data, Generation::M1),
        2 => read(data, Generation::M2),
        3 => read(data, Generation::M3),
        _ => accept(data),
    }
}

fn read(data: &[u8], generation: Generation) {
    run(async {
        let mut reader = Reader::over(Cursor::new(data.to_vec()), generation, LIMITS);
        loop {
            match reader.read().await {
                Ok(message) => swallow(&message),
                // Still in step.
                Err(oxidask_wire::error::ReadError::Decode(_)) => {}
                Err(_) => break,
            }
        }
    });
}

/// A caller that says all this at once, listens, and hangs up.
fn accept(data: &[u8]) {
    run(async {
        let (near, far) = duplex(PIPE);
        let (mut listen, mut talk) = tokio::io::split(far);
        if talk.write_all(data).await.is_err() || talk.shutdown().await.is_err() {
            return;
        }
        let policy = AcceptPolicy {
            limits: LIMITS,
            ..AcceptPolicy::default()
        };
        let serve = async {
            let Ok(mut connection) = Connection::accept(near, &policy, None, None).await else {
                return;
            };
            while let Ok(message) = connection.read().await {
                swallow(&message);
            }
        };
        let mut nowhere = sink();
        let _ = tokio::join!(serve, tokio::io::copy(&mut listen, &mut nowhere));
    });
}
