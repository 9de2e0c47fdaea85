//! Commands on their way to the core, what may overtake what, and the call that wakes its thread.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Where a command goes in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind everything else.
    Last,
    /// Behind everything else, and no [`Self::Early`] one that comes later goes before it.
    Firm,
    /// Before all others that are not firm.
    Early,
}

/// First in, first out, but for commands that come [`Place::Early`]. Unbounded: who holds the handle must not
/// dead-lock.
#[derive(Debug)]
pub(super) struct Queue<C> {
    inner: Mutex<Inner<C>>,
    wake: Condvar,
}

#[derive(Debug)]
struct Inner<C> {
    commands: VecDeque<C>,
    /// Those that come early, with the number of commands that come before them nevertheless.
    early: VecDeque<(u64, C)>,
    /// Commands ever taken from `commands`.
    taken: u64,
    /// Commands ever taken once the last firm one has been.
    firm: u64,
    called: bool,
    closed: bool,
}

impl<C> Queue<C> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                commands: VecDeque::new(),
                early: VecDeque::new(),
                taken: 0,
                firm: 0,
                called: false,
                closed: false,
            }),
            wake: Condvar::new(),
        }
    }

    /// Puts it in its place. Once closed, the command is dropped, which tells whoever waits for its answer.
    pub(super) fn push(&self, command: C, place: Place) {
        let mut inner = self.inner.lock();
        if inner.closed {
            drop(inner);
            drop(command);
            return;
        }
        if place == Place::Early {
            let after = inner.firm;
            inner.early.push_back((after, command));
            return;
        }
        inner.commands.push_back(command);
        if place == Place::Firm {
            inner.firm = inner.taken + inner.commands.len() as u64;
        }
    }

    /// The first command, if there is one that `may` be taken.
    pub(super) fn pop_if(&self, may: impl FnOnce(&C) -> bool) -> Option<C> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if let Some((after, command)) = inner.early.front()
            && *after <= inner.taken
        {
            let taken = may(command).then(|| inner.early.pop_front());
            return taken?.map(|(_, command)| command);
        }
        if !inner.commands.front().is_some_and(may) {
            return None;
        }
        inner.taken += 1;
        inner.commands.pop_front()
    }

    /// The first command, if it is one that comes early.
    pub(super) fn pop_early(&self) -> Option<C> {
        let mut inner = self.inner.lock();
        let (after, _) = inner.early.front()?;
        if *after > inner.taken {
            return None;
        }
        inner.early.pop_front().map(|(_, command)| command)
    }

    pub(super) fn is_empty(&self) -> bool {
        let inner = self.inner.lock();
        inner.commands.is_empty() && inner.early.is_empty()
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
        let dropped = (
            std::mem::take(&mut inner.commands),
            std::mem::take(&mut inner.early),
        );
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
        queue.push(1, Place::Last);
        queue.push(2, Place::Last);
        assert_eq!(queue.pop_if(|command| *command == 2), None);
        assert_eq!(queue.pop_if(|command| *command == 1), Some(1));
        assert_eq!(queue.pop_if(|_| true), Some(2));
        assert!(queue.is_empty());
    }

    #[test]
    fn early_commands_overtake_all_but_firm_ones() {
        let queue = Queue::new();
        for (command, place) in [
            ("a report", Place::Last),
            ("an order", Place::Firm),
            ("another report", Place::Last),
            ("a question", Place::Early),
            ("a second order", Place::Firm),
            ("a third report", Place::Last),
            ("a second question", Place::Early),
            ("a third question", Place::Early),
        ] {
            queue.push(command, place);
        }
        assert_eq!(queue.pop_early(), None, "an order comes before");
        let mut taken = Vec::new();
        while let Some(command) = queue.pop_if(|_| true) {
            taken.push(command);
        }
        let expected = [
            "a report",
            "an order",
            "a question",
            "another report",
            "a second order",
            "a second question",
            "a third question",
            "a third report",
        ];
        assert_eq!(taken, expected);
        assert!(queue.is_empty());
        queue.push("later", Place::Early);
        assert!(!queue.is_empty());
        assert_eq!(queue.pop_if(|_| false), None, "may not be taken");
        assert_eq!(queue.pop_if(|_| true), Some("later"));
        queue.push("a report", Place::Last);
        queue.push("a question", Place::Early);
        assert_eq!(queue.pop_early(), Some("a question"));
        assert_eq!(queue.pop_early(), None);
    }

    #[test]
    fn a_closed_queue_drops_what_waits_and_what_comes() {
        let queue = Queue::new();
        let (answer, mut waiting) = tokio::sync::oneshot::channel::<()>();
        queue.push(answer, Place::Last);
        queue.close();
        assert!(waiting.try_recv().is_err());
        let (answer, mut late) = tokio::sync::oneshot::channel::<()>();
        queue.push(answer, Place::Last);
        assert!(late.try_recv().is_err());
        assert!(!queue.wait(None), "closed");
    }
}
