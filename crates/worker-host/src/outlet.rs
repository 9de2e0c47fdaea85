//! The way out to the scheduler. Whoever has something to say writes it himself, as far as the socket
//! takes it at once; only what does not fit is left to a task that waits for the socket.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use oxidask_wire::Message;
use oxidask_wire::connection::Writer;
use oxidask_wire::error::WriteError;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The writing half of the stream.
pub(crate) struct Outlet {
    state: Mutex<State>,
    /// There is something that did not fit.
    stuck: Notify,
}

struct State {
    writer: Writer,
    /// Whether [`Outlet::keep_writing`] waits for the socket. Nobody else may write meanwhile: a socket
    /// wakes only the last one that it put off.
    stuck: bool,
}

impl Outlet {
    pub(crate) fn new(writer: Writer) -> Self {
        let state = State {
            writer,
            stuck: false,
        };
        Self {
            state: Mutex::new(state),
            stuck: Notify::new(),
        }
    }

    /// Says something. A stream that has ended is noticed by its reader, so nobody is told here.
    pub(crate) fn send(&self, message: &Message) {
        let mut state = self.state.lock();
        if let Err(error) = state.writer.feed(message) {
            tracing::error!("a message to the scheduler can not be written: {error}");
            return;
        }
        if state.stuck {
            return;
        }
        let flushed = pin!(state.writer.flush()).poll(&mut Context::from_waker(Waker::noop()));
        if flushed.is_pending() {
            state.stuck = true;
            self.stuck.notify_one();
        }
    }

    /// Writes what does not fit at once, and `sign` when nothing was stuck for a while, until the stream
    /// breaks.
    pub(crate) async fn keep_writing(
        &self,
        sign: &Message,
        interval: Duration,
    ) -> Result<(), WriteError> {
        loop {
            match tokio::time::timeout(interval, self.stuck.notified()).await {
                Ok(()) => self.flush().await?,
                Err(_) => self.send(sign),
            }
        }
    }

    /// Waits until all that was said is written.
    pub(crate) async fn flush(&self) -> Result<(), WriteError> {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            let flushed = pin!(state.writer.flush()).poll(cx);
            state.stuck = flushed.is_pending();
            match flushed {
                // A message that was fed meanwhile was written, too: the lock was held.
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxidask_wire::connection::{Limits, Reader};
    use oxidask_wire::{Generation, Value};
    use std::sync::Arc;

    fn message(number: u64) -> Message {
        let text = "x".repeat(3000);
        Message::from_value(&Value::map([
            ("n", Value::from(number)),
            ("text", text.as_str().into()),
        ]))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_does_not_fit_is_written_when_there_is_room_and_in_order() {
        let (near, far) = tokio::io::duplex(10_000);
        let outlet = Arc::new(Outlet::new(Writer::over(near, Generation::M3)));
        let writing = Arc::clone(&outlet);
        let task = tokio::spawn(async move {
            let sign = message(u64::MAX);
            writing.keep_writing(&sign, Duration::from_secs(60)).await
        });
        let speaker = Arc::clone(&outlet);
        // A thread that tokio knows nothing of.
        let thread = std::thread::spawn(move || (0..200).for_each(|n| speaker.send(&message(n))));
        let mut reader = Reader::over(far, Generation::M3, Limits::default());
        for number in 0..200 {
            let read = reader.read().await.expect("a message");
            assert_eq!(
                read.value().expect("a value").get("n"),
                Some(&number.into())
            );
        }
        thread.join().expect("the speaker");
        task.abort();
    }

    #[tokio::test]
    async fn a_silent_stream_gives_signs_of_life() {
        let (near, far) = tokio::io::duplex(10_000);
        let outlet = Outlet::new(Writer::over(near, Generation::M3));
        let mut reader = Reader::over(far, Generation::M3, Limits::default());
        let sign = message(7);
        tokio::select! {
            _ = outlet.keep_writing(&sign, Duration::from_millis(5)) => panic!("the stream is whole"),
            read = reader.read() => assert!(read.is_ok()),
        }
    }
}
