//! The threads that serve connections, in groups: callers are received by a thread of their own, and the streams of many
//! workers and large graphs have threads of their own, so that a question, a heartbeat or a client never queues behind
//! thousands of workers that come, behind thousands of their messages, or behind a million tasks. (The thread of the core
//! is in [`crate::core_thread`].)

use std::future::Future;
use std::io;
use std::sync::Arc;

use oxidask_wire::Connection;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::slice;

/// Streams of so many workers are served beside everything else: a few messages hold up nobody, and threads that wake
/// each other cost more than they do.
const FEW_WORKERS: usize = 32;

/// All groups.
pub(crate) struct Threads {
    /// Serves all that the others do not.
    pub(crate) front: Runtime,
    /// Receives callers.
    reception: Runtime,
    /// Takes in large graphs.
    graphs: Runtime,
    streams: Runtime,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Half of the cores: the other half is for the core thread, graphs and compression. More threads than there is
        // work for wake each other for nothing.
        Ok(Self {
            front: runtime("io", cores / 8)
                .on_thread_start(slice::ask_for_short_turns)
                .build()?,
            reception: runtime("reception", 1).build()?,
            graphs: runtime("graphs", 1).build()?,
            streams: runtime("streams", cores / 2).build()?,
        })
    }

    /// Where connections are served.
    pub(crate) fn places(&self) -> Places {
        Places {
            front: Some(self.front.handle().clone()),
            reception: Some(self.reception.handle().clone()),
            graphs: Some(self.graphs.handle().clone()),
            streams: Some(self.streams.handle().clone()),
            few: Arc::new(Semaphore::new(FEW_WORKERS)),
        }
    }

    /// Ends them. Sessions that do not end by themselves are dropped.
    pub(crate) fn shutdown(self) {
        self.reception.shutdown_background();
        self.graphs.shutdown_background();
        self.streams.shutdown_background();
        self.front.shutdown_background();
    }
}

fn runtime(name: &str, threads: usize) -> Builder {
    let mut builder = Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(threads.max(1));
    }
    builder.thread_stack_size(oxidask_wire::value::STACK_SIZE);
    builder.enable_all().thread_name(name);
    builder
}

/// Where connections are received and served; by default where they are accepted.
#[derive(Clone, Debug)]
pub struct Places {
    front: Option<Handle>,
    reception: Option<Handle>,
    graphs: Option<Handle>,
    streams: Option<Handle>,
    /// One for each worker that may still be among the few. Not how many are registered counts: that are few as long as
    /// thousands come at once.
    few: Arc<Semaphore>,
}

impl Places {
    /// Has a listener accept where callers are received: up to the request that says what they want.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn receive(&self, listener: TcpListener) -> io::Result<(TcpListener, Handle)> {
        let Some(reception) = &self.reception else {
            return Ok((listener, Handle::current()));
        };
        let _entered = reception.enter();
        let listener = TcpListener::from_std(listener.into_std()?)?;
        Ok((listener, reception.clone()))
    }

    /// Has a large graph taken in, for as long as somebody waits for it.
    pub(crate) async fn take_in<R: Send + 'static>(
        &self,
        graph: impl Future<Output = R> + Send + 'static,
    ) -> R {
        let Some(threads) = &self.graphs else {
            return graph.await;
        };
        // Ends it with this future.
        let mut tasks = JoinSet::new();
        tasks.spawn_on(graph, threads);
        match tasks.join_next().await {
            Some(Ok(done)) => return done,
            Some(Err(error)) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
            None => {}
        }
        // The threads end, as does the process.
        std::future::pending().await
    }

    /// Where the stream of one more worker is served.
    pub(crate) fn of_stream(&self) -> Place {
        let seat = Arc::clone(&self.few).try_acquire_owned().ok();
        let threads = match seat {
            Some(_) => &self.front,
            None => &self.streams,
        };
        Place {
            threads: threads.clone(),
            seat,
        }
    }

    /// Where everything else is served.
    pub(crate) fn of_requests(&self) -> Place {
        Place {
            threads: self.front.clone(),
            seat: None,
        }
    }
}

/// Where one connection is served.
#[derive(Debug)]
pub(crate) struct Place {
    /// Nothing says: where it is.
    threads: Option<Handle>,
    /// Of one of the few.
    seat: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Serves a connection there, if it can be moved: if it is plain TCP. Resolves when it has gone there, or was served
    /// here.
    pub(crate) async fn serve<F>(
        self,
        connection: Connection,
        serve: impl FnOnce(Connection) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let Self { threads, seat } = self;
        let Some(threads) = threads.filter(|_| connection.is_adoptable()) else {
            return serve(connection).await;
        };
        threads.spawn(async move {
            let _seat = seat;
            match connection.adopt() {
                Ok(connection) => serve(connection).await,
                Err(error) => tracing::warn!("a connection is lost: {error}"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxidask_wire::connection::{AcceptPolicy, ConnectOptions};
    use oxidask_wire::{Message, Value};

    #[test]
    fn a_caller_is_received_here_and_served_there_where_it_was_left() {
        let threads = Threads::start().expect("threads");
        let places = threads.places();
        let serves = |place: Place, name: &str| {
            let heard = serves_one_at(&threads, place);
            assert_eq!(heard, [Some("reception".into()), Some(name.into())]);
        };
        serves(places.of_requests(), "io");
        let few: Vec<Place> = (1..FEW_WORKERS).map(|_| places.of_stream()).collect();
        let last_of_few = places.of_stream();
        serves(places.of_stream(), "streams");
        serves(last_of_few, "io");
        drop(few);
        serves(places.of_stream(), "io");
        threads.shutdown();
    }

    #[test]
    fn a_graph_is_taken_in_elsewhere_for_as_long_as_somebody_waits() {
        let threads = Threads::start().expect("threads");
        let places = threads.places();
        let name = || std::thread::current().name().map(str::to_owned);
        threads.front.block_on(async move {
            let done = places.take_in(async move { name() }).await;
            assert_eq!(done.as_deref(), Some("graphs"));
            let (held, ended) = tokio::sync::oneshot::channel::<()>();
            let waits = places.take_in(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
            let waited = tokio::time::timeout(std::time::Duration::from_millis(1), waits).await;
            assert!(waited.is_err());
            assert!(ended.await.is_err(), "it was dropped");
        });
        threads.shutdown();
    }

    /// The threads that a caller's messages were read by.
    fn serves_one_at(threads: &Threads, place: Place) -> [Option<String>; 2] {
        let places = threads.places();
        let (heard, hears) = std::sync::mpsc::sync_channel(1);
        let name = || std::thread::current().name().map(str::to_owned);
        threads.front.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let (listener, reception) = places.receive(listener).expect("a listener");
            let calls = tokio::spawn(async move {
                let options = ConnectOptions::default();
                let caller = Connection::connect(&format!("tcp://{address}"), &options).await;
                let mut caller = caller.expect("connected");
                for text in ["before", "after"] {
                    let message = Message::from_value(&Value::from(text));
                    caller.send(&message).await.expect("sent");
                }
                caller.read().await.expect("an answer").value()
            });
            let receives = reception.spawn(async move {
                let (stream, peer) = listener.accept().await.expect("a caller");
                let policy = AcceptPolicy::default();
                let accepted = Connection::accept(stream, &policy, Some(peer), None).await;
                let mut accepted = accepted.expect("a connection");
                let first = accepted.read().await.expect("a message").value();
                assert_eq!(first.expect("readable"), Value::from("before"));
                let received_by = name();
                let served = place.serve(accepted, move |mut connection| async move {
                    let second = connection.read().await.expect("a message");
                    assert_eq!(second.value().expect("readable"), Value::from("after"));
                    heard.send([received_by, name()]).expect("heard");
                    connection.send(&second).await.expect("answered");
                });
                served.await;
            });
            receives.await.expect("a reception");
            let answer = calls.await.expect("the caller");
            assert_eq!(answer.expect("readable"), Value::from("after"));
        });
        hears.recv().expect("something")
    }
}
