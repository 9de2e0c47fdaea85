//! Commands on their way to the core, and the call that wakes its thread.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// First in, first out. Unbounded: who holds the handle must not dead-lock.
#[derive(Debug)]
pub(super) struct Queue<C> {
    inner: Mutex<Inner<C>>,
    wake: Condvar,
}

#[derive(Debug)]
struct Inner<C> {
    commands: VecDeque<C>,
    called: bool,
    closed: bool,
}

impl<C> Queue<C> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                commands: VecDeque::new(),
                called: false,
                closed: false,
            }),
            wake: Condvar::new(),
        }
    }

    /// Appends. Once closed, the command is dropped, which tells whoever waits for its answer.
    pub(super) fn push(&self, command: C) {
        let mut inner = self.inner.lock();
        if inner.closed {
            drop(inner);
            drop(command);
        } else {
            inner.commands.push_back(command);
        }
    }

    /// The first command, if there is one that `may` be taken.
    pub(super) fn pop_if(&self, may: impl FnOnce(&C) -> bool) -> Option<C> {
        let mut inner = self.inner.lock();
        if inner.commands.front().is_some_and(may) {
            inner.commands.pop_front()
        } else {
            None
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().commands.is_empty()
    }

    /// Wakes the thread, now or as soon as it waits.
    pub(super) fn call(&self) {
        let mut inner = self.inner.lock();
        if !inner.called {
            inner.called = true;
            self.wake.notify_one();
        }
    }

    /// Drops what waits and what comes, and wakes the thread.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let dropped = std::mem::take(&mut inner.commands);
        self.wake.notify_one();
        drop(inner);
        drop(dropped);
    }

    /// Waits for a call, at most this long; whether the queue is open.
    pub(super) fn wait(&self, longest: Option<Duration>) -> bool {
        let mut inner = self.inner.lock();
        while !inner.called && !inner.closed {
            match longest {
                None => self.wake.wait(&mut inner),
                Some(longest) => {
                    // A wake-up for nothing costs one look at the timers.
                    self.wake.wait_for(&mut inner, longest);
                    break;
                }
            }
        }
        inner.called = false;
        !inner.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_before_the_wait_is_not_lost() {
        let queue = Queue::<u8>::new();
        queue.call();
        assert!(queue.wait(None), "open");
    }

    #[test]
    fn commands_that_may_not_be_taken_stay_in_front() {
        let queue = Queue::new();
        queue.push(1);
        queue.push(2);
        assert_eq!(queue.pop_if(|command| *command == 2), None);
        assert_eq!(queue.pop_if(|command| *command == 1), Some(1));
        assert_eq!(queue.pop_if(|_| true), Some(2));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_closed_queue_drops_what_waits_and_what_comes() {
        let queue = Queue::new();
        let (answer, mut waiting) = tokio::sync::oneshot::channel::<()>();
        queue.push(answer);
        queue.close();
        assert!(waiting.try_recv().is_err());
        let (answer, mut late) = tokio::sync::oneshot::channel::<()>();
        queue.push(answer);
        assert!(late.try_recv().is_err());
        assert!(!queue.wait(None), "closed");
    }
}
