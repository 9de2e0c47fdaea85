//! Messages over a connection into memory of a pool, and what becomes of the memory.

use bytes::Bytes;
use oxidask_wire::connection::{Limits, Reader, Writer};
use oxidask_wire::error::ReadError;
use oxidask_wire::{Generation, Message, Payload, Value};
use tokio::io::AsyncWriteExt;

use super::*;

const MIB: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(600);

fn pool(most: usize, kept_for: Duration) -> Pool {
    Pool::with(most, u64::MAX, kept_for)
}

/// Frames of a message with a large one of so many bytes.
fn frames(nbytes: usize, first: u8) -> Vec<Bytes> {
    let data: Vec<u8> = (0..nbytes).map(|n| (n % 251) as u8 ^ first).collect();
    let payload = Payload::pickle_object("not aligned", vec![data.into()]);
    let value = Value::map([("data", Value::Payload(Arc::new(payload)))]);
    Message::from_value(&value).frames().cloned().collect()
}

fn large(frames: &[Bytes]) -> &Bytes {
    frames
        .iter()
        .max_by_key(|frame| frame.len())
        .expect("frames")
}

/// Sends these messages and reads them into memory of the pool.
async fn sent_over(pool: &Pool, messages: Vec<Vec<Bytes>>) -> Vec<Vec<Bytes>> {
    let (near, far) = tokio::io::duplex(MIB);
    let count = messages.len();
    let sender = tokio::spawn(async move {
        let mut writer = Writer::over(near, Generation::M3);
        for frames in messages {
            let message = Message::from_frames(frames.into_iter()).expect("a message");
            writer.send(&message).await.expect("sent");
        }
        writer
    });
    let mut reader = Reader::over(far, Generation::M3, Limits::default());
    reader.land_in(Arc::new(pool.clone()));
    let mut read = Vec::new();
    for _ in 0..count {
        let message = reader.read().await.expect("read");
        read.push(message.frames().cloned().collect());
    }
    sender.await.expect("sender");
    read
}

async fn address_of(pool: &Pool, nbytes: usize) -> usize {
    let read = sent_over(pool, vec![frames(nbytes, 0)]).await;
    large(&read[0]).as_ptr() as usize
}

#[tokio::test]
async fn large_messages_come_whole_and_aligned_among_small_ones() {
    let pool = pool(100 * MIB, LONG);
    let messages: Vec<_> = [10, 5 * MIB, 20_000, 40 * MIB + 1, 7, 5 * MIB]
        .into_iter()
        .zip(1..)
        .map(|(nbytes, first)| frames(nbytes, first))
        .collect();
    let read = sent_over(&pool, messages.clone()).await;
    assert!(read == messages);
    for frame in read
        .iter()
        .map(|frames| large(frames))
        .filter(|frame| frame.len() > 4 * MIB)
    {
        assert_eq!(frame.as_ptr() as usize % message::ALIGNMENT, 0);
    }
    // Again in memory that has other bytes in it.
    drop(read);
    assert!(pool.bytes() > 50 * MIB);
    assert!(sent_over(&pool, messages.clone()).await == messages);
}

#[tokio::test]
async fn memory_is_used_again_when_the_last_part_of_a_message_is_gone() {
    let pool = pool(100 * MIB, LONG);
    let mut read = sent_over(&pool, vec![frames(8 * MIB, 0)]).await.remove(0);
    let address = large(&read).as_ptr() as usize;
    let last = read.pop();
    drop(read);
    assert_eq!(pool.bytes(), 0, "a frame is left");
    assert_ne!(address_of(&pool, 8 * MIB).await, address);
    drop(last);
    let kept = pool.bytes();
    assert!((16 * MIB..17 * MIB).contains(&kept), "{kept}");
    // What is smaller takes a part, what is larger takes all and more.
    let small = sent_over(&pool, vec![frames(5 * MIB, 0)]).await;
    assert!(
        (10 * MIB..12 * MIB).contains(&pool.bytes()),
        "{}",
        pool.bytes()
    );
    let larger = sent_over(&pool, vec![frames(30 * MIB, 0)]).await;
    assert!(
        (2 * MIB..4 * MIB).contains(&pool.bytes()),
        "{}",
        pool.bytes()
    );
    assert!(larger[0] == frames(30 * MIB, 0) && small[0] == frames(5 * MIB, 0));
    drop((small, larger));
    assert!(pool.bytes() > 37 * MIB);
}

#[tokio::test]
async fn no_more_than_the_bound_is_kept_and_the_newest_stays() {
    let pool = pool(20 * MIB, LONG);
    let old = sent_over(&pool, vec![frames(12 * MIB, 0)]).await;
    let new = sent_over(&pool, vec![frames(10 * MIB, 0)]).await;
    let huge = sent_over(&pool, vec![frames(50 * MIB, 0)]).await;
    let address = large(&new[0]).as_ptr() as usize;
    drop(old);
    drop(new);
    assert!((10 * MIB..11 * MIB).contains(&pool.bytes()));
    assert_eq!(address_of(&pool, 10 * MIB).await, address);
    drop(huge);
    assert_eq!(pool.bytes(), 20 * MIB);
    assert_eq!(super::Pool::with(0, u64::MAX, LONG).bytes(), 0);
}

#[tokio::test]
async fn nothing_is_kept_for_long() {
    let pool = pool(100 * MIB, Duration::from_millis(50));
    drop(sent_over(&pool, vec![frames(8 * MIB, 0)]).await);
    assert!(pool.bytes() > 0);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if pool.bytes() == 0 && !pool.0.kept.lock().watched {
            return;
        }
    }
    panic!("{pool:?} after four seconds");
}

#[tokio::test]
async fn a_large_process_keeps_nothing() {
    let small = pool(100 * MIB, LONG);
    drop(sent_over(&small, vec![frames(8 * MIB, 0)]).await);
    assert!(!small.process_has(u64::MAX), "that is its limit");
    let limited = Pool::with(100 * MIB, 1, LONG);
    let read = sent_over(&limited, vec![frames(8 * MIB, 0)]).await;
    drop(read);
    assert_eq!(limited.bytes(), 0);
    // It was smaller before.
    limited
        .0
        .kept
        .lock()
        .add(Mapping::new(MIB).expect("memory"), MIB);
    assert!(limited.process_has(2));
    assert!(limited.bytes() == 0 && !limited.process_has(2));
}

#[tokio::test]
async fn memory_of_a_message_that_ends_early_is_not_kept() {
    let pool = pool(100 * MIB, LONG);
    let (mut near, far) = tokio::io::duplex(MIB);
    let mut reader = Reader::over(far, Generation::M3, Limits::default());
    reader.land_in(Arc::new(pool.clone()));
    let nbytes = 64 * MIB as u64;
    let words = [nbytes + 16, 1, nbytes];
    let prelude: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    near.write_all(&prelude).await.expect("written");
    near.write_all(&[0; 1000]).await.expect("written");
    let early = tokio::time::timeout(Duration::from_millis(50), reader.read()).await;
    assert!(early.is_err(), "more is to come");
    drop(near);
    assert!(matches!(reader.read().await, Err(ReadError::Cut)));
    drop(reader);
    assert_eq!(pool.bytes(), 0);
}

#[test]
fn limits_of_the_worker_bound_what_is_kept() {
    let limits = Thresholds::of(1000 << 20, Some(0.6), Some(0.7), Some(0.8));
    let shared = Pool::new(&limits).0;
    assert_eq!((shared.most, shared.roomy), (100 << 20, 600 << 20));
    let off = Thresholds::of(900 << 20, None, None, None);
    assert_eq!(Pool::new(&off).0.roomy, 600 << 20);
    let none = Pool::new(&Thresholds::default()).0;
    assert_eq!((none.most, none.roomy), (1 << 30, u64::MAX));
}
