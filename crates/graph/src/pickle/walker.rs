//! The symbolic pickle machine: reads a pickle into an [`Arena`], runs nothing.

use bytes::Bytes;

use super::arena::{Arena, Kind, NodeId, OpKind, Span};
use super::opcodes as op;

/// Bounds on what a pickle may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest number of nodes; a node takes some 40 bytes of memory and at least one byte of
    /// pickle.
    pub max_nodes: usize,
    /// Largest sum of the lengths of all pickles written for one graph, in bytes.
    pub max_output: usize,
    /// Largest number of nodes visited while writing them (a node counts each time).
    pub max_steps: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_nodes: 64 << 20,
            max_output: 4 << 30,
            max_steps: 4 << 30,
        }
    }
}

/// Why a pickle cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// It ends before its `STOP`.
    #[error("the pickle ends early, at byte {at}")]
    Truncated {
        /// Offset.
        at: usize,
    },
    /// It asks for something that no pickle can mean.
    #[error("malformed pickle at byte {at}: {what}")]
    Malformed {
        /// Offset.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A legal pickle that this reader does not understand; Python would.
    #[error("unsupported pickle feature at byte {at}: {what}")]
    Unsupported {
        /// Offset.
        at: usize,
        /// Which feature.
        what: &'static str,
    },
    /// Beyond [`Limits`].
    #[error("the pickle describes more than {limit} objects")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

/// Reads `pickle` with its out-of-band `buffers`. Returns the graph and its root.
///
/// # Errors
/// See [`WalkError`]. Never panics, and memory stays proportional to the input.
pub fn walk(
    pickle: Bytes,
    buffers: Vec<Bytes>,
    limits: Limits,
) -> Result<(Arena, NodeId), WalkError> {
    if u32::try_from(pickle.len()).is_err() {
        return Err(WalkError::TooLarge {
            limit: u32::MAX as usize,
        });
    }
    let mut machine = Machine {
        input: pickle.clone(),
        at: 0,
        arena: Arena::new(pickle, buffers),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        memoised: Vec::new(),
        memo_len: 0,
        next_buffer: 0,
    };
    loop {
        if let Some(root) = machine.step()? {
            return Ok((machine.arena, root));
        }
        if machine.arena.nodes.len() > limits.max_nodes {
            return Err(WalkError::TooLarge {
                limit: limits.max_nodes,
            });
        }
    }
}

struct Machine {
    input: Bytes,
    at: usize,
    arena: Arena,
    stack: Vec<NodeId>,
    marks: Vec<usize>,
    memo: Vec<Option<NodeId>>,
    /// Per node: whether the memo holds it.
    memoised: Vec<bool>,
    memo_len: usize,
    next_buffer: u32,
}

type Result_<T> = Result<T, WalkError>;

impl Machine {
    /// Executes one opcode; the root node once it was `STOP`.
    fn step(&mut self) -> Result_<Option<NodeId>> {
        let code = self.u8()?;
        match code {
            op::STOP => return Ok(Some(self.pop()?)),
            op::PROTO => {
                let protocol = self.u8()?;
                if protocol > 5 {
                    return Err(self.unsupported("protocol above 5"));
                }
                self.arena.protocol = protocol;
            }
            op::FRAME => {
                self.take(8)?;
            }
            op::MARK => self.marks.push(self.stack.len()),
            op::POP => self.op_pop()?,
            op::POP_MARK => {
                let start = self.mark()?;
                self.stack.truncate(start);
            }
            op::DUP => {
                let top = self.top()?;
                self.arena.share(top);
                self.stack.push(top);
            }
            op::GET | op::BINGET | op::LONG_BINGET => self.op_get(code)?,
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.op_put(code)?,
            op::NONE => self.push(Kind::None),
            op::NEWTRUE => self.push(Kind::Bool(true)),
            op::NEWFALSE => self.push(Kind::Bool(false)),
            op::INT
            | op::BININT
            | op::BININT1
            | op::BININT2
            | op::LONG
            | op::LONG1
            | op::LONG4
            | op::FLOAT
            | op::BINFLOAT => self.op_number(code)?,
            op::STRING | op::BINSTRING | op::SHORT_BINSTRING => self.op_old_string(code)?,
            op::UNICODE => self.op_unicode()?,
            op::SHORT_BINUNICODE => self.op_span(1, Kind::Str)?,
            op::BINUNICODE => self.op_span(4, Kind::Str)?,
            op::BINUNICODE8 => self.op_span(8, Kind::Str)?,
            op::SHORT_BINBYTES => self.op_span(1, Kind::Bytes)?,
            op::BINBYTES => self.op_span(4, Kind::Bytes)?,
            op::BINBYTES8 => self.op_span(8, Kind::Bytes)?,
            op::BYTEARRAY8 => self.op_span(8, Kind::ByteArray)?,
            op::NEXT_BUFFER | op::READONLY_BUFFER => self.op_buffer(code)?,
            op::EMPTY_TUPLE => self.tuple_of(self.stack.len())?,
            op::TUPLE1 => self.tuple_of(self.below(1)?)?,
            op::TUPLE2 => self.tuple_of(self.below(2)?)?,
            op::TUPLE3 => self.tuple_of(self.below(3)?)?,
            op::TUPLE => {
                let start = self.mark()?;
                self.tuple_of(start)?;
            }
            op::EMPTY_LIST => self.push(Kind::List),
            op::EMPTY_DICT => self.push(Kind::Dict),
            op::EMPTY_SET => self.push(Kind::Set),
            op::LIST | op::DICT | op::FROZENSET => self.op_marked_container(code)?,
            op::APPEND | op::SETITEM | op::APPENDS | op::SETITEMS | op::ADDITEMS => {
                self.op_fill(code)?;
            }
            op::GLOBAL | op::STACK_GLOBAL | op::INST | op::OBJ => self.op_global(code)?,
            op::REDUCE | op::NEWOBJ | op::NEWOBJ_EX | op::BUILD => self.op_object(code)?,
            op::PERSID | op::BINPERSID => return Err(self.unsupported("persistent id")),
            op::EXT1 | op::EXT2 | op::EXT4 => return Err(self.unsupported("extension registry")),
            _ => return Err(self.malformed("unknown opcode")),
        }
        Ok(None)
    }

    fn op_pop(&mut self) -> Result_<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        let dropped = self.pop()?;
        let kind = self.arena.kind(dropped);
        if let Kind::Reduce { args, .. } = kind {
            // `setter(obj, state)` of a reduce with a state setter: pickle leaves `obj` below.
            let first = self.arena.tuple(args).and_then(|a| a.first().copied());
            if let Some(target) = first
                && self.stack.last() == Some(&target)
            {
                self.arena.add_op(target, OpKind::Effect, &[dropped]);
                return Ok(());
            }
        }
        let kept = self.memoised.get(dropped.index()) == Some(&true);
        let is_call = matches!(
            kind,
            Kind::Reduce { .. } | Kind::NewObj { .. } | Kind::NewObjEx { .. } | Kind::Obj(_)
        );
        // Pickle throws away the outer copy of an object that was reached through its own
        // arguments, and fetches the inner one.
        if is_call && !kept && !self.next_is_get() {
            return Err(self.unsupported("result of a call dropped"));
        }
        Ok(())
    }

    fn next_is_get(&self) -> bool {
        matches!(
            self.input.get(self.at),
            Some(&(op::GET | op::BINGET | op::LONG_BINGET))
        )
    }

    fn op_get(&mut self, code: u8) -> Result_<()> {
        let slot = match code {
            op::GET => self.decimal_line()?,
            op::BINGET => u64::from(self.u8()?),
            _ => self.uint(4)?,
        };
        let node = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.memo.get(slot).copied().flatten())
            .ok_or_else(|| self.malformed("memo slot is empty"))?;
        self.arena.share(node);
        self.stack.push(node);
        Ok(())
    }

    fn op_put(&mut self, code: u8) -> Result_<()> {
        let slot = match code {
            op::PUT => self.decimal_line()?,
            op::BINPUT => u64::from(self.u8()?),
            op::LONG_BINPUT => self.uint(4)?,
            _ => self.memo_len as u64,
        };
        let node = self.top()?;
        // Picklers count up, from 0 or 1; a far slot is legal but would let a few bytes ask for
        // gigabytes.
        let slot = usize::try_from(slot)
            .ok()
            .filter(|&slot| slot <= self.memo.len() + 1)
            .ok_or_else(|| self.unsupported("sparse memo"))?;
        if self.memo.len() <= slot {
            self.memo.resize(slot + 1, None);
        }
        if let Some(entry) = self.memo.get_mut(slot)
            && entry.replace(node).is_none()
        {
            self.memo_len += 1;
        }
        if self.memoised.len() <= node.index() {
            self.memoised.resize(self.arena.nodes.len(), false);
        }
        if let Some(flag) = self.memoised.get_mut(node.index()) {
            *flag = true;
        }
        Ok(())
    }

    fn op_number(&mut self, code: u8) -> Result_<()> {
        let kind = match code {
            op::BININT => Kind::Int(i64::from(self.uint(4)? as u32 as i32)),
            op::BININT1 => Kind::Int(i64::from(self.u8()?)),
            op::BININT2 => Kind::Int(self.uint(2)? as i64),
            op::BINFLOAT => {
                let bytes = self.take(8)?;
                let raw = <[u8; 8]>::try_from(bytes).unwrap_or_default();
                Kind::Float(f64::from_be_bytes(raw))
            }
            op::LONG1 | op::LONG4 => {
                let len = self.uint(if code == op::LONG1 { 1 } else { 4 })?;
                self.long(len)?
            }
            op::FLOAT => {
                let line = self.line()?;
                let text = self.ascii(line)?;
                let value = text
                    .trim()
                    .parse()
                    .map_err(|_| self.malformed("not a float"))?;
                Kind::Float(value)
            }
            _ => {
                let line = self.line()?;
                let text = self.ascii(line)?;
                match text {
                    "00" if code == op::INT => Kind::Bool(false),
                    "01" if code == op::INT => Kind::Bool(true),
                    _ => {
                        let digits = text.trim().trim_end_matches('L');
                        let value = digits
                            .parse()
                            .map_err(|_| self.unsupported("large integer in text form"))?;
                        Kind::Int(value)
                    }
                }
            }
        };
        self.push(kind);
        Ok(())
    }

    /// An integer in little-endian two's complement of `len` bytes.
    fn long(&mut self, len: u64) -> Result_<Kind> {
        let span = self.span(len)?;
        let bytes = self.arena.bytes(span);
        if bytes.len() > 8 {
            return Ok(Kind::Long(span));
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut raw = [if negative { 0xff } else { 0 }; 8];
        for (to, from) in raw.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(Kind::Int(i64::from_le_bytes(raw)))
    }

    /// Text of Python 2, which Python 3 reads as ASCII.
    fn op_old_string(&mut self, code: u8) -> Result_<()> {
        let span = match code {
            op::SHORT_BINSTRING => {
                let len = self.uint(1)?;
                self.span(len)?
            }
            op::BINSTRING => {
                let len = self.uint(4)?;
                self.span(len)?
            }
            _ => {
                let mut line = self.line()?;
                let text = self.arena.bytes(line);
                let quoted = matches!(text, [b'\'', .., b'\''] | [b'"', .., b'"']);
                if !quoted || text.contains(&b'\\') {
                    return Err(self.unsupported("Python 2 string"));
                }
                line.start += 1;
                line.len -= 2;
                line
            }
        };
        if !self.arena.bytes(span).is_ascii() {
            return Err(self.unsupported("Python 2 string"));
        }
        self.push(Kind::Str(span));
        Ok(())
    }

    /// Text of protocol 0, in Python's `raw-unicode-escape`.
    fn op_unicode(&mut self) -> Result_<()> {
        let line = self.line()?;
        let raw = self.arena.bytes(line);
        if raw.is_ascii() && !raw.contains(&b'\\') {
            self.push(Kind::Str(line));
            return Ok(());
        }
        let mut text = String::new();
        let mut rest = raw;
        while let Some((&first, tail)) = rest.split_first() {
            let digits = match (first, tail.first()) {
                (b'\\', Some(b'u')) => 4,
                (b'\\', Some(b'U')) => 8,
                _ => {
                    text.push(char::from(first));
                    rest = tail;
                    continue;
                }
            };
            let c = tail
                .get(1..=digits)
                .and_then(|hex| std::str::from_utf8(hex).ok())
                .and_then(|hex| u32::from_str_radix(hex, 16).ok())
                .and_then(char::from_u32)
                .ok_or_else(|| self.unsupported("escape in text"))?;
            text.push(c);
            rest = tail.get(1 + digits..).unwrap_or_default();
        }
        let node = self.arena.add_str(&text);
        self.stack.push(node);
        Ok(())
    }

    fn op_span(&mut self, width: usize, kind: fn(Span) -> Kind) -> Result_<()> {
        let len = self.uint(width)?;
        let span = self.span(len)?;
        self.push(kind(span));
        Ok(())
    }

    fn op_buffer(&mut self, code: u8) -> Result_<()> {
        if code == op::NEXT_BUFFER {
            let index = self.next_buffer;
            if self.arena.buffer(index).is_none() {
                return Err(self.malformed("more out-of-band buffers used than given"));
            }
            self.next_buffer += 1;
            self.push(Kind::Buffer {
                index,
                readonly: false,
            });
            return Ok(());
        }
        let Kind::Buffer { index, .. } = self.arena.kind(self.top()?) else {
            return Err(self.unsupported("read-only view of something else than a buffer"));
        };
        self.pop()?;
        self.push(Kind::Buffer {
            index,
            readonly: true,
        });
        Ok(())
    }

    fn op_marked_container(&mut self, code: u8) -> Result_<()> {
        let start = self.mark()?;
        let items = self.stack.split_off(start);
        let node = match code {
            op::FROZENSET => {
                let run = self.arena.add_children(&items);
                self.arena.add(Kind::FrozenSet(run))
            }
            op::LIST => self.arena.add(Kind::List),
            _ => self.arena.add(Kind::Dict),
        };
        if code != op::FROZENSET && !items.is_empty() {
            let kind = if code == op::LIST {
                OpKind::Append
            } else {
                OpKind::SetItems
            };
            if kind == OpKind::SetItems && !items.len().is_multiple_of(2) {
                return Err(self.malformed("odd number of dict items"));
            }
            self.arena.add_op(node, kind, &items);
        }
        self.stack.push(node);
        Ok(())
    }

    fn op_fill(&mut self, code: u8) -> Result_<()> {
        let start = match code {
            op::APPEND => self.below(1)?,
            op::SETITEM => self.below(2)?,
            _ => self.mark()?,
        };
        let items = self.stack.split_off(start);
        let target = self.top()?;
        let kind = match code {
            op::APPEND | op::APPENDS => OpKind::Append,
            op::SETITEM | op::SETITEMS => OpKind::SetItems,
            _ => OpKind::AddItems,
        };
        if kind == OpKind::SetItems && !items.len().is_multiple_of(2) {
            return Err(self.malformed("odd number of dict items"));
        }
        match items.is_empty() {
            true => Ok(()),
            false => self.change(target, kind, &items),
        }
    }

    /// Notes a change of an object. Python's values can not be changed; here they are written wherever they are
    /// referred to, with what was done to them, which for one within itself has no end.
    fn change(&mut self, target: NodeId, kind: OpKind, items: &[NodeId]) -> Result_<()> {
        let of = self.arena.kind(target);
        let fixed = of.is_atom() && !matches!(of, Kind::Global { .. });
        if fixed || matches!(of, Kind::Tuple(_) | Kind::FrozenSet(_)) {
            return Err(self.malformed("a change of a value that can not change"));
        }
        self.arena.add_op(target, kind, items);
        Ok(())
    }

    fn op_global(&mut self, code: u8) -> Result_<()> {
        let kind = match code {
            op::STACK_GLOBAL => {
                let name = self.pop()?;
                let module = self.pop()?;
                for node in [module, name] {
                    if !matches!(self.arena.kind(node), Kind::Str(_)) {
                        return Err(self.malformed("global without a name"));
                    }
                }
                Kind::Global { module, name }
            }
            op::OBJ => {
                let start = self.mark()?;
                let items = self.stack.split_off(start);
                if items.is_empty() {
                    return Err(self.malformed("object without a class"));
                }
                Kind::Obj(self.arena.add_children(&items))
            }
            _ => {
                let module = self.line()?;
                let name = self.line()?;
                let module = self.arena.add(Kind::Str(module));
                let name = self.arena.add(Kind::Str(name));
                let global = Kind::Global { module, name };
                if code == op::GLOBAL {
                    global
                } else {
                    let class = self.arena.add(global);
                    let start = self.mark()?;
                    let mut items = vec![class];
                    items.extend(self.stack.split_off(start));
                    Kind::Obj(self.arena.add_children(&items))
                }
            }
        };
        self.push(kind);
        Ok(())
    }

    fn op_object(&mut self, code: u8) -> Result_<()> {
        let last = self.pop()?;
        let kind = match code {
            op::BUILD => {
                let target = self.top()?;
                return self.change(target, OpKind::Build, &[last]);
            }
            op::NEWOBJ_EX => {
                let args = self.pop()?;
                Kind::NewObjEx {
                    cls: self.pop()?,
                    args,
                    kwargs: last,
                }
            }
            op::NEWOBJ => Kind::NewObj {
                cls: self.pop()?,
                args: last,
            },
            _ => Kind::Reduce {
                callable: self.pop()?,
                args: last,
            },
        };
        self.push(kind);
        Ok(())
    }

    fn tuple_of(&mut self, start: usize) -> Result_<()> {
        let run = self
            .arena
            .add_children(self.stack.get(start..).unwrap_or_default());
        self.stack.truncate(start);
        self.push(Kind::Tuple(run));
        Ok(())
    }

    fn push(&mut self, kind: Kind) {
        let node = self.arena.add(kind);
        self.stack.push(node);
    }

    /// Length of the stack `count` elements below its top, none of them before the last mark.
    fn below(&self, count: usize) -> Result_<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack
            .len()
            .checked_sub(count)
            .filter(|&start| start >= floor)
            .ok_or_else(|| self.malformed("stack underflow"))
    }

    fn pop(&mut self) -> Result_<NodeId> {
        self.below(1)?;
        self.stack
            .pop()
            .ok_or_else(|| self.malformed("stack underflow"))
    }

    fn top(&self) -> Result_<NodeId> {
        self.below(1)?;
        self.stack
            .last()
            .copied()
            .ok_or_else(|| self.malformed("stack underflow"))
    }

    fn mark(&mut self) -> Result_<usize> {
        self.marks
            .pop()
            .ok_or_else(|| self.malformed("no mark on the stack"))
    }

    fn u8(&mut self) -> Result_<u8> {
        let byte = self.input.get(self.at).copied();
        let byte = byte.ok_or(WalkError::Truncated { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    /// A little-endian unsigned integer of 1 to 8 bytes.
    fn uint(&mut self, width: usize) -> Result_<u64> {
        let mut raw = [0; 8];
        let bytes = self.take(width)?;
        for (to, from) in raw.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(u64::from_le_bytes(raw))
    }

    fn take(&mut self, len: usize) -> Result_<&[u8]> {
        let start = self.at;
        let end = start
            .checked_add(len)
            .filter(|&end| end <= self.input.len());
        let end = end.ok_or(WalkError::Truncated { at: start })?;
        self.at = end;
        Ok(self.input.get(start..end).unwrap_or_default())
    }

    fn span(&mut self, len: u64) -> Result_<Span> {
        let start = self.at;
        let len = usize::try_from(len).map_err(|_| WalkError::Truncated { at: start })?;
        self.take(len)?;
        // The input is at most u32::MAX long.
        Ok(Span {
            start: start as u32,
            len: len as u32,
        })
    }

    /// The bytes up to the next newline, which is consumed.
    fn line(&mut self) -> Result_<Span> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|&b| b == b'\n');
        let len = len.ok_or(WalkError::Truncated { at: self.at })?;
        let span = self.span(len as u64)?;
        self.at += 1;
        Ok(span)
    }

    fn ascii(&self, span: Span) -> Result_<&str> {
        std::str::from_utf8(self.arena.bytes(span)).map_err(|_| self.malformed("not a number"))
    }

    fn decimal_line(&mut self) -> Result_<u64> {
        let line = self.line()?;
        self.ascii(line)?
            .trim()
            .parse()
            .map_err(|_| self.malformed("not a memo slot"))
    }

    fn malformed(&self, what: &'static str) -> WalkError {
        WalkError::Malformed { at: self.at, what }
    }

    fn unsupported(&self, what: &'static str) -> WalkError {
        WalkError::Unsupported { at: self.at, what }
    }
}
