//! Peers of every release, played by bytes on an in-memory pipe with the clock stopped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::ConnectOptions;
use super::*;
use crate::message::Message;
use crate::release::Release;

/// `{compression: nil, python: [3, 8, 18], pickle-protocol: 5}`.
const MAP: &[u8] = b"\x83\xabcompression\xc0\xa6python\x93\x03\x08\x12\xafpickle-protocol\x05";

const PEER: Option<SocketAddr> = Some(SocketAddr::new(
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
    40000,
));
const IP: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)));

fn framed(generation: Generation, map: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let words: &[u64] = if generation.has_total_length() {
        &[16 + map.len() as u64, 1, map.len() as u64]
    } else {
        &[2, 0, map.len() as u64]
    };
    words
        .iter()
        .for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
    out.extend_from_slice(map);
    out
}

/// What a peer that waits to be greeted reads first.
async fn greeting(peer: &mut DuplexStream) -> Generation {
    match peer.read_u64_le().await.expect("a greeting") {
        2 => Generation::M1,
        total => {
            let mut rest = vec![0; usize::try_from(total).expect("small")];
            peer.read_exact(&mut rest).await.expect("the rest");
            Generation::M3
        }
    }
}

#[tokio::test(start_paused = true)]
async fn talkers_identify_themselves() {
    let policy = AcceptPolicy::default();
    let (mut peer, ours) = duplex(1000);
    peer.write_all(&framed(Generation::M3, MAP))
        .await
        .expect("sent");
    let connection = Connection::accept(ours, &policy, PEER, None)
        .await
        .expect("accepted");
    assert_eq!(connection.generation(), Generation::M3);
    assert_eq!(
        greeting(&mut peer).await,
        Generation::M3,
        "the handshake is answered"
    );

    let (mut peer, ours) = duplex(1000);
    let identity = b"\x82\xa2op\xa8identity\xa5reply\xc3";
    peer.write_all(&framed(Generation::M0, identity))
        .await
        .expect("sent");
    let mut connection = Connection::accept(ours, &policy, PEER, None)
        .await
        .expect("accepted");
    assert_eq!(connection.generation(), Generation::M0);
    assert_eq!(connection.handshake(), None);
    let first = connection
        .read()
        .await
        .expect("the first message is not lost");
    assert_eq!(first, Message::from_body(identity.as_slice()));
    connection.send(&first).await.expect("sent");
    assert_eq!(
        peer.read_u64_le()
            .await
            .expect("no greeting, the answer in F1"),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn silent_peers_are_greeted_in_the_newer_framing_unless_something_is_known() {
    for (hint, silent, memory, expected) in [
        (None, Generation::M3, None, Generation::M3),
        (None, Generation::M1, None, Generation::M1),
        (None, Generation::M3, Some(Generation::M1), Generation::M1),
        (
            Some(Generation::M3),
            Generation::M1,
            Some(Generation::M1),
            Generation::M3,
        ),
    ] {
        let policy = AcceptPolicy {
            silent,
            ..AcceptPolicy::default()
        };
        if let Some(generation) = memory {
            policy.memory.note_answered(IP, generation);
        }
        let (mut peer, ours) = duplex(1000);
        let accept = Connection::accept(ours, &policy, PEER, hint);
        let answer = async {
            assert_eq!(greeting(&mut peer).await, expected);
            peer.write_all(&framed(expected, MAP)).await.expect("sent");
        };
        let (connection, ()) = tokio::join!(accept, answer);
        assert_eq!(connection.expect("accepted").generation(), expected);
        assert_eq!(policy.memory.greet_as(IP), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_the_newer_greeting_is_greeted_as_older_next_time() {
    let policy = AcceptPolicy::default();
    let (mut peer, ours) = duplex(1000);
    let result = Connection::accept(ours, &policy, PEER, None).await;
    assert!(matches!(result, Err(AcceptError::Unanswered)), "{result:?}");
    assert_eq!(greeting(&mut peer).await, Generation::M3);
    assert_eq!(policy.memory.greet_as(IP), Some(Generation::M1));

    // And if that was wrong, the peer closes at once.
    let (peer, ours) = duplex(1000);
    let close = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(peer);
    };
    let (result, ()) = tokio::join!(Connection::accept(ours, &policy, PEER, None), close);
    assert!(
        matches!(result, Err(AcceptError::ClosedEarly | AcceptError::Io(_))),
        "{result:?}"
    );
    assert_eq!(policy.memory.greet_as(IP), Some(Generation::M3));
}

#[tokio::test(start_paused = true)]
async fn the_main_connection_of_a_client_without_handshake_is_not_greeted() {
    let policy = AcceptPolicy::default();
    let (mut main, ours) = duplex(1000);
    let main_policy = policy.clone();
    let accept = async { Connection::accept(ours, &main_policy, PEER, None).await };
    let sibling = async {
        let (mut other, theirs) = duplex(1000);
        let identity = b"\x82\xa2op\xa8identity\xa5reply\xc3";
        other
            .write_all(&framed(Generation::M0, identity))
            .await
            .expect("sent");
        Connection::accept(theirs, &policy, PEER, None)
            .await
            .expect("accepted");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let register = b"\x81\xa2op\xafregister-client";
        main.write_all(&framed(Generation::M0, register))
            .await
            .expect("sent");
    };
    let (connection, ()) = tokio::join!(accept, sibling);
    assert_eq!(connection.expect("accepted").generation(), Generation::M0);
    drop(policy);
    let mut first = [0; 8];
    let nothing = tokio::time::timeout(Duration::from_secs(1), main.read_exact(&mut first)).await;
    assert!(!matches!(nothing, Ok(Ok(_))), "it was greeted");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_dask_is_refused() {
    let policy = AcceptPolicy::default();
    for (bytes, guess) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "unknown"),
    ] {
        let (mut peer, ours) = duplex(1000);
        peer.write_all(bytes).await.expect("sent");
        let result = Connection::accept(ours, &policy, PEER, None).await;
        let error = result.expect_err(guess);
        assert!(matches!(error, AcceptError::NotDask(_)), "{error:?}");
        assert!(error.to_string().contains(guess), "{error}");
    }
    let (peer, ours) = duplex(1000);
    drop(peer);
    let result = Connection::accept(ours, &policy, PEER, None).await;
    assert!(
        matches!(result, Err(AcceptError::ClosedEarly)),
        "{result:?}"
    );
    let (mut peer, ours) = duplex(1000);
    peer.write_all(&[58, 0, 0]).await.expect("sent");
    let result = Connection::accept(ours, &policy, PEER, None).await;
    assert!(
        matches!(result, Err(AcceptError::Timeout(_))),
        "a trickle ends: {result:?}"
    );
    let (mut peer, ours) = duplex(1000);
    peer.write_all(&framed(Generation::M3, b"\x80"))
        .await
        .expect("sent");
    let result = Connection::accept(ours, &policy, PEER, None).await;
    assert!(
        matches!(result, Err(AcceptError::Handshake(_))),
        "{result:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_first_may_begin_late_where_such_peers_are_known() {
    for (known, late) in [(false, 3), (true, 3), (true, 6)] {
        let policy = AcceptPolicy::default();
        if known {
            policy.memory.note_release(IP, &Release::NEWEST);
        }
        let (mut peer, ours) = duplex(1000);
        let speak = async {
            tokio::time::sleep(Duration::from_secs(late)).await;
            // The other end may be closed.
            let _ = peer.write_all(&framed(Generation::M3, MAP)).await;
        };
        let (result, ()) = tokio::join!(Connection::accept(ours, &policy, PEER, None), speak);
        assert_eq!(
            result.is_ok(),
            known && late < 5,
            "{known} {late}: {result:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn our_own_calls_that_arrive_late_understand_how_the_silent_are_greeted() {
    for release in [
        Release::new(2021, 3, 1),
        Release::new(2022, 12, 0),
        Release::NEWEST,
    ] {
        let options = ConnectOptions {
            generation: Generation::of(&release),
            ..ConnectOptions::default()
        };
        let (caller, near) = duplex(1000);
        let (far, listener) = duplex(1000);
        // A machine that is busy: what the caller writes comes after it has been greeted.
        tokio::spawn(async move {
            let (mut from_caller, mut to_caller) = tokio::io::split(near);
            let (mut from_listener, mut to_listener) = tokio::io::split(far);
            let there = async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                tokio::io::copy(&mut from_caller, &mut to_listener).await
            };
            let _ = tokio::join!(there, tokio::io::copy(&mut from_listener, &mut to_caller));
        });
        let policy = AcceptPolicy::default();
        let (called, accepted) = tokio::join!(
            Connection::establish("tcp://late", caller, &options),
            Connection::accept(listener, &policy, PEER, None),
        );
        let mut called = called.expect("greeted");
        let mut accepted = accepted.expect("accepted");
        let hello = Message::from_value(&crate::value::Value::from("hello"));
        called.send(&hello).await.expect("sent");
        let read = accepted.read().await.expect("read");
        assert_eq!(read.value().expect("a value").as_str(), Some("hello"));
    }
}
