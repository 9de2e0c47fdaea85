//! A queue between the threads of tokio and those of Python.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Unbounded; what fills it is bounded elsewhere (threads of the worker, requests of peers).
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        let state = State {
            items: VecDeque::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            filled: Condvar::new(),
        }
    }

    /// Does nothing when the queue is closed.
    pub(crate) fn push(&self, item: T) {
        let mut state = self.state.lock();
        if !state.closed {
            state.items.push_back(item);
            self.filled.notify_one();
        }
    }

    /// Waits for the next item; nothing when the queue is closed. Not to be called with the interpreter
    /// held.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            self.filled.wait(&mut state);
        }
    }

    /// The next item, if there is one now.
    pub(crate) fn try_pop(&self) -> Option<T> {
        self.state.lock().items.pop_front()
    }

    /// Lets go of everybody who waits, and of everything in it.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.items.clear();
        self.filled.notify_all();
    }
}
