//! Run specs that are a call and nothing more: a function that is known already, with arguments that are
//! plain values or results of other tasks, as in a map. They are read here, without the task's object
//! (`dask._task_spec.Task`, since 2024.12.0), whose unpickling and calling are code in Python that costs
//! several times what such a call does.
//!
//! Reading has no effects and needs no interpreter. What is not understood is nothing, and left to the
//! environment's own unpickler.

use oxidask_key::Key;

use crate::pickle::opcodes as op;
use crate::pickle::scan::Scan;

/// Longest run spec that is read, in bytes without its prefix.
const MAX_LENGTH: usize = 4096;
/// Deepest nesting of values.
const MAX_DEPTH: u8 = 16;
/// Module of the classes of tasks.
pub const MODULE: &str = "dask._task_spec";

/// What an object of the prefix is to a run spec that refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The class of tasks.
    Task,
    /// The class of references to results.
    TaskRef,
    /// The text [`MODULE`].
    Module,
    /// Something that can be called on a thread.
    Function,
    /// What else may be shared.
    Value,
    /// It may not be shared.
    Nothing,
}

/// Where the state of a task's object has what.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    length: usize,
    function: usize,
    args: usize,
    kwargs: usize,
    is_coroutine: usize,
}

impl Layout {
    /// From the names of the fields in their order; nothing if one is missing.
    pub fn new(fields: &[String]) -> Option<Self> {
        let at = |name: &str| fields.iter().position(|field| field == name);
        Some(Self {
            length: fields.len(),
            function: at("func")?,
            args: at("args")?,
            kwargs: at("kwargs")?,
            is_coroutine: at("_is_coro")?,
        })
    }
}

/// A call that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Call<'a> {
    /// Slot of the function.
    pub function: u32,
    /// Arguments by place.
    pub args: Vec<Item<'a>>,
    /// Names and values in turn.
    pub named: Vec<Item<'a>>,
}

/// A part of a run spec.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A tuple.
    Tuple(Nested<'a>),
    /// A list.
    List(Nested<'a>),
    /// Keys and values in turn.
    Dict(Nested<'a>),
    /// Keys of the task's inputs, which the state machine has as well.
    Dependencies,
    /// An object of the prefix.
    Shared(u32),
    /// The class of references.
    TaskRefClass,
    /// The class of tasks.
    TaskClass,
    /// The result of the task with this key.
    Input(Box<Item<'a>>),
    /// A task without its state.
    Blank,
    /// A task with its state.
    Call(Box<Call<'a>>),
}

/// Values in one that is not nested too deeply.
#[derive(Clone, Debug, PartialEq)]
pub struct Nested<'a> {
    items: Vec<Item<'a>>,
    depth: u8,
}

impl<'a> Nested<'a> {
    /// The values.
    pub fn items(&self) -> &[Item<'a>] {
        &self.items
    }

    /// Nothing if it is too deep.
    fn new(items: Vec<Item<'a>>) -> Option<Self> {
        let deepest = items.iter().map(Item::depth).max().unwrap_or(0);
        let depth = Some(deepest + 1).filter(|depth| *depth <= MAX_DEPTH)?;
        Some(Self { items, depth })
    }

    fn extend(&mut self, items: Vec<Item<'a>>) -> Option<()> {
        let more = Self::new(items)?;
        self.depth = self.depth.max(more.depth);
        self.items.extend(more.items);
        Some(())
    }
}

impl Item<'_> {
    fn depth(&self) -> u8 {
        match self {
            Self::Tuple(nested) | Self::List(nested) | Self::Dict(nested) => nested.depth,
            // Keys are read as tuples, and no call is part of another.
            Self::Input(key) => key.depth(),
            _ => 0,
        }
    }

    /// Whether it is what this key is in Python; floats and others in keys are not compared.
    pub fn is_key(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Text(text), Key::Str(name)) => **text == **name,
            (Self::Int(int), Key::Int(number)) => int == number,
            (Self::Tuple(nested), Key::Tuple(parts)) => {
                nested.items.len() == parts.len()
                    && nested
                        .items
                        .iter()
                        .zip(parts.iter())
                        .all(|(item, part)| item.is_key(part))
            }
            _ => false,
        }
    }
}

/// The call that a run spec is. `body`: what follows the prefix, whose objects have these roles.
pub fn read<'a>(body: &'a [u8], roles: &[Role], layout: &Layout) -> Option<Call<'a>> {
    if body.len() > MAX_LENGTH {
        return None;
    }
    let mut machine = Machine {
        roles,
        layout,
        stack: Vec::with_capacity(16),
        marks: Vec::new(),
        memo: Vec::new(),
    };
    let mut scan = Scan::new(body);
    while let Some(step) = scan.next()? {
        if step.opcode == op::STOP {
            break;
        }
        machine.step(step.opcode, step.argument)?;
    }
    match machine.stack.pop()? {
        Item::Call(call) if machine.stack.is_empty() => Some(*call),
        _ => None,
    }
}

struct Machine<'a, 'r> {
    roles: &'r [Role],
    layout: &'r Layout,
    stack: Vec<Item<'a>>,
    marks: Vec<usize>,
    /// What follows the slots of the prefix; nothing for what has an identity.
    memo: Vec<Option<Item<'a>>>,
}

impl<'a> Machine<'a, '_> {
    fn step(&mut self, opcode: u8, argument: &'a [u8]) -> Option<()> {
        let item = match opcode {
            op::MARK => {
                self.marks.push(self.stack.len());
                return Some(());
            }
            op::MEMOIZE => {
                let top = self.stack.last()?;
                let is_plain = matches!(
                    top,
                    Item::Text(_) | Item::TaskClass | Item::TaskRefClass | Item::Shared(_)
                );
                self.memo.push(is_plain.then(|| top.clone()));
                return Some(());
            }
            op::POP => {
                self.stack.pop()?;
                return Some(());
            }
            op::APPEND => {
                let item = self.stack.pop()?;
                return self.list()?.extend(vec![item]);
            }
            op::APPENDS => {
                let items = self.since_mark()?;
                return self.list()?.extend(items);
            }
            op::SETITEM => {
                let value = self.stack.pop()?;
                let key = self.stack.pop()?;
                return self.dict()?.extend(vec![key, value]);
            }
            op::SETITEMS => {
                let items = self.since_mark().filter(|items| items.len() % 2 == 0)?;
                return self.dict()?.extend(items);
            }
            op::BINGET => self.known(u32::from(*argument.first()?))?,
            op::LONG_BINGET => self.known(u32::from_le_bytes(argument.try_into().ok()?))?,
            op::EMPTY_LIST => Item::List(Nested::new(Vec::new())?),
            op::EMPTY_DICT => Item::Dict(Nested::new(Vec::new())?),
            op::EMPTY_TUPLE => Item::Tuple(Nested::new(Vec::new())?),
            op::TUPLE => Item::Tuple(Nested::new(self.since_mark()?)?),
            op::TUPLE1 => self.tuple(1)?,
            op::TUPLE2 => self.tuple(2)?,
            op::TUPLE3 => self.tuple(3)?,
            op::FROZENSET => {
                self.since_mark()?;
                Item::Dependencies
            }
            op::STACK_GLOBAL => self.class()?,
            op::NEWOBJ => self.blank()?,
            op::REDUCE => self.input()?,
            op::BUILD => self.call()?,
            _ => value(opcode, argument)?,
        };
        self.stack.push(item);
        Some(())
    }

    fn since_mark(&mut self) -> Option<Vec<Item<'a>>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }

    fn tuple(&mut self, length: usize) -> Option<Item<'a>> {
        let at = self.stack.len().checked_sub(length)?;
        Some(Item::Tuple(Nested::new(self.stack.split_off(at))?))
    }

    fn list(&mut self) -> Option<&mut Nested<'a>> {
        match self.stack.last_mut()? {
            Item::List(nested) => Some(nested),
            _ => None,
        }
    }

    fn dict(&mut self) -> Option<&mut Nested<'a>> {
        match self.stack.last_mut()? {
            Item::Dict(nested) => Some(nested),
            _ => None,
        }
    }

    fn role(&self, item: &Item<'a>) -> Option<Role> {
        match item {
            Item::TaskClass => Some(Role::Task),
            Item::TaskRefClass => Some(Role::TaskRef),
            Item::Text(text) if *text == MODULE => Some(Role::Module),
            Item::Shared(slot) => self.roles.get(*slot as usize).copied(),
            _ => None,
        }
    }

    fn known(&self, slot: u32) -> Option<Item<'a>> {
        match self.roles.get(slot as usize) {
            Some(Role::Nothing) => None,
            Some(_) => Some(Item::Shared(slot)),
            None => {
                let own = (slot as usize).checked_sub(self.roles.len())?;
                self.memo.get(own)?.clone()
            }
        }
    }

    fn class(&mut self) -> Option<Item<'a>> {
        let name = self.stack.pop()?;
        let module = self.stack.pop()?;
        match name {
            _ if self.role(&module) != Some(Role::Module) => None,
            Item::Text("Task") => Some(Item::TaskClass),
            Item::Text("TaskRef") => Some(Item::TaskRefClass),
            _ => None,
        }
    }

    fn blank(&mut self) -> Option<Item<'a>> {
        let arguments = self.stack.pop()?;
        let class = self.stack.pop()?;
        let is_blank = matches!(&arguments, Item::Tuple(none) if none.items.is_empty());
        (is_blank && self.role(&class) == Some(Role::Task)).then_some(Item::Blank)
    }

    fn input(&mut self) -> Option<Item<'a>> {
        let arguments = self.stack.pop()?;
        let class = self.stack.pop()?;
        match arguments {
            Item::Tuple(Nested { mut items, .. })
                if items.len() == 1 && self.role(&class) == Some(Role::TaskRef) =>
            {
                items.pop().map(|key| Item::Input(Box::new(key)))
            }
            _ => None,
        }
    }

    fn call(&mut self) -> Option<Item<'a>> {
        let state = self.stack.pop()?;
        let (
            Some(Item::Blank),
            Item::Tuple(Nested {
                items: mut state, ..
            }),
        ) = (self.stack.pop(), state)
        else {
            return None;
        };
        let mut field = |at: usize| Some(std::mem::replace(state.get_mut(at)?, Item::None));
        let layout = self.layout;
        let function = field(layout.function)?;
        let (args, kwargs) = (field(layout.args)?, field(layout.kwargs)?);
        let coroutine = field(layout.is_coroutine)?;
        let is_function = self.role(&function) == Some(Role::Function);
        match (function, args, kwargs, coroutine) {
            (
                Item::Shared(function),
                Item::Tuple(args),
                Item::Dict(named),
                Item::None | Item::Bool(false),
            ) if is_function && state.len() == layout.length => Some(Item::Call(Box::new(Call {
                function,
                args: args.items,
                named: named.items,
            }))),
            _ => None,
        }
    }
}

/// A value without parts.
fn value(opcode: u8, argument: &[u8]) -> Option<Item<'_>> {
    Some(match opcode {
        op::NONE => Item::None,
        op::NEWTRUE => Item::Bool(true),
        op::NEWFALSE => Item::Bool(false),
        op::BININT => Item::Int(i32::from_le_bytes(argument.try_into().ok()?).into()),
        op::BININT1 => Item::Int((*argument.first()?).into()),
        op::BININT2 => Item::Int(u16::from_le_bytes(argument.try_into().ok()?).into()),
        op::LONG1 => Item::Int(long(argument)?),
        op::BINFLOAT => Item::Float(f64::from_be_bytes(argument.try_into().ok()?)),
        // Surrogates that stand alone are left to Python.
        op::SHORT_BINUNICODE | op::BINUNICODE => Item::Text(std::str::from_utf8(argument).ok()?),
        op::SHORT_BINBYTES | op::BINBYTES => Item::Bytes(argument),
        _ => return None,
    })
}

/// A number in two's complement, the lowest byte first.
fn long(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = if negative { [0xff; 8] } else { [0; 8] };
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 3] = [Role::Task, Role::Function, Role::Nothing];

    fn layout() -> Layout {
        let fields = [
            "_data_producer",
            "_dependencies",
            "_is_coro",
            "_repr",
            "_token",
            "args",
            "func",
            "key",
            "kwargs",
        ];
        Layout::new(&fields.map(str::to_owned)).expect("all fields")
    }

    fn body(args: &[u8], function: &[u8], kwargs: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 8] = [
            b"h\0)\x81(\x89(\x91NNN",
            args,
            function,
            b"\x8c\x03key",
            b"}",
            kwargs,
            b"t",
            b"b.",
        ];
        parts.concat()
    }

    fn read_one<'a>(body: &'a [u8]) -> Option<Call<'a>> {
        read(body, &ROLES, &layout())
    }

    #[test]
    fn arguments_are_plain_values_and_inputs() {
        let args = b"(K\x05J\xff\xff\xff\xff\x8a\x02\0\x80G\x3f\xf8\0\0\0\0\0\0\x8c\x01a\
            ](K\x01N\x88e\x8c\x0fdask._task_spec\x8c\x07TaskRef\x93\x8c\x01x\x85Rt";
        let bytes = body(args, b"h\x01", b"\x8c\x01kK\x07s");
        let call = read_one(&bytes).expect("a call");
        assert_eq!(call.function, 1);
        let list = vec![Item::Int(1), Item::None, Item::Bool(true)];
        let expected = [
            Item::Int(5),
            Item::Int(-1),
            Item::Int(-32768),
            Item::Float(1.5),
            Item::Text("a"),
            Item::List(Nested::new(list).expect("not deep")),
            Item::Input(Box::new(Item::Text("x"))),
        ];
        assert_eq!(call.args, expected);
        assert_eq!(call.named, [Item::Text("k"), Item::Int(7)]);
    }

    #[test]
    fn what_is_more_than_a_call_is_left_alone() {
        let cases: [(&str, Vec<u8>); 7] = [
            (
                "a function that is not known",
                body(b")", b"\x8c\x01f", b""),
            ),
            ("what may not be shared", body(b"h\x02\x85", b"h\x01", b"")),
            (
                "another class",
                body(b"\x8c\x01m\x8c\x01c\x93\x85", b"h\x01", b""),
            ),
            ("a list twice", body(b"]\x94h\x03\x86", b"h\x01", b"")),
            ("bytes in a buffer", body(b"\x97\x85", b"h\x01", b"")),
            ("no end", body(b")", b"h\x01", b"")[..10].to_vec()),
            (
                "too deep",
                body(&[&b")"[..], &b"\x85".repeat(40)].concat(), b"h\x01", b""),
            ),
        ];
        for (what, bytes) in cases {
            assert_eq!(read_one(&bytes), None, "{what}");
        }
        assert!(read_one(&body(b")", b"h\x01", b"")).is_some());
    }

    #[test]
    fn a_coroutine_is_no_call_on_a_thread() {
        let mut bytes = body(b")", b"h\x01", b"");
        let at = bytes
            .iter()
            .position(|byte| *byte == b'N')
            .expect("its field");
        bytes[at] = 0x88;
        assert_eq!(read_one(&bytes), None);
    }

    #[test]
    fn inputs_are_found_by_their_keys() {
        let text = Item::Text("x");
        let number = Item::Tuple(Nested::new(vec![text.clone(), Item::Int(3)]).expect("not deep"));
        let key = Key::Tuple(vec![Key::Str("x".into()), Key::Int(3)].into());
        assert!(text.is_key(&Key::Str("x".into())) && number.is_key(&key));
        assert!(!number.is_key(&Key::Str("x".into())) && !text.is_key(&key));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            read_one(&bytes);
        }

        #[test]
        fn nor_do_broken_calls(at in 0..200_usize, byte: u8, cut in 0..200_usize) {
            let mut bytes = body(b"(K\x05](K\x01N\x88e}\x8c\x01kGGGGGGGGGs\x8a\x01\xfft", b"h\x01", b"");
            let last = bytes.len() - 1;
            bytes[at.min(last)] = byte;
            bytes.truncate(cut.max(1));
            read_one(&bytes);
        }
    }
}
