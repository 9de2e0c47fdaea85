//! Anonymous memory of the system's. The only unsafe code of this crate: with memory that the allocator
//! gives, every large transfer begins by clearing all of it again, which costs more than the copying.

use std::ptr::{self, NonNull};
use std::sync::Arc;

/// Memory that nobody else has: whole pages, zeros at first.
#[derive(Debug)]
pub(super) struct Mapping(Arc<Pages>);

/// The pages of a mapping, for those who do not look at what is in them.
#[derive(Debug)]
pub(super) struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: nothing about memory belongs to a thread, and its bytes are reached through `Mapping` alone,
// which there is one of.
unsafe impl Send for Pages {}
// SAFETY: what can be done through a shared reference, `populate`, changes no byte.
unsafe impl Sync for Pages {}

/// Bytes of a page, or a multiple of them.
pub(super) const PAGE: usize = 64 << 10;

impl Mapping {
    /// At least so many bytes, of which none takes up memory before it is used. Nothing if the system has
    /// no more addresses, or counts them.
    pub(super) fn new(length: usize) -> Option<Self> {
        let length = length.max(1).checked_next_multiple_of(PAGE)?;
        // SAFETY: an anonymous mapping at an address that the system chooses touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        let start = NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED)?;
        Some(Self(Arc::new(Pages { start, length })))
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.0.length
    }

    /// For [`Pages::populate`], as long as that takes.
    pub(super) fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.0)
    }

    /// The memory.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: it is mapped as long as the pages exist, readable, and every byte has a value.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.length) }
    }

    /// The memory, to be written.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and writable; `self`, the only way to the bytes, is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.length) }
    }

    /// The first `length` bytes, rounded up to pages, and what is behind them. All of it is the first if
    /// it is being populated.
    pub(super) fn split(mut self, length: usize) -> (Self, Option<Self>) {
        let head = length.max(1).next_multiple_of(PAGE);
        let rest = self.len().saturating_sub(head);
        let Some(pages) = Arc::get_mut(&mut self.0).filter(|_| rest > 0) else {
            return (self, None);
        };
        // SAFETY: `head` is less than the length, so this is inside of the mapping.
        let start = unsafe { pages.start.add(head) };
        pages.length = head;
        let tail = Pages {
            start,
            length: rest,
        };
        (self, Some(Self(Arc::new(tail))))
    }

    /// The same memory with new one behind it, perhaps at another address. Unchanged if the system has no
    /// more addresses, or it is being populated.
    pub(super) fn grown(mut self, length: usize) -> Self {
        let Some(length) = length.checked_next_multiple_of(PAGE) else {
            return self;
        };
        let Some(pages) = Arc::get_mut(&mut self.0).filter(|pages| pages.length < length) else {
            return self;
        };
        // SAFETY: the pages are ours alone and nobody looks at them, since `self` is here by value, so
        // they may move. All of them are one mapping of the system's: made by one `mmap`, perhaps cut.
        let start = unsafe {
            libc::mremap(
                pages.start.as_ptr().cast(),
                pages.length,
                length,
                libc::MREMAP_MAYMOVE,
            )
        };
        if start != libc::MAP_FAILED
            && let Some(start) = NonNull::new(start.cast::<u8>())
        {
            // Not as a whole: the old value would be dropped, and what is at its address unmapped.
            (pages.start, pages.length) = (start, length);
        }
        self
    }
}

impl Pages {
    /// Makes the system provide the pages of these bytes now, while they or others may be written to.
    /// Returns whether it can do that (Linux 5.14).
    pub(super) fn populate(&self, from: usize, to: usize) -> bool {
        let from = from / PAGE * PAGE;
        let to = to.min(self.length);
        if from >= to {
            return true;
        }
        // SAFETY: the range is inside of the mapping, which `self` keeps; the advice changes no byte.
        let done = unsafe {
            let start = self.start.as_ptr().add(from);
            libc::madvise(start.cast(), to - from, libc::MADV_POPULATE_WRITE)
        };
        done == 0
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the memory is ours, and nobody has a reference to it any more.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(pages: usize) -> Mapping {
        let mut mapping = Mapping::new(pages * PAGE).expect("memory");
        for (n, page) in mapping.bytes_mut().chunks_mut(PAGE).enumerate() {
            page.fill(n as u8 + 1);
        }
        mapping
    }

    fn marks(mapping: &Mapping) -> Vec<u8> {
        mapping.bytes().chunks(PAGE).map(|page| page[7]).collect()
    }

    #[test]
    fn memory_is_zero_at_first_and_whole_pages() {
        let mapping = Mapping::new(PAGE + 1).expect("memory");
        assert_eq!((mapping.len(), marks(&mapping)), (2 * PAGE, vec![0, 0]));
        assert!(Mapping::new(usize::MAX).is_none());
        assert!(Mapping::new(usize::MAX / 2).is_none());
    }

    #[test]
    fn cut_memory_keeps_its_bytes_and_each_part_goes_by_itself() {
        let (head, tail) = marked(3).split(PAGE + 1);
        let tail = tail.expect("one page is left");
        assert_eq!((marks(&head), marks(&tail)), (vec![1, 2], vec![3]));
        drop(head);
        assert_eq!(marks(&tail), [3]);
        let (tail, none) = tail.split(PAGE);
        assert!(none.is_none());
        assert_eq!(marks(&tail), [3]);
    }

    #[test]
    fn grown_memory_keeps_its_bytes_also_after_a_cut() {
        let (head, tail) = marked(4).split(2 * PAGE);
        let head = head.grown(3 * PAGE);
        assert_eq!(marks(&head), [1, 2, 0]);
        let tail = tail.expect("two pages are left").grown(3 * PAGE);
        assert_eq!(marks(&tail), [3, 4, 0]);
        assert_eq!(tail.grown(PAGE).len(), 3 * PAGE, "it never shrinks");
    }

    #[test]
    fn memory_that_grows_where_it_is_keeps_its_bytes() {
        let (head, tail) = marked(8).split(2 * PAGE);
        // Leaves room behind it.
        drop(tail);
        assert_eq!(marks(&head.grown(4 * PAGE)), [1, 2, 0, 0]);
    }

    #[test]
    fn pages_can_be_made_present_while_others_are_written() {
        let mapping = marked(4);
        let pages = mapping.pages();
        pages.populate(0, 2 * PAGE);
        pages.populate(3 * PAGE + 5, usize::MAX);
        pages.populate(9 * PAGE, 10 * PAGE);
        assert_eq!(marks(&mapping), [1, 2, 3, 4]);
        // Meanwhile they stay as and where they are.
        let (mapping, none) = mapping.split(PAGE);
        let mapping = mapping.grown(9 * PAGE);
        assert!(none.is_none() && mapping.len() == 4 * PAGE);
        drop(pages);
        assert_eq!(mapping.grown(9 * PAGE).len(), 9 * PAGE);
    }
}
