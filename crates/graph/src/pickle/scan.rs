//! Looking at the opcodes of a pickle one after the other, without allocating.

use super::opcodes as op;

/// An opcode with what belongs to it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// One of [`super::opcodes`].
    pub opcode: u8,
    /// Its bytes: of texts and numbers without their lengths; empty for `GLOBAL`.
    pub argument: &'a [u8],
}

/// One opcode after the other.
#[derive(Debug)]
pub struct Scan<'a> {
    pickle: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// From the beginning, which need not be that of a pickle.
    pub fn new(pickle: &'a [u8]) -> Self {
        Self { pickle, at: 0 }
    }

    /// Where the next opcode is.
    pub fn at(&self) -> usize {
        self.at
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.pickle.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// Bytes with their length in front.
    fn sized(&mut self, width: usize) -> Option<&'a [u8]> {
        let mut length = [0; 8];
        length.get_mut(..width)?.copy_from_slice(self.take(width)?);
        self.take(usize::try_from(u64::from_le_bytes(length)).ok()?)
    }

    fn line(&mut self) -> Option<()> {
        let rest = self.pickle.get(self.at..)?;
        self.at += rest.iter().position(|&byte| byte == b'\n')? + 1;
        Some(())
    }

    /// The next opcode; an inner nothing at the end, an outer one where it can not go on. Opcodes that
    /// today's picklers do not write come without their arguments, so who does not know one stops there.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator's end is another"
    )]
    pub fn next(&mut self) -> Option<Option<Step<'a>>> {
        let Some(&opcode) = self.pickle.get(self.at) else {
            return Some(None);
        };
        self.at += 1;
        let argument = match opcode {
            op::SHORT_BINUNICODE | op::SHORT_BINBYTES | op::LONG1 => self.sized(1)?,
            op::BINUNICODE | op::BINBYTES | op::LONG4 => self.sized(4)?,
            op::BINUNICODE8 | op::BINBYTES8 | op::BYTEARRAY8 => self.sized(8)?,
            op::BININT1 | op::BINGET | op::PROTO => self.take(1)?,
            op::BININT2 => self.take(2)?,
            op::BININT | op::LONG_BINGET => self.take(4)?,
            op::BINFLOAT => self.take(8)?,
            op::GLOBAL => {
                self.line()?;
                self.line()?;
                &[]
            }
            op::STOP => {
                self.at = self.pickle.len();
                &[]
            }
            _ => &[],
        };
        Some(Some(Step { opcode, argument }))
    }
}
