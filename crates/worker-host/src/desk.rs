//! Where everything that changes the worker's state is handed in.
//!
//! There is no thread whose work this is: whoever hands something in works off what lies there, unless
//! somebody is at it already, who then does that, too. So a thread that has finished a task finds out
//! itself what it does next and tells the scheduler; nobody has to be woken for it. Nobody waits either:
//! the books never do, and they are tried, not waited for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oxidask_worker_core::ids::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::books::{Books, Input};
use crate::clock::until;

/// Most inputs that are worked off at once.
const BATCH: usize = 1024;

/// Shared and cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Inner>);

struct Inner {
    queue: Mutex<VecDeque<Input>>,
    /// Nothing before the worker has begun, and after it has ended.
    books: Mutex<Option<Books>>,
    ended: AtomicBool,
    /// When the state machine wants to be called without an input.
    due: watch::Sender<Option<Timestamp>>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            queue: Mutex::default(),
            books: Mutex::default(),
            ended: AtomicBool::new(false),
            due: watch::Sender::new(None),
        }))
    }

    /// Whoever hands something in from now on finds the books; what lies there already is worked off.
    pub(crate) fn open(&self, books: Books) {
        *self.0.books.lock() = Some(books);
        let desk = self.clone();
        tokio::spawn(async move { desk.keep_time().await });
        self.work_off();
    }

    /// Takes an input; does what it asks for before it returns, or leaves it to somebody who is at it.
    /// After the end it is dropped, so that who waits for an answer learns that there is none.
    pub(crate) fn hand_in(&self, input: Input) {
        if self.0.ended.load(Ordering::Acquire) {
            return;
        }
        self.0.queue.lock().push_back(input);
        self.work_off();
    }

    fn work_off(&self) {
        // Whoever holds the books looks at the queue again after giving them back, so nothing is left.
        while !self.0.queue.lock().is_empty() {
            let Some(mut held) = self.0.books.try_lock() else {
                return;
            };
            let Some(books) = held.as_mut() else {
                return;
            };
            let inputs = self.take();
            let ended = books.work_off(inputs).is_none();
            let due = books.due();
            if ended {
                *held = None;
                self.0.ended.store(true, Ordering::Release);
            }
            drop(held);
            self.0.due.send_if_modified(|known| {
                let changed = *known != due;
                *known = due;
                changed
            });
            if ended {
                self.0.queue.lock().clear();
                return;
            }
        }
    }

    fn take(&self) -> VecDeque<Input> {
        let mut queue = self.0.queue.lock();
        if queue.len() <= BATCH {
            return std::mem::take(&mut queue);
        }
        queue.drain(..BATCH).collect()
    }

    /// Hands in the passing of time.
    async fn keep_time(&self) {
        let mut due = self.0.due.subscribe();
        loop {
            let next = *due.borrow_and_update();
            let sleep = async {
                match next {
                    Some(next) => tokio::time::sleep(until(next)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {
                    // So that a time that is due again is noticed as a change.
                    self.0.due.send_if_modified(|known| {
                        *known = None;
                        false
                    });
                    self.hand_in(Input::TimeUp);
                }
                changed = due.changed() => if changed.is_err() { return },
            }
            if self.0.ended.load(Ordering::Acquire) {
                return;
            }
        }
    }
}
