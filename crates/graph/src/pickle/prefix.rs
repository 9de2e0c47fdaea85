//! Finding what [`super::emit::Prefix`] has put in front of a pickle again: the part that many pickles
//! have in common, that leaves objects in the memo and nothing on the stack.
//!
//! Only the opcodes are looked at, in one pass without allocating. What is not understood has no prefix.

use super::opcodes as op;
use super::scan::Scan;

/// A pickle's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common {
    /// Its length in bytes.
    pub length: usize,
    /// How many objects it leaves in the memo.
    pub slots: u32,
}

/// The longest prefix of a pickle after which nothing is on the stack; none if there is none, or if
/// pickles with it can not be told apart from others (explicit slots, frames, buffers).
pub fn common_prefix(pickle: &[u8]) -> Option<Common> {
    let mut found = None;
    let mut depth = 0_u32;
    let mut slots = 0_u32;
    let mut marks = Marks::default();
    let mut scan = Scan::new(pickle);
    while let Some(step) = scan.next()? {
        match step.opcode {
            op::MEMOIZE => slots = slots.checked_add(1)?,
            op::MARK => marks.push(depth)?,
            op::TUPLE | op::LIST | op::DICT | op::FROZENSET => depth = marks.pop()? + 1,
            op::APPENDS | op::ADDITEMS | op::SETITEMS | op::POP_MARK => depth = marks.pop()?,
            other => depth = depth.checked_add_signed(effect(other)?)?,
        }
        if depth == 0 && step.opcode == op::POP && marks.is_empty() {
            let length = scan.at();
            found = Some(Common { length, slots });
        }
    }
    found
}

/// Calls `each` with the slots of the prefix that the rest of a pickle refers to. False if that can not
/// be told.
pub fn references(body: &[u8], slots: u32, mut each: impl FnMut(u32) -> bool) -> bool {
    let mut scan = Scan::new(body);
    loop {
        let step = match scan.next() {
            Some(Some(step)) => step,
            Some(None) => return true,
            None => return false,
        };
        let slot = match (step.opcode, step.argument) {
            (op::BINGET, [slot]) => u32::from(*slot),
            (op::LONG_BINGET, &[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
            _ => continue,
        };
        if slot < slots && !each(slot) {
            return false;
        }
    }
}

/// Depths at which marks lie.
#[derive(Default)]
struct Marks {
    depths: [u32; 32],
    count: usize,
}

impl Marks {
    /// Nothing if there are too many.
    fn push(&mut self, depth: u32) -> Option<()> {
        *self.depths.get_mut(self.count)? = depth;
        self.count += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<u32> {
        self.count = self.count.checked_sub(1)?;
        self.depths.get(self.count).copied()
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// By how much an opcode without a mark changes the depth of the stack; nothing if it is not among those
/// that today's picklers write.
fn effect(opcode: u8) -> Option<i32> {
    Some(match opcode {
        op::PROTO | op::STOP | op::TUPLE1 => 0,
        op::NONE
        | op::NEWTRUE
        | op::NEWFALSE
        | op::BININT
        | op::BININT1
        | op::BININT2
        | op::LONG1
        | op::LONG4
        | op::BINFLOAT
        | op::SHORT_BINUNICODE
        | op::BINUNICODE
        | op::BINUNICODE8
        | op::SHORT_BINBYTES
        | op::BINBYTES
        | op::BINBYTES8
        | op::BYTEARRAY8
        | op::EMPTY_TUPLE
        | op::EMPTY_LIST
        | op::EMPTY_DICT
        | op::EMPTY_SET
        | op::BINGET
        | op::LONG_BINGET
        | op::GLOBAL
        | op::DUP => 1,
        op::POP
        | op::TUPLE2
        | op::REDUCE
        | op::NEWOBJ
        | op::BUILD
        | op::APPEND
        | op::STACK_GLOBAL => -1,
        op::TUPLE3 | op::NEWOBJ_EX | op::SETITEM => -2,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(f, n)` with `f` in front: `operator.neg`, memoised and popped.
    const WITH: &[u8] =
        b"\x80\x05\x8c\x08operator\x94\x8c\x03neg\x94\x93\x940(h\x02K\x07\x8c\x010\x94t.";

    #[test]
    fn the_prefix_ends_where_the_stack_is_empty() {
        let common = common_prefix(WITH).expect("a prefix");
        assert_eq!(common.slots, 3);
        assert_eq!(&WITH[..common.length], &WITH[..22]);
        let mut seen = Vec::new();
        assert!(references(&WITH[common.length..], 3, |slot| {
            seen.push(slot);
            true
        }));
        // The "0" that is a string is none of the opcode, and slots behind the prefix do not count.
        assert_eq!(seen, [2]);
        assert!(!references(&WITH[common.length..], 3, |_| false));
    }

    #[test]
    fn a_pickle_without_one_has_none() {
        assert_eq!(common_prefix(b"\x80\x05K\x01."), None);
        assert_eq!(common_prefix(b""), None);
        // A frame, an explicit slot, bytes that are cut off, a mark without an end.
        for odd in [
            &b"\x80\x05\x95\x04\0\0\0\0\0\0\0N0N."[..],
            b"\x80\x05Nq\x000N.",
            b"\x80\x05N0\x8c\xffab",
            b"\x80\x05(tt",
        ] {
            assert_eq!(common_prefix(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn what_the_emitter_writes_is_found_again() {
        use crate::pickle::emit::Emitter;
        use crate::pickle::walker::{Limits, walk};
        let pickle = bytes::Bytes::from_static(
            b"\x80\x05(\x8c\x08operator\x94\x8c\x03neg\x94\x93\x94h\x02K\x07\x8c\x010\x94t.",
        );
        let (arena, root) = walk(pickle, Vec::new(), Limits::default()).expect("walked");
        let shared = arena.tuple(root).expect("a tuple")[0];
        let mut emitter = Emitter::new(Limits::default());
        let prefix = emitter.prefix(&arena, &[shared]).expect("a prefix");
        let slot = u8::try_from(prefix.slot(shared).expect("a slot")).expect("a small one");
        let written = [&prefix.bytes[..], &[op::BINGET, slot, op::STOP]].concat();
        let common = common_prefix(&written).expect("found");
        assert_eq!(common.length, prefix.bytes.len());
        assert!(u32::from(slot) < common.slots);
    }
}
