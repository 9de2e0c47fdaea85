//! The tables of the state. They keep themselves consistent; what follows from a change is the business
//! of `transitions` and `dispatch`.

mod peers;
mod queue;
mod resources;
mod serving;
mod slots;
mod tasks;
mod transfers;

pub(crate) use peers::{Busy, PeerTable};
pub(crate) use queue::RunQueue;
pub(crate) use resources::{Needs, Resources};
pub(crate) use serving::Serving;
pub(crate) use slots::{Attempt, Slots};
pub(crate) use tasks::{Priority, Task, TaskTable};
pub(crate) use transfers::{Transfer, Transfers};

use std::hash::{BuildHasherDefault, Hasher};

use indexmap::{IndexMap, IndexSet};

use crate::ids::TaskId;

/// Hash of an id: one multiplication. Ids are ours, so nobody can choose colliding ones.
#[derive(Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }
    fn write_u32(&mut self, i: u32) {
        self.write_u64(u64::from(i));
    }
    fn write_u64(&mut self, i: u64) {
        let h = (self.0 ^ i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = h ^ (h >> 32);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

type IdBuild = BuildHasherDefault<IdHasher>;

/// Tasks in an order that depends on nothing but what was done to the set.
pub(crate) type TaskSet = IndexSet<TaskId, IdBuild>;
/// The same with values, by any of our ids.
pub(crate) type IdMap<K, V> = IndexMap<K, V, IdBuild>;
