//! Simulated workers: they answer every task at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use oxidask_wire::connection::{Reader, Writer};
use oxidask_wire::msgpack::{Cursor, Token, Writer as Msgpack};
use oxidask_wire::{Connection, Message, Release};
use tokio::task::{AbortHandle, JoinSet};

use crate::Target;
use crate::registration::{address, register};
use crate::versions::now;

/// How many connect at the same time when nobody measures that.
const AT_ONCE: usize = 50;
/// `pickle.dumps(int)`.
const TYPE: &[u8] =
    b"\x80\x04\x95\x14\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.";
/// First release with `run_id`.
const RUN_IDS: Release = Release::new(2023, 1, 1);

/// What workers do with tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Finish them at once, with results of so many bytes.
    Finish(u64),
    /// Keep them.
    Hold,
}

/// What all workers have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Tasks given to them.
    pub(crate) tasks: AtomicU64,
    /// When the first came, in seconds since 1970, as bits.
    first: AtomicU64,
}

impl Seen {
    /// Seconds since 1970 at which the first task came after the last [`Self::reset`].
    pub(crate) fn first(&self) -> Option<f64> {
        let bits = self.first.load(Ordering::Relaxed);
        (bits != 0).then(|| f64::from_bits(bits))
    }

    pub(crate) fn reset(&self) {
        self.tasks.store(0, Ordering::Relaxed);
        self.first.store(0, Ordering::Relaxed);
    }

    fn add(&self, tasks: u64) {
        if tasks > 0 && self.tasks.fetch_add(tasks, Ordering::Relaxed) == 0 {
            self.first.store(now().to_bits(), Ordering::Relaxed);
        }
    }
}

/// Workers that run until they are dropped.
pub(crate) struct Workers {
    pub(crate) seen: Arc<Seen>,
    running: JoinSet<Result<()>>,
    /// By the worker's number, the oldest first.
    handles: VecDeque<(usize, AbortHandle)>,
    /// Workers there ever were.
    made: usize,
}

impl Workers {
    /// Connects and registers so many workers of one thread.
    pub(crate) async fn start(target: &Target, count: usize, behaviour: Behaviour) -> Result<Self> {
        Self::start_by(target, count, behaviour, AT_ONCE).await
    }

    /// The same, so many at a time.
    pub(crate) async fn start_by(
        target: &Target,
        count: usize,
        behaviour: Behaviour,
        at_once: usize,
    ) -> Result<Self> {
        let mut workers = Self {
            seen: Arc::default(),
            running: JoinSet::new(),
            handles: VecDeque::new(),
            made: count,
        };
        let mut connecting = JoinSet::<Result<(usize, Connection)>>::new();
        for number in 0..count {
            if connecting.len() >= at_once
                && let Some(connected) = connecting.join_next().await
            {
                workers.run(target, behaviour, connected??);
            }
            let target = target.clone();
            connecting.spawn(async move { Ok((number, register(&target, number).await?)) });
        }
        while let Some(connected) = connecting.join_next().await {
            workers.run(target, behaviour, connected??);
        }
        Ok(workers)
    }

    fn run(
        &mut self,
        target: &Target,
        behaviour: Behaviour,
        (number, connection): (usize, Connection),
    ) {
        let (reader, writer) = connection.split();
        let worker = Worker {
            reader,
            writer,
            behaviour,
            run_ids: target.release >= RUN_IDS,
            seen: Arc::clone(&self.seen),
        };
        let handle = self.running.spawn(worker.run());
        self.handles.push_back((number, handle));
    }

    /// The oldest worker vanishes and a new one comes.
    pub(crate) async fn replace_one(
        &mut self,
        target: &Target,
        behaviour: Behaviour,
    ) -> Result<()> {
        if let Some((_, oldest)) = self.handles.pop_front() {
            oldest.abort();
        }
        self.add_one(target, behaviour).await
    }

    /// The worker with this address vanishes: its connection ends without a word. False when there is none.
    pub(crate) fn lose(&mut self, lost: &str) -> bool {
        let found = |&(number, _): &(usize, AbortHandle)| address(number) == lost;
        let at = self.handles.iter().position(found);
        let worker = at.and_then(|at| self.handles.remove(at));
        worker.is_some_and(|(_, handle)| {
            handle.abort();
            true
        })
    }

    /// A new worker comes.
    pub(crate) async fn add_one(&mut self, target: &Target, behaviour: Behaviour) -> Result<()> {
        // Those that were aborted.
        while self.running.try_join_next().is_some() {}
        let number = self.made;
        self.made += 1;
        let connection = register(target, number).await?;
        self.run(target, behaviour, (number, connection));
        Ok(())
    }

    /// Workers there ever were.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// An error if a worker has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.running.try_join_next() {
            None => Ok(()),
            Some(Ok(Err(error))) => Err(error.context("a simulated worker ended")),
            Some(ended) => bail!("a simulated worker ended: {ended:?}"),
        }
    }
}

struct Worker {
    reader: Reader,
    writer: Writer,
    behaviour: Behaviour,
    run_ids: bool,
    seen: Arc<Seen>,
}

impl Worker {
    async fn run(mut self) -> Result<()> {
        loop {
            let message = self.reader.read().await.context("the scheduler left")?;
            let Some(answer) = self.answer(&message)? else {
                continue;
            };
            self.writer.send(&answer).await?;
        }
    }

    fn answer(&self, message: &Message) -> Result<Option<Message>> {
        let mut out = Msgpack::with_capacity(512);
        let (mut answers, mut tasks) = (0u32, 0u64);
        for item in message.items() {
            let item = item?;
            match item.op {
                "compute-task" => {
                    tasks += 1;
                    if let Behaviour::Finish(nbytes) = self.behaviour {
                        self.finished(item.raw, nbytes, &mut out)?;
                        answers += 1;
                    }
                }
                "steal-request" => {
                    keeps(item.raw, self.behaviour, &mut out)?;
                    answers += 1;
                }
                "close" => bail!("the scheduler closed this worker"),
                _ => {}
            }
        }
        self.seen.add(tasks);
        if answers == 0 {
            return Ok(None);
        }
        let mut body = Msgpack::with_capacity(out.buf.len() + 5);
        body.array(answers as usize);
        body.raw(&out.buf);
        let frame = bytes::Bytes::from(body.buf);
        Ok(Some(Message::from_frames(vec![frame].into_iter())?))
    }

    fn finished(&self, task: &[u8], nbytes: u64, out: &mut Msgpack) -> Result<()> {
        let now = now();
        let key = field(task, "key")?.context("a task without a key")?;
        out.map(if self.run_ids { 11 } else { 9 });
        pair(out, "op", "task-finished");
        pair(out, "status", "OK");
        out.str("key");
        out.raw(key);
        if self.run_ids {
            out.str("run_id");
            out.raw(field(task, "run_id")?.context("a task without a run_id")?);
            pair(out, "stimulus_id", "task-finished-1795248690.7");
        }
        out.str("nbytes");
        out.uint(nbytes);
        out.str("type");
        out.bin(TYPE);
        pair(out, "typename", "int");
        out.str("metadata");
        out.map(0);
        out.str("thread");
        out.int(140_234_567_890_123);
        out.str("startstops");
        out.array(1);
        out.map(3);
        pair(out, "action", "compute");
        out.str("start");
        out.float(now - 1e-5);
        out.str("stop");
        out.float(now);
        Ok(())
    }
}

/// A task is done when it is asked back, or will never be.
fn keeps(request: &[u8], behaviour: Behaviour, out: &mut Msgpack) -> Result<()> {
    let stimulus = field(request, "stimulus_id")?;
    out.map(if stimulus.is_some() { 4 } else { 3 });
    pair(out, "op", "steal-response");
    out.str("key");
    out.raw(field(request, "key")?.context("a request without a key")?);
    let state = if behaviour == Behaviour::Hold {
        "executing"
    } else {
        "memory"
    };
    pair(out, "state", state);
    if let Some(stimulus) = stimulus {
        out.str("stimulus_id");
        out.raw(stimulus);
    }
    Ok(())
}

fn pair(out: &mut Msgpack, name: &str, value: &str) {
    out.str(name);
    out.str(value);
}

/// The raw value of a field of a map.
pub(crate) fn field<'a>(map: &'a [u8], name: &str) -> Result<Option<&'a [u8]>> {
    let mut cursor = Cursor::new(map);
    let Token::Map(entries) = cursor.token()? else {
        bail!("an operation that is no map");
    };
    for _ in 0..entries {
        let found = cursor.peek()? == Token::Str(name);
        cursor.skip()?;
        let value = cursor.skip()?;
        if found {
            return Ok(Some(value));
        }
    }
    Ok(None)
}
