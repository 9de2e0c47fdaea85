//! Tables that grow little by little: what a hash table or a list does to become larger takes tens of milliseconds
//! with a million members, and everybody would wait for it.
//!
//! [`Table`] is a hash table in parts (linear hashing): when it is full one part is split, so that no insertion moves
//! more than a part. [`Run`] is a double-ended queue in blocks.

use std::collections::VecDeque;

use hashbrown::HashTable;

/// Members of a part on average; one that is to be split next may have twice as many.
const PART: usize = 1500;

/// A hash table. Whoever uses it hashes, the same way each time; the upper half of a hash tells the part.
#[derive(Clone, Debug)]
pub(crate) struct Table<T> {
    parts: Vec<HashTable<T>>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Table<T> {
    /// An empty table with room for so many members.
    pub(crate) fn with_capacity(members: usize) -> Self {
        let parts = members.div_ceil(PART).max(1);
        let part = || HashTable::with_capacity(members / parts);
        Self {
            parts: std::iter::repeat_with(part).take(parts).collect(),
            len: 0,
        }
    }

    /// Makes room for many more members at once, if there are so few that this is soon done.
    pub(crate) fn expect(&mut self, members: usize, hash_of: impl Fn(&T) -> u64) {
        let few = 2 * PART;
        if self.len > few || members <= few {
            return;
        }
        let larger = Self::with_capacity(self.len + members);
        for member in std::mem::replace(self, larger).parts.into_iter().flatten() {
            self.insert_unique(hash_of(&member), member, &hash_of);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        let part = self.parts.get(part_of(hash, self.parts.len()))?;
        part.find(hash, is_it)
    }

    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let part = part_of(hash, self.parts.len());
        self.parts.get_mut(part)?.find_mut(hash, is_it)
    }

    /// Adds a member that is not in the table.
    pub(crate) fn insert_unique(&mut self, hash: u64, member: T, hash_of: impl Fn(&T) -> u64) {
        if self.len >= self.parts.len() * PART {
            self.split(&hash_of);
        }
        let part = part_of(hash, self.parts.len());
        if let Some(part) = self.parts.get_mut(part) {
            part.insert_unique(hash, member, hash_of);
            self.len += 1;
        }
    }

    pub(crate) fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let part = part_of(hash, self.parts.len());
        let entry = self.parts.get_mut(part)?.find_entry(hash, is_it).ok()?;
        let (member, _) = entry.remove();
        self.len -= 1;
        if self.len < self.parts.len().saturating_sub(2) * PART / 4 {
            self.merge(&hash_of);
        }
        Some(member)
    }

    /// Gives back what is not needed for the present members.
    pub(crate) fn shrink_to_fit(&mut self, hash_of: impl Fn(&T) -> u64) {
        for part in &mut self.parts {
            part.shrink_to_fit(&hash_of);
        }
    }

    /// Heap bytes held.
    pub(crate) fn allocation_size(&self) -> usize {
        let parts = self.parts.iter().map(HashTable::allocation_size);
        self.parts.capacity() * size_of::<HashTable<T>>() + parts.sum::<usize>()
    }

    /// Makes a part of members of another.
    fn split(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let new = self.parts.len();
        let Some(old) = self.parts.get_mut(other_half(new)) else {
            self.parts.push(HashTable::new());
            return;
        };
        let members = std::mem::take(old);
        let room = members.len() / 2;
        let (mut stay, mut go) = (
            HashTable::with_capacity(room),
            HashTable::with_capacity(room),
        );
        for member in members {
            let hash = hash_of(&member);
            let half = match part_of(hash, new + 1) == new {
                true => &mut go,
                false => &mut stay,
            };
            half.insert_unique(hash, member, hash_of);
        }
        *old = stay;
        self.parts.push(go);
    }

    /// Puts the last part back to where it came from.
    fn merge(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let Some(members) = self.parts.pop() else {
            return;
        };
        let back = other_half(self.parts.len());
        if let Some(part) = self.parts.get_mut(back) {
            part.reserve(members.len(), hash_of);
            for member in members {
                part.insert_unique(hash_of(&member), member, hash_of);
            }
        }
    }
}

/// The part that has a hash, of so many parts: as many bits of it as the largest part takes, one less if there is no
/// such part yet.
fn part_of(hash: u64, parts: usize) -> usize {
    let part = (hash >> 32) as usize & (parts.next_power_of_two() - 1);
    match part < parts {
        true => part,
        false => other_half(part),
    }
}

/// The part that shares all bits with this one but the highest; itself, if it has none.
fn other_half(part: usize) -> usize {
    match part.checked_ilog2() {
        Some(highest) => part & !(1 << highest),
        None => part,
    }
}

/// Members of a block.
const BLOCK: usize = 1024;

/// A double-ended queue.
#[derive(Debug)]
pub(crate) struct Run<T> {
    /// None of them empty.
    blocks: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Default for Run<T> {
    fn default() -> Self {
        Self {
            blocks: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> Run<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.blocks.front()?.front()
    }

    pub(crate) fn back(&self) -> Option<&T> {
        self.blocks.back()?.back()
    }

    pub(crate) fn push_back(&mut self, member: T) {
        self.len += 1;
        if let Some(last) = self.blocks.back_mut().filter(|block| block.len() < BLOCK) {
            last.push_back(member);
            return;
        }
        // The first block is often the only one.
        let room = match self.blocks.is_empty() {
            true => 0,
            false => BLOCK,
        };
        let mut block = VecDeque::with_capacity(room);
        block.push_back(member);
        self.blocks.push_back(block);
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let block = self.blocks.front_mut()?;
        let member = block.pop_front();
        if block.is_empty() {
            self.blocks.pop_front();
        }
        self.len -= usize::from(member.is_some());
        member
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for block in &mut self.blocks {
            block.retain(&mut keep);
        }
        self.blocks.retain(|block| !block.is_empty());
        self.len = self.blocks.iter().map(VecDeque::len).sum();
    }

    /// From front to back.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.blocks.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn hash_of(member: &u32) -> u64 {
        u64::from(*member).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn has(table: &Table<u32>, member: u32) -> bool {
        table.find(hash_of(&member), |&m| m == member) == Some(&member)
    }

    fn insert(table: &mut Table<u32>, member: u32) {
        table.insert_unique(hash_of(&member), member, hash_of);
    }

    fn remove(table: &mut Table<u32>, member: u32) -> Option<u32> {
        table.remove(hash_of(&member), |&m| m == member, hash_of)
    }

    #[test]
    fn a_table_grows_and_shrinks_part_by_part() {
        let mut table = Table::default();
        let many = 40 * PART as u32;
        for member in 0..many {
            let before = table.parts.len();
            insert(&mut table, member);
            assert!(table.parts.len() <= before + 1);
        }
        assert_eq!(table.len(), many as usize);
        let largest = table.parts.iter().map(HashTable::len).max();
        assert!(largest < Some(PART * 5 / 2), "{largest:?}");
        assert!((0..many).all(|member| has(&table, member)));
        assert!(!has(&table, many));
        for member in 0..many {
            let before = table.parts.len();
            assert_eq!(remove(&mut table, member), Some(member));
            assert!(table.parts.len() + 1 >= before);
            assert!(member % 999 != 0 || (member + 1..many).all(|left| has(&table, left)));
        }
        assert!(table.is_empty() && table.parts.len() <= 2);
        assert_eq!(remove(&mut table, 1), None);
    }

    #[test]
    fn a_table_that_expects_members_has_room_for_them_at_once() {
        let mut table = Table::default();
        (0..100).for_each(|member| insert(&mut table, member));
        table.expect(20 * PART, hash_of);
        let parts = table.parts.len();
        (100..19 * PART as u32).for_each(|member| insert(&mut table, member));
        assert_eq!(table.parts.len(), parts);
        assert_eq!(table.len(), 19 * PART);
        assert!((0..19 * PART as u32).all(|member| has(&table, member)));
        table.expect(100 * PART, hash_of);
        assert_eq!(table.parts.len(), parts, "too many to be moved");
    }

    #[test]
    fn a_table_with_room_does_not_grow_before_it_is_full() {
        let mut table = Table::with_capacity(10 * PART);
        let parts = table.parts.len();
        (0..9 * PART as u32).for_each(|member| insert(&mut table, member));
        assert_eq!(table.parts.len(), parts);
    }

    proptest! {
        #[test]
        fn a_table_is_a_set(changes in prop::collection::vec((any::<bool>(), 0u32..6000, 1u32..2000), 1..60)) {
            let mut table = Table::default();
            let mut set = BTreeSet::new();
            for (add, first, count) in changes {
                for member in first..first + count {
                    if add && set.insert(member) {
                        insert(&mut table, member);
                    } else if !add {
                        prop_assert_eq!(remove(&mut table, member).is_some(), set.remove(&member));
                    }
                }
                prop_assert_eq!(table.len(), set.len());
            }
            for member in 0..8000 {
                prop_assert_eq!(has(&table, member), set.contains(&member));
            }
        }

        #[test]
        fn a_run_is_a_queue(changes in prop::collection::vec((0u8..3, 0u32..3000), 1..40)) {
            let mut run = Run::default();
            let mut queue = VecDeque::new();
            for (what, count) in changes {
                match what {
                    0 => (0..count).for_each(|member| {
                        run.push_back(member);
                        queue.push_back(member);
                    }),
                    1 => (0..count).for_each(|_| assert_eq!(run.pop_front(), queue.pop_front())),
                    _ => {
                        run.retain(|member| member % 7 != count % 7);
                        queue.retain(|member| member % 7 != count % 7);
                    }
                }
                prop_assert_eq!(run.len(), queue.len());
                prop_assert_eq!((run.front(), run.back()), (queue.front(), queue.back()));
                prop_assert!(run.iter().eq(&queue));
            }
        }
    }
}
