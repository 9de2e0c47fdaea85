//! Finding out what a caller speaks. Callers that talk first identify themselves: an operation in
//! F1 (≤ 2.22.0) or a handshake in F2 (≥ 2023.8.0). The silent ones between have to be greeted in
//! the right framing, and nothing in the connection says which; see [`PeerMemory`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::{Connection, Limits, PeerMemory, Reader, Transport, Writer};
use crate::error::{AcceptError, ReadError, WriteError};
use crate::framing::Sniff;
use crate::handshake::Handshake;
use crate::release::Generation;

/// How callers are received. One per listener.
#[derive(Clone, Debug)]
pub struct AcceptPolicy {
    /// Bounds of a message.
    pub limits: Limits,
    /// How long a caller may stay silent before it is greeted.
    pub grace: Duration,
    /// How long the newer greeting may stay unanswered before the caller is taken for an older one
    /// (not applied to addresses that have only ever answered the newer greeting).
    pub unanswered: Duration,
    /// How a silent caller is greeted when nothing is known of its address: [`Generation::M3`] for
    /// 2021.03.0 – 2023.7.1, [`Generation::M1`] for 2.23.0 – 2021.02.0.
    pub silent: Generation,
    /// Time for the whole handshake.
    pub handshake_timeout: Duration,
    /// Pickle protocol we announce.
    pub pickle_protocol: i64,
    /// Extensions we announce to peers of our own.
    pub capabilities: Vec<String>,
    /// What addresses spoke before.
    pub memory: PeerMemory,
}

impl Default for AcceptPolicy {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            grace: Duration::from_millis(60),
            unanswered: Duration::from_secs(1),
            silent: Generation::M3,
            handshake_timeout: Duration::from_secs(30),
            pickle_protocol: 5,
            capabilities: Vec::new(),
            memory: PeerMemory::default(),
        }
    }
}

impl Connection {
    /// Settles framing and handshake with a caller. `hint` overrules memory and policy for silent
    /// callers (a second port for old clusters, say).
    pub async fn accept(
        stream: impl Transport,
        policy: &AcceptPolicy,
        peer: Option<SocketAddr>,
        hint: Option<Generation>,
    ) -> Result<Self, AcceptError> {
        let info = stream.info();
        let (read, write) = stream.into_halves();
        // WebSocket messages have one framing (`websocket.rs`).
        let websocket = info.scheme.is_websocket().then_some(Generation::M3);
        let hint = websocket.or(hint);
        let mut acceptor = Acceptor {
            reader: Reader::new(read, Generation::M3, policy.limits),
            writer: Writer::new(write, Generation::M3),
            ip: peer.map(|peer| peer.ip().to_canonical()),
            policy,
        };
        let all = timeout(policy.handshake_timeout, acceptor.run(hint));
        let handshake = all
            .await
            .map_err(|_| AcceptError::Timeout(policy.handshake_timeout))??;
        let Acceptor { reader, writer, .. } = acceptor;
        let generation = reader.generation();
        Ok(Self {
            reader,
            writer,
            generation,
            handshake,
            peer,
            info,
        })
    }
}

struct Acceptor<'a> {
    reader: Reader,
    writer: Writer,
    ip: Option<IpAddr>,
    policy: &'a AcceptPolicy,
}

impl Acceptor<'_> {
    async fn run(&mut self, hint: Option<Generation>) -> Result<Option<Handshake>, AcceptError> {
        if self.hears_within(self.policy.grace).await? {
            return self.talker().await;
        }
        let memory = &self.policy.memory;
        if memory.spoke_without_handshake(self.ip) {
            // Perhaps the main connection of a client of ≤ 2.22, which speaks once its other
            // connection has been answered, and dies when greeted.
            if self.hears_within(Duration::from_secs(1)).await? {
                return self.talker().await;
            }
        }
        let greeting = hint
            .or_else(|| memory.greet_as(self.ip))
            .unwrap_or(self.policy.silent);
        match greeting {
            Generation::M0 => {
                while !self.reader.has_bytes() {
                    self.fill().await?;
                }
                self.talker().await
            }
            greeting => self.greet(greeting, hint.is_some()).await,
        }
    }

    /// Whether bytes arrive in time.
    async fn hears_within(&mut self, time: Duration) -> Result<bool, AcceptError> {
        if self.reader.has_bytes() {
            return Ok(true);
        }
        match timeout(time, self.fill()).await {
            Ok(filled) => filled.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    async fn fill(&mut self) -> Result<(), AcceptError> {
        match self.reader.fill(1024).await {
            Err(ReadError::Closed) => Err(AcceptError::ClosedEarly),
            other => Ok(other?),
        }
    }

    /// A caller that spoke unasked.
    async fn talker(&mut self) -> Result<Option<Handshake>, AcceptError> {
        let generation = loop {
            match self.reader.sniff() {
                Sniff::More => self.fill().await?,
                Sniff::Framing1 => break Generation::M0,
                Sniff::Framing2 => break Generation::M3,
                Sniff::Foreign => return Err(AcceptError::NotDask(self.guess())),
            }
        };
        self.set_generation(generation);
        let first = self.reader.read().await?;
        let theirs = Handshake::from_message(&first);
        if generation == Generation::M0 {
            // Stock of 2.23.0 – 2021.02.0 never speaks first; a peer of our own that was told to
            // speak so does.
            let Ok(theirs) = theirs else {
                self.policy.memory.note_no_handshake(self.ip);
                self.reader.unread(first);
                return Ok(None);
            };
            self.set_generation(Generation::M1);
            self.send_handshake().await?;
            return Ok(Some(theirs));
        }
        let theirs = theirs?;
        self.set_generation(self.reader.generation());
        self.send_handshake().await?;
        Ok(Some(theirs))
    }

    /// Greets a silent caller in the framing that it hopefully speaks.
    async fn greet(
        &mut self,
        greeting: Generation,
        certain: bool,
    ) -> Result<Option<Handshake>, AcceptError> {
        self.set_generation(greeting);
        self.greet_silent().await?;
        let memory = &self.policy.memory;
        let patient = certain || !greeting.has_total_length() || memory.is_surely_newer(self.ip);
        let deadline = Instant::now()
            + if patient {
                self.policy.handshake_timeout
            } else if memory.has_talkers(self.ip) {
                // A Python that is busy when it has connected; an older one still gets its turn
                // before it gives up after 10 s.
                self.policy.unanswered * 5
            } else {
                self.policy.unanswered
            };
        let answer = timeout_at(deadline, async {
            while !self.reader.has_bytes() {
                self.reader.fill(1024).await?;
            }
            Ok::<(), ReadError>(())
        });
        match answer.await {
            Err(_) => {
                memory.note_refused(self.ip, greeting);
                return Err(AcceptError::Unanswered);
            }
            // A newer peer closes when it is greeted as an older one; an older one never closes but
            // waits for more, so that a close after the newer greeting says nothing.
            Ok(Err(error)) => {
                if !greeting.has_total_length() {
                    memory.note_refused(self.ip, greeting);
                }
                return Err(match error {
                    ReadError::Closed => AcceptError::ClosedEarly,
                    other => other.into(),
                });
            }
            Ok(Ok(())) => {}
        }
        let theirs = Handshake::from_message(&self.reader.read().await?)?;
        self.set_generation(self.reader.generation());
        memory.note_answered(self.ip, self.reader.generation());
        Ok(Some(theirs))
    }

    /// What a caller with foreign first bytes probably wanted.
    fn guess(&self) -> &'static str {
        const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];
        if self.reader.begins_with(TLS_HANDSHAKE) {
            "it speaks TLS, which this port does not (`--protocol tls`)"
        } else if self.reader.begins_with(b"GET ") {
            "it speaks HTTP, which the dashboard port does, or wants a WebSocket (`--protocol ws`)"
        } else {
            "unknown first bytes"
        }
    }

    fn set_generation(&mut self, generation: Generation) {
        self.reader.set_generation(generation);
        self.writer.set_generation(generation);
    }

    /// Greets a peer that waits. 2021.03.0 shares its framing with the newer releases but expects
    /// the map in the second frame, behind a header; the others look at the first frame only. The
    /// map twice suits both, since it is a valid header too.
    async fn greet_silent(&mut self) -> Result<(), AcceptError> {
        if self.writer.generation() != Generation::M3 {
            return self.send_handshake().await;
        }
        let ours = Handshake::ours(self.policy.pickle_protocol, &self.policy.capabilities);
        let map = ours.to_message().body().clone();
        self.writer.send_frames(&[map.clone(), map]).await?;
        Ok(())
    }

    async fn send_handshake(&mut self) -> Result<(), AcceptError> {
        let ours = Handshake::ours(self.policy.pickle_protocol, &self.policy.capabilities);
        self.writer
            .send(&ours.to_message())
            .await
            .map_err(|error| match error {
                WriteError::Io(error) => AcceptError::Io(error),
                WriteError::Encode(error) => AcceptError::Read(error.into()),
            })
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
