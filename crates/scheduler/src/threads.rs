//! The threads that serve connections, in two groups: the streams of many workers have threads of their own, so that a
//! question, a heartbeat or a client never queues behind thousands of messages of workers. (The thread of the core is
//! in [`crate::core_thread`].)

use std::future::Future;
use std::io;

use oxidask_wire::Connection;
use tokio::runtime::{Builder, Handle, Runtime};

/// The streams of the first workers are served where they were accepted: a few messages hold up nobody, and threads that
/// wake each other cost more than they do.
const FEW_WORKERS: usize = 32;

/// Both groups.
pub(crate) struct Threads {
    /// Accepts connections and serves all but the streams of workers.
    pub(crate) front: Runtime,
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
            front: runtime("io", cores / 8)?,
            streams: runtime("streams", cores / 2)?,
        })
    }

    /// Where the streams of workers are served.
    pub(crate) fn streams(&self) -> Streams {
        Streams(Some(self.streams.handle().clone()))
    }

    /// Ends them. Sessions that do not end by themselves are dropped.
    pub(crate) fn shutdown(self) {
        self.streams.shutdown_background();
        self.front.shutdown_background();
    }
}

fn runtime(name: &str, threads: usize) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(threads.max(1));
    }
    builder.thread_stack_size(oxidask_wire::value::STACK_SIZE);
    builder.enable_all().thread_name(name).build()
}

/// Where the streams of workers are served; by default where they were accepted.
#[derive(Clone, Debug, Default)]
pub struct Streams(Option<Handle>);

impl Streams {
    /// Serves a connection there if there are many `workers` and it can be moved: if it is plain TCP.
    pub(crate) async fn serve<F>(
        &self,
        workers: usize,
        connection: Connection,
        serve: impl FnOnce(Connection) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let moves = workers >= FEW_WORKERS && connection.is_adoptable();
        let Some(threads) = self.0.as_ref().filter(|_| moves) else {
            return serve(connection).await;
        };
        let served = threads.spawn(async move {
            match connection.adopt() {
                Ok(connection) => serve(connection).await,
                Err(error) => tracing::warn!("a connection is lost: {error}"),
            }
        });
        // An error is a panic, which was reported, or the end of the process.
        let _ = served.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxidask_wire::connection::{AcceptPolicy, ConnectOptions};
    use oxidask_wire::{Message, Value};

    #[test]
    fn a_stream_goes_on_where_it_was_left_on_threads_of_its_own() {
        let threads = Threads::start().expect("threads");
        let streams = threads.streams();
        let (heard, hears) = std::sync::mpsc::sync_channel(1);
        threads.front.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.expect("a port");
            let address = listener.local_addr().expect("an address");
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
            let (stream, peer) = listener.accept().await.expect("a caller");
            let policy = AcceptPolicy::default();
            let accepted = Connection::accept(stream, &policy, Some(peer), None).await;
            let mut accepted = accepted.expect("a connection");
            let first = accepted.read().await.expect("a message").value();
            assert_eq!(first.expect("readable"), Value::from("before"));
            let served = streams.serve(FEW_WORKERS, accepted, |mut connection| async move {
                let second = connection.read().await.expect("a message");
                let thread = std::thread::current().name().map(str::to_owned);
                heard.send((second.value().ok(), thread)).expect("heard");
                connection.send(&second).await.expect("answered");
            });
            served.await;
            let answer = calls.await.expect("the caller");
            assert_eq!(answer.expect("readable"), Value::from("after"));
        });
        let heard = hears.recv().expect("something");
        assert_eq!(
            heard,
            (Some(Value::from("after")), Some("streams".to_owned()))
        );
        threads.shutdown();
    }
}
