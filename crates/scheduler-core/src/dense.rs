//! Maps from ids that lie close together, as those of the tasks of one graph do: an array in blocks. It takes a third of
//! what a hash table does, and no hashing; at worst one block for each member.

use std::collections::VecDeque;

use crate::sets::{Id, Positions};

/// Members of a block: as much as a processor fetches at once.
const BLOCK: usize = 16;
const NOTHING: u32 = u32::MAX;

/// A map from ids to numbers below `u32::MAX`.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdArray {
    /// From the lowest that was needed to the highest: a few tasks of a graph with many before it take little.
    blocks: VecDeque<Option<Box<[u32; BLOCK]>>>,
    /// Number of the first of them.
    first: usize,
    len: usize,
}

fn place(id: impl Id) -> (usize, usize) {
    let id = id.raw() as usize;
    (id / BLOCK, id % BLOCK)
}

impl IdArray {
    fn slot_mut(&mut self, id: impl Id) -> Option<&mut u32> {
        let (block, at) = place(id);
        let block = self.blocks.get_mut(block.checked_sub(self.first)?)?;
        block.as_mut()?.get_mut(at)
    }

    /// The block with this number, which is made if it is not there.
    fn block_mut(&mut self, number: usize) -> Option<&mut [u32; BLOCK]> {
        if self.blocks.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.blocks.push_front(None);
            self.first -= 1;
        }
        let index = number - self.first;
        if self.blocks.len() <= index {
            self.blocks.resize(index + 1, None);
        }
        let block = self.blocks.get_mut(index)?;
        Some(block.get_or_insert_with(|| Box::new([NOTHING; BLOCK])))
    }
}

impl Positions for IdArray {
    fn with_capacity(_: usize) -> Self {
        Self::default()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, id: impl Id) -> Option<u32> {
        let (block, at) = place(id);
        let block = self.blocks.get(block.checked_sub(self.first)?)?;
        let value = block.as_ref()?.get(at)?;
        (*value != NOTHING).then_some(*value)
    }

    fn insert(&mut self, id: impl Id, value: u32) -> bool {
        debug_assert!(value != NOTHING, "means that there is none");
        let (block, at) = place(id);
        match self.block_mut(block).and_then(|block| block.get_mut(at)) {
            Some(slot) if *slot == NOTHING => {
                *slot = value;
                self.len += 1;
                true
            }
            _ => false,
        }
    }

    fn set(&mut self, id: impl Id, value: u32) {
        if let Some(slot) = self.slot_mut(id).filter(|slot| **slot != NOTHING) {
            *slot = value;
        }
    }

    fn remove(&mut self, id: impl Id) -> Option<u32> {
        let removed = std::mem::replace(self.slot_mut(id)?, NOTHING);
        if removed == NOTHING {
            return None;
        }
        self.len -= 1;
        let (block, _) = place(id);
        if let Some(block) = self.blocks.get_mut(block.saturating_sub(self.first))
            && block
                .as_deref()
                .is_some_and(|block| *block == [NOTHING; BLOCK])
        {
            *block = None;
        }
        if self.len == 0 {
            self.blocks = VecDeque::new();
        }
        Some(removed)
    }

    fn expect(&mut self, _: usize) {}

    fn shrink_to_fit(&mut self) {}

    fn allocation_size(&self) -> usize {
        let blocks = self.blocks.iter().flatten().count();
        self.blocks.capacity() * size_of::<usize>() + blocks * BLOCK * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::TaskId;

    #[test]
    fn what_is_empty_takes_nothing() {
        let mut array = IdArray::default();
        for id in 0..100 {
            assert!(array.insert(TaskId(id), id) && !array.insert(TaskId(id), 7));
        }
        assert!(array.allocation_size() < 100 * 8);
        for id in 0..100 {
            assert_eq!(array.remove(TaskId(id)), Some(id));
            assert_eq!(array.remove(TaskId(id)), None);
        }
        assert_eq!((array.len(), array.allocation_size()), (0, 0));
    }

    #[test]
    fn a_few_ids_far_from_the_first_take_little() {
        let mut array = IdArray::default();
        for id in [5_000_000, 5_000_040, 4_999_990] {
            assert!(array.insert(TaskId(id), id));
        }
        assert!(array.allocation_size() < 1000);
        assert_eq!(array.get(TaskId(4_999_990)), Some(4_999_990));
        assert_eq!(
            (array.get(TaskId(0)), array.remove(TaskId(1))),
            (None, None)
        );
    }

    proptest! {
        #[test]
        fn it_is_a_map(changes in prop::collection::vec((0u8..3, 0u32..100, any::<u16>()), 0..300)) {
            let mut array = IdArray::default();
            let mut map = BTreeMap::new();
            for (change, id, value) in changes {
                let value = u32::from(value);
                match change {
                    0 => {
                        let is_new = !map.contains_key(&id);
                        map.entry(id).or_insert(value);
                        prop_assert_eq!(array.insert(TaskId(id), value), is_new);
                    }
                    1 => {
                        map.entry(id).and_modify(|old| *old = value);
                        array.set(TaskId(id), value);
                    }
                    _ => prop_assert_eq!(array.remove(TaskId(id)), map.remove(&id)),
                }
                prop_assert_eq!(array.len(), map.len());
                prop_assert!((0..100).all(|id| array.get(TaskId(id)) == map.get(&id).copied()));
            }
        }
    }
}
