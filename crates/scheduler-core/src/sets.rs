//! Sets and maps of small ids, with an order that does not depend on hashing.
//!
//! A task has six relations, and most of them have none to three members: [`IdSet`] holds those in
//! 16 bytes without an allocation. [`OrderedIdSet`] is for the large ones.

use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;

use hashbrown::HashMap;

use crate::ids::{ClientId, TaskId, WorkerId};
use crate::tables::Table;

/// A newtype of `u32`.
pub(crate) trait Id: Copy + Eq + std::fmt::Debug {
    fn raw(self) -> u32;
    fn from_raw(raw: u32) -> Self;
}

macro_rules! impl_id {
    ($($t:ty),*) => {$(
        impl Id for $t {
            fn raw(self) -> u32 {
                self.0
            }
            fn from_raw(raw: u32) -> Self {
                Self(raw)
            }
        }
    )*};
}
impl_id!(TaskId, WorkerId, ClientId, crate::state::GroupId);

/// An id or none, in as much as an id takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MaybeId<T>(u32, PhantomData<T>);

impl<T: Id> MaybeId<T> {
    pub(crate) fn get(self) -> Option<T> {
        (self.0 != HOLE).then(|| T::from_raw(self.0))
    }

    /// Leaves none.
    pub(crate) fn take(&mut self) -> Option<T> {
        std::mem::take(self).get()
    }
}

impl<T> Default for MaybeId<T> {
    fn default() -> Self {
        Self(HOLE, PhantomData)
    }
}

impl<T: Id> From<Option<T>> for MaybeId<T> {
    fn from(id: Option<T>) -> Self {
        Self(id.map_or(HOLE, Id::raw), PhantomData)
    }
}

/// Hash of an id: one multiplication. Ids are ours, so nobody can choose colliding ones.
#[derive(Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u32(u32::from(b));
        }
    }
    fn write_u32(&mut self, i: u32) {
        let h = (self.0 ^ u64::from(i)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = h ^ (h >> 32);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map from ids to numbers, each of which is below `u32::MAX`.
pub(crate) trait Positions: Clone + std::fmt::Debug + Default {
    /// An empty map with room for so many members.
    fn with_capacity(members: usize) -> Self;

    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, id: impl Id) -> Option<u32>;

    /// `false` if the id was there, whose value stays.
    fn insert(&mut self, id: impl Id, value: u32) -> bool;

    /// Gives an id that is there another value.
    fn set(&mut self, id: impl Id, value: u32);

    fn remove(&mut self, id: impl Id) -> Option<u32>;

    /// Makes room for many more members at once, if there are few yet.
    fn expect(&mut self, members: usize);

    /// Gives back what is not needed for the present members.
    fn shrink_to_fit(&mut self);

    /// Heap bytes held.
    fn allocation_size(&self) -> usize;
}

/// A map from ids that may become large: it grows little by little, see [`Table`].
#[derive(Clone, Debug, Default)]
pub(crate) struct IdTable(Table<(u32, u32)>);

impl IdTable {
    /// More than one multiplication: it would fill all parts evenly, and these would then all be full at the same
    /// moment.
    fn hash(id: u32) -> u64 {
        let mixed = u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    fn hash_of(member: &(u32, u32)) -> u64 {
        Self::hash(member.0)
    }
}

impl Positions for IdTable {
    fn with_capacity(members: usize) -> Self {
        Self(Table::with_capacity(members))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, id: impl Id) -> Option<u32> {
        let id = id.raw();
        let found = self.0.find(Self::hash(id), |member| member.0 == id);
        found.map(|member| member.1)
    }

    fn insert(&mut self, id: impl Id, value: u32) -> bool {
        if self.get(id).is_some() {
            return false;
        }
        let (hash, member) = (Self::hash(id.raw()), (id.raw(), value));
        self.0.insert_unique(hash, member, Self::hash_of);
        true
    }

    fn set(&mut self, id: impl Id, value: u32) {
        let id = id.raw();
        if let Some(member) = self.0.find_mut(Self::hash(id), |member| member.0 == id) {
            member.1 = value;
        }
    }

    fn remove(&mut self, id: impl Id) -> Option<u32> {
        let id = id.raw();
        let is_it = |member: &(u32, u32)| member.0 == id;
        let removed = self.0.remove(Self::hash(id), is_it, Self::hash_of);
        removed.map(|member| member.1)
    }

    fn expect(&mut self, members: usize) {
        self.0.expect(members, Self::hash_of);
    }

    fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit(Self::hash_of);
    }

    fn allocation_size(&self) -> usize {
        self.0.allocation_size()
    }
}

/// Hash map from ids. Must not be iterated where the order can be seen.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

const HOLE: u32 = u32::MAX;

/// A set in insertion order with constant-time insertion and removal: a list with holes and the
/// position of each member. Costs about 20 bytes per member, or 10 with an [`crate::dense::IdArray`].
#[derive(Clone, Debug)]
pub(crate) struct OrderedIdSet<T, P = IdTable> {
    slots: Vec<u32>,
    positions: P,
    first: usize,
    marker: PhantomData<T>,
}

impl<T, P: Positions> Default for OrderedIdSet<T, P> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            positions: P::default(),
            first: 0,
            marker: PhantomData,
        }
    }
}

impl<T: Id, P: Positions> OrderedIdSet<T, P> {
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    pub(crate) fn contains(&self, id: T) -> bool {
        self.positions.get(id).is_some()
    }

    /// Makes room for many more members at once, if there are few yet.
    pub(crate) fn expect(&mut self, members: usize) {
        self.positions.expect(members);
    }

    /// Adds `id` at the end; `false` if it was there.
    pub(crate) fn insert(&mut self, id: T) -> bool {
        let position = u32::try_from(self.slots.len()).unwrap_or(HOLE);
        if self.positions.insert(id, position) {
            self.slots.push(id.raw());
            true
        } else {
            false
        }
    }

    /// Removes `id`; `false` if it was not there.
    pub(crate) fn remove(&mut self, id: T) -> bool {
        let Some(position) = self.positions.remove(id) else {
            return false;
        };
        if let Some(slot) = self.slots.get_mut(position as usize) {
            *slot = HOLE;
        }
        if self.positions.is_empty() {
            self.slots.clear();
            self.first = 0;
        } else if self.slots.len() > 2 * self.positions.len() + 16 {
            self.compact();
        }
        true
    }

    fn compact(&mut self) {
        self.slots.retain(|&s| s != HOLE);
        self.first = 0;
        for (i, &s) in self.slots.iter().enumerate() {
            self.positions.set(T::from_raw(s), i as u32);
        }
        if self.slots.capacity() > 4 * self.slots.len() + 64 {
            self.slots.shrink_to_fit();
            self.positions.shrink_to_fit();
        }
    }

    /// Members, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.slots
            .iter()
            .filter(|&&s| s != HOLE)
            .map(|&s| T::from_raw(s))
    }
}

const INLINE: usize = 3;
const LIST: usize = 32;

#[derive(Clone, Debug)]
#[expect(clippy::box_collection, reason = "keeps the whole at 16 bytes")]
enum Repr<T> {
    Inline(u8, [u32; INLINE]),
    List(Box<Vec<u32>>),
    Large(Box<OrderedIdSet<T>>),
}

/// A set in insertion order, 16 bytes while it has at most three members.
#[derive(Clone, Debug)]
pub(crate) struct IdSet<T>(Repr<T>);

impl<T> Default for IdSet<T> {
    fn default() -> Self {
        Self(Repr::Inline(0, [0; INLINE]))
    }
}

impl<T: Id> IdSet<T> {
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Repr::Inline(n, _) => usize::from(*n),
            Repr::List(v) => v.len(),
            Repr::Large(s) => s.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An empty set that does not grow before it has so many members.
    pub(crate) fn with_room(members: usize) -> Self {
        if members <= LIST {
            return Self::default();
        }
        Self(Repr::Large(Box::new(OrderedIdSet {
            slots: Vec::with_capacity(members),
            positions: IdTable::with_capacity(members),
            ..OrderedIdSet::default()
        })))
    }

    fn small(&self) -> &[u32] {
        match &self.0 {
            Repr::Inline(n, ids) => ids.get(..usize::from(*n)).unwrap_or_default(),
            Repr::List(v) => v,
            Repr::Large(_) => &[],
        }
    }

    pub(crate) fn contains(&self, id: T) -> bool {
        match &self.0 {
            Repr::Large(s) => s.contains(id),
            _ => self.small().contains(&id.raw()),
        }
    }

    /// Adds `id` at the end; `false` if it was there.
    pub(crate) fn insert(&mut self, id: T) -> bool {
        if let Repr::Large(s) = &mut self.0 {
            return s.insert(id);
        }
        if self.small().contains(&id.raw()) {
            return false;
        }
        match &mut self.0 {
            Repr::Inline(n, ids) => {
                if let Some(slot) = ids.get_mut(usize::from(*n)) {
                    *slot = id.raw();
                    *n += 1;
                } else {
                    let mut list = Vec::with_capacity(2 * INLINE);
                    list.extend_from_slice(ids);
                    list.push(id.raw());
                    self.0 = Repr::List(Box::new(list));
                }
            }
            Repr::List(v) if v.len() < LIST => v.push(id.raw()),
            Repr::List(v) => {
                let mut set = OrderedIdSet::default();
                for &raw in v.iter() {
                    set.insert(T::from_raw(raw));
                }
                set.insert(id);
                self.0 = Repr::Large(Box::new(set));
            }
            Repr::Large(_) => {}
        }
        true
    }

    /// Removes `id`; `false` if it was not there.
    pub(crate) fn remove(&mut self, id: T) -> bool {
        let removed = match &mut self.0 {
            Repr::Inline(n, ids) => {
                let len = usize::from(*n);
                let Some(at) = ids.iter().take(len).position(|&r| r == id.raw()) else {
                    return false;
                };
                ids.copy_within(at + 1..len, at);
                *n -= 1;
                return true;
            }
            Repr::List(v) => match v.iter().position(|&r| r == id.raw()) {
                Some(at) => {
                    v.remove(at);
                    true
                }
                None => false,
            },
            Repr::Large(s) => s.remove(id),
        };
        if removed && self.is_empty() {
            *self = Self::default();
        }
        removed
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The oldest member.
    pub(crate) fn first(&self) -> Option<T> {
        self.iter().next()
    }

    /// Members, oldest first.
    pub(crate) fn iter(&self) -> IdSetIter<'_, T> {
        let slots = match &self.0 {
            Repr::Large(s) => s.slots.as_slice(),
            _ => self.small(),
        };
        IdSetIter {
            slots: slots.iter(),
            marker: PhantomData,
        }
    }

    /// Whether both have the same members.
    pub(crate) fn same_members(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|id| other.contains(id))
    }

    /// Heap bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Inline(..) => 0,
            Repr::List(v) => size_of::<Vec<u32>>() + v.capacity() * 4,
            Repr::Large(s) => {
                size_of::<OrderedIdSet<T>>()
                    + s.slots.capacity() * 4
                    + s.positions.allocation_size()
            }
        }
    }
}

impl<T: Id> FromIterator<T> for IdSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        let iter = iter.into_iter();
        let mut set = Self::with_room(iter.size_hint().0);
        for id in iter {
            set.insert(id);
        }
        set
    }
}

/// Iterator over an [`IdSet`].
pub(crate) struct IdSetIter<'a, T> {
    slots: std::slice::Iter<'a, u32>,
    marker: PhantomData<T>,
}

impl<T: Id> Iterator for IdSetIter<'_, T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.slots.find(|&&s| s != HOLE).map(|&s| T::from_raw(s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_costs_sixteen_bytes() {
        assert_eq!(size_of::<IdSet<TaskId>>(), 16);
    }

    #[test]
    fn behaves_like_a_set_in_insertion_order_at_every_size() {
        for n in [0u32, 1, 3, 4, 31, 32, 33, 200] {
            let mut set: IdSet<TaskId> = (0..n).map(TaskId).collect();
            assert_eq!(set.len(), n as usize);
            assert!(set.iter().eq((0..n).map(TaskId)), "order at {n}");
            for i in 0..n {
                assert!(!set.insert(TaskId(i)), "{i} twice");
            }
            for i in (0..n).step_by(2) {
                assert!(set.remove(TaskId(i)));
                assert!(!set.remove(TaskId(i)));
            }
            assert!(set.iter().eq((0..n).filter(|i| i % 2 == 1).map(TaskId)));
            assert!(set.iter().all(|id| set.contains(id)));
            for i in (1..n).step_by(2) {
                assert!(set.remove(TaskId(i)));
            }
            assert!(set.is_empty());
            assert!(set.insert(TaskId(7)));
            assert_eq!(set.first(), Some(TaskId(7)));
        }
    }

    #[test]
    fn a_set_with_room_is_like_any_other() {
        for room in [0, 1, 32, 33, 1000] {
            let mut set = IdSet::<TaskId>::with_room(room);
            assert!(set.is_empty() && set.first().is_none(), "room for {room}");
            assert!(set.insert(TaskId(5)) && set.insert(TaskId(1)) && !set.insert(TaskId(5)));
            assert!(set.iter().eq([TaskId(5), TaskId(1)]));
            assert!(set.remove(TaskId(5)) && set.remove(TaskId(1)) && !set.remove(TaskId(1)));
            assert_eq!(
                set.heap_bytes(),
                0,
                "nothing is kept when it is empty again"
            );
        }
    }

    #[test]
    fn large_sets_compact_and_keep_order() {
        let mut set = OrderedIdSet::<TaskId>::default();
        for i in 0..1000 {
            set.insert(TaskId(i));
        }
        for i in 0..990 {
            set.remove(TaskId(i));
        }
        assert!(set.slots.len() <= 2 * set.len() + 16);
        assert!(set.iter().eq((990..1000).map(TaskId)));
        set.insert(TaskId(1));
        assert_eq!(set.iter().last(), Some(TaskId(1)));
    }
}
