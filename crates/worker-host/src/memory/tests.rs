//! Spilling and loading with an interpreter whose objects are bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_wire::Value;
use oxidask_worker_core::opaque::Opaque;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::{Semaphore, oneshot};

use super::{Compression, Memory, MemorySettings, Thresholds};
use crate::interpreter::{Answer, Change, Execution, Failure, Interpreter, Loaded, Object, Reply};
use crate::store::{Held, Store};

/// Objects are `Vec<u8>`; empty ones can not be pickled.
struct Bytewise {
    /// Pickling waits for one of these.
    permits: Arc<Semaphore>,
    unpacked: AtomicUsize,
    forgotten: Mutex<Vec<usize>>,
}

fn answered<T>(answer: T) -> Answer<T> {
    let (sender, receiver) = oneshot::channel();
    sender.send(answer).ok();
    receiver
}

impl Interpreter for Bytewise {
    fn execute(&self, _: Execution) {}
    fn load(&self, _: Vec<Bytes>, _: Vec<Key>) -> Answer<Loaded> {
        answered(Loaded::default())
    }
    fn dump(&self, _: Vec<(Key, Object)>, _: Option<Value>) -> Answer<Reply> {
        answered(None)
    }
    fn request(&self, _: Vec<Bytes>) -> Answer<Reply> {
        answered(None)
    }
    fn stream(&self, _: Vec<Bytes>) {}
    fn transitions(&self, _: Vec<Change>) {}
    fn registered(&self, _: Vec<Bytes>) -> Answer<Reply> {
        answered(None)
    }
    fn pack(&self, object: Object) -> Answer<Result<Vec<Bytes>, String>> {
        let (sender, receiver) = oneshot::channel();
        let permits = Arc::clone(&self.permits);
        tokio::spawn(async move {
            let _permit = permits.acquire_owned().await;
            let data = object.value.get::<Vec<u8>>().cloned().unwrap_or_default();
            sender.send(match data.is_empty() {
                true => Err("no pickle".to_owned()),
                false => Ok(vec![Bytes::from_static(b"head"), data.into()]),
            })
        });
        receiver
    }
    fn unpack(&self, frames: Vec<Bytes>) -> Answer<Result<Opaque, Failure>> {
        self.unpacked.fetch_add(1, Ordering::Relaxed);
        let data = frames.get(1).map(|frame| frame.to_vec());
        answered(Ok(Opaque::new(data.unwrap_or_default())))
    }
    fn forget(&self, objects: Vec<Object>, _: bool) -> Answer<()> {
        self.forgotten.lock().push(objects.len());
        answered(())
    }
    fn release(&self, _: Vec<Object>) {}
    fn closed(&self, _: String) {}
}

struct Scene {
    store: Store,
    memory: Arc<Memory>,
    python: Arc<Bytewise>,
    folder: tempfile::TempDir,
}

fn scene(target: u64, max_spill: Option<u64>) -> Scene {
    let python = Arc::new(Bytewise {
        permits: Arc::new(Semaphore::new(1)),
        unpacked: AtomicUsize::new(0),
        forgotten: Mutex::default(),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let settings = MemorySettings {
        thresholds: Thresholds {
            limit: Some(target),
            target: Some(target),
            ..Thresholds::default()
        },
        max_spill,
        compression: Compression::Lz4,
        ..MemorySettings::default()
    };
    let store = Store::default();
    let python_ = Arc::clone(&python) as _;
    let path = folder.path().to_string_lossy().into_owned();
    let memory = Memory::new(settings, store.clone(), python_, &path);
    tokio::spawn(Arc::clone(&memory).spill());
    Scene {
        store,
        memory,
        python,
        folder,
    }
}

fn key(name: &str) -> Key {
    Key::Str(name.into())
}

fn object(data: Vec<u8>) -> Object {
    Object {
        value: Opaque::new(data),
        typename: "bytes".into(),
        type_pickle: Bytes::from_static(b"type"),
    }
}

impl Scene {
    fn put(&self, name: &str, data: Vec<u8>, nbytes: u64) {
        let large = nbytes > self.memory.most_managed();
        self.store
            .insert(key(name), object(data), nbytes, false, large);
        self.memory.check();
    }

    /// Waits until all spilling is done.
    async fn settle(&self) {
        let settled = async {
            tokio::task::yield_now().await;
            self.memory.room().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.memory.room().await;
        };
        let settled = tokio::time::timeout(Duration::from_secs(10), settled).await;
        settled.expect("spilling ends");
    }

    fn on_disk(&self) -> Vec<String> {
        let mut names: Vec<_> = self.store.keys_on_disk().iter().map(Key::to_text).collect();
        names.sort();
        names
    }

    async fn value(&self, name: &str) -> Option<Vec<u8>> {
        let held = self.store.get(&key(name))?;
        let object = self.memory.load(&key(name), held).await.expect(name);
        object.value.get::<Vec<u8>>().cloned()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("storage")).map_or(0, Iterator::count)
    }

    async fn files_become(&self, count: usize) {
        for _ in 0..2500 {
            if self.files() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{} files, not {count}", self.files());
    }
}

#[tokio::test]
async fn the_least_recently_used_goes_first_and_comes_back() {
    let scene = scene(30, None);
    for name in ["a", "b", "c"] {
        scene.put(name, name.as_bytes().to_vec(), 10);
    }
    assert_eq!(scene.value("a").await, Some(b"a".to_vec()));
    scene.put("d", b"d".to_vec(), 10);
    scene.settle().await;
    assert_eq!(scene.on_disk(), ["b"]);
    let sizes = scene.store.sizes();
    assert_eq!((sizes.memory, sizes.spilled_memory), (30, 10));
    assert!(sizes.spilled_disk > 5);
    // Reading it makes room for it.
    assert_eq!(scene.value("b").await, Some(b"b".to_vec()));
    scene.settle().await;
    assert_eq!(scene.on_disk(), ["c"]);
    scene.files_become(1).await;
}

#[tokio::test]
async fn what_is_freed_leaves_no_file() {
    let scene = scene(10, None);
    scene.put("a", b"a".to_vec(), 10);
    scene.put("b", b"b".to_vec(), 10);
    scene.settle().await;
    assert_eq!(scene.on_disk(), ["a"]);
    let held = scene.store.get(&key("a")).expect("a");
    scene.store.remove(&key("a"));
    assert_eq!(scene.store.sizes().spilled_disk, 0);
    // Whoever has taken hold of it can still read it.
    assert_eq!(scene.files(), 1);
    let object = scene.memory.load(&key("a"), held).await.expect("a");
    assert_eq!(object.value.get::<Vec<u8>>(), Some(&b"a".to_vec()));
    assert!(!scene.store.contains(&key("a")));
    scene.files_become(0).await;
}

#[tokio::test]
async fn what_is_larger_than_everything_goes_alone_and_stays_on_disk() {
    let scene = scene(30, None);
    scene.put("small", b"s".to_vec(), 10);
    let large = vec![7; 200_000];
    scene.put("large", large.clone(), 31);
    scene.settle().await;
    assert_eq!(scene.on_disk(), ["large"]);
    assert!(scene.store.sizes().spilled_disk < 10_000, "compressed");
    assert_eq!(scene.value("large").await, Some(large));
    assert_eq!(scene.on_disk(), ["large"]);
}

#[tokio::test]
async fn a_value_is_there_while_it_is_written_and_may_be_replaced() {
    let scene = scene(10, None);
    let permit = Arc::clone(&scene.python.permits).acquire_owned().await;
    scene.put("a", b"old".to_vec(), 8);
    scene.put("b", b"b".to_vec(), 8);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(!scene.memory.has_room());
    assert!(matches!(scene.store.get(&key("a")), Some(Held::Here(_))));
    scene
        .store
        .insert(key("a"), object(b"new".to_vec()), 1, false, false);
    drop(permit);
    scene.settle().await;
    assert_eq!(scene.on_disk(), Vec::<String>::new());
    assert_eq!(scene.value("a").await, Some(b"new".to_vec()));
    scene.files_become(0).await;
}

#[tokio::test]
async fn what_can_not_be_written_stays() {
    let scene = scene(10, None);
    scene.put("unpicklable", Vec::new(), 10);
    scene.put("b", b"b".to_vec(), 10);
    scene.settle().await;
    // The next one goes instead, and nobody waits for ever.
    assert_eq!(scene.on_disk(), ["b"]);
    scene.put("c", b"c".to_vec(), 10);
    scene.settle().await;
    assert_eq!(scene.on_disk(), ["b", "c"]);
    assert_eq!(scene.value("unpicklable").await, Some(Vec::new()));
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let scene = scene(10, Some(100));
    let noise = |seed: u64| -> Vec<u8> {
        let number = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15 ^ seed) >> 33) as u8;
        (0..60).map(number).collect()
    };
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        scene.put(name, noise(n as u64), 10);
        scene.settle().await;
    }
    assert_eq!(scene.on_disk(), ["a"]);
    assert!(scene.store.sizes().spilled_disk <= 100);
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(scene.value(name).await, Some(noise(n as u64)), "{name}");
    }
}

#[tokio::test]
async fn a_folder_that_can_not_be_written_loses_nothing() {
    let scene = scene(10, None);
    std::fs::write(scene.folder.path().join("storage"), "a file").expect("written");
    scene.put("a", b"a".to_vec(), 10);
    scene.put("b", b"b".to_vec(), 10);
    scene.settle().await;
    assert_eq!(scene.on_disk(), Vec::<String>::new());
    assert!(scene.memory.has_room());
    assert_eq!(scene.value("a").await, Some(b"a".to_vec()));
    // It is tried again although nothing happens here.
    std::fs::remove_file(scene.folder.path().join("storage")).expect("removed");
    scene.files_become(1).await;
}

#[tokio::test]
async fn a_file_that_is_gone_is_an_error() {
    let scene = scene(10, None);
    scene.put("a", b"a".to_vec(), 10);
    scene.put("b", b"b".to_vec(), 10);
    scene.settle().await;
    std::fs::remove_dir_all(scene.folder.path().join("storage")).expect("removed");
    let held = scene.store.get(&key("a")).expect("a");
    let error = scene.memory.load(&key("a"), held).await;
    assert!(error.is_err_and(|e| e.to_string().contains("'a' can not be read")));
}

#[tokio::test]
async fn it_is_read_once_for_all_who_want_it() {
    let scene = scene(10, None);
    scene.put("a", b"a".to_vec(), 10);
    scene.put("b", b"b".to_vec(), 10);
    scene.settle().await;
    let held = scene.store.get(&key("a")).expect("a");
    let key = key("a");
    let (one, other) = tokio::join!(
        scene.memory.load(&key, held.clone()),
        scene.memory.load(&key, held)
    );
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(scene.python.unpacked.load(Ordering::Relaxed), 1);
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8, u64),
    Remove(u8),
    Get(u8),
    Settle,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..6u8, any::<u8>(), 0..20u64).prop_map(|(k, v, n)| Op::Put(k, v, n)),
        1 => (0..6u8).prop_map(Op::Remove),
        3 => (0..6u8).prop_map(Op::Get),
        1 => Just(Op::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever goes to disk and comes back in whatever order: the store is a map, and its sizes add up.
    #[test]
    fn the_store_is_a_map(ops in proptest::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let scene = scene(25, None);
            let mut model: HashMap<u8, (u8, u64)> = HashMap::new();
            for op in ops {
                match op {
                    Op::Put(k, v, n) => {
                        scene.put(&k.to_string(), vec![v; 3], n);
                        model.insert(k, (v, n));
                    }
                    Op::Remove(k) => {
                        scene.store.remove(&key(&k.to_string()));
                        model.remove(&k);
                    }
                    Op::Get(k) => {
                        let expected = model.get(&k).map(|(v, _)| vec![*v; 3]);
                        assert_eq!(scene.value(&k.to_string()).await, expected);
                    }
                    Op::Settle => scene.settle().await,
                }
            }
            scene.settle().await;
            let sizes = scene.store.sizes();
            assert_eq!(sizes.memory + sizes.spilled_memory, model.values().map(|(_, n)| n).sum::<u64>());
            assert!(sizes.memory <= 25);
            assert_eq!(sizes.spilled_count, scene.on_disk().len());
            for (k, (v, _)) in &model {
                assert_eq!(scene.value(&k.to_string()).await, Some(vec![*v; 3]));
            }
            scene.settle().await;
            scene.files_become(scene.on_disk().len()).await;
        });
    }
}
