//! Python objects to be written into task specs, and the ways to dump a task.

use bytes::Bytes;
use oxidask_key::Key;

use super::value::Input;
use super::{Item, PackedSpec};
use crate::intake::Stop;
use crate::pickle::emit;
use crate::pickle::opcodes as op;

/// Deepest nesting of values taken over from a message.
const MAX_DEPTH: usize = 64;

/// A Python object.
#[derive(Clone, Debug)]
pub(super) enum Object<P> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Bytes),
    List(Vec<Object<P>>),
    Tuple(Vec<Object<P>>),
    Dict(Vec<(Object<P>, Object<P>)>),
    /// `slice(start, stop, None)`.
    Slice(i64, i64),
    /// Something importable: module, name.
    Global(&'static str, &'static str),
    /// `dask.layers.CallableLazyImport(path)`: a function that is imported when it is called.
    LazyImport(&'static str),
    /// An object of the client.
    Payload(P),
}

impl<P: Clone> Object<P> {
    /// A key in its text form.
    pub(super) fn key(key: &Key) -> Self {
        Self::Text(key.to_text())
    }

    /// A value of a message; arrays become tuples, as on a stock scheduler.
    pub(super) fn from_input(input: &Input<P>) -> Result<Self, Stop> {
        Self::from_nested(input, MAX_DEPTH)
    }

    fn from_nested(input: &Input<P>, depth: usize) -> Result<Self, Stop> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| Stop::python("value nested too deeply"))?;
        Ok(match input {
            Input::Nil => Self::None,
            Input::Bool(b) => Self::Bool(*b),
            Input::Int(i) => Self::Int(*i),
            Input::Float(f) => Self::Float(*f),
            Input::Str(text) => Self::Text(text.clone()),
            Input::Bin(bytes) => Self::Bytes(bytes.clone()),
            Input::Payload(payload) => Self::Payload(payload.clone()),
            Input::Array(items) => {
                let items: Result<Vec<Self>, Stop> =
                    items.iter().map(|i| Self::from_nested(i, depth)).collect();
                Self::Tuple(items?)
            }
            Input::Map(_) if input.items().is_some() => {
                return Err(Stop::python("set among the arguments"));
            }
            Input::Map(entries) => {
                let entries: Result<Vec<(Self, Self)>, Stop> = entries
                    .iter()
                    .map(|(k, v)| Ok((Self::from_nested(k, depth)?, Self::from_nested(v, depth)?)))
                    .collect();
                Self::Dict(entries?)
            }
        })
    }

    /// dask's `stringify_collection_keys`: tuples that begin with text become their printed form.
    pub(super) fn stringified(self) -> Result<Self, Stop> {
        Ok(match self {
            Self::Tuple(items) => {
                if matches!(items.first(), Some(Self::Text(_) | Self::Bytes(_))) {
                    let key = raw_key(&items)
                        .ok_or_else(|| Stop::python("tuple that cannot be printed"))?;
                    return Ok(Self::Text(key.to_text()));
                }
                Self::Tuple(all_stringified(items)?)
            }
            Self::List(items) => Self::List(all_stringified(items)?),
            Self::Dict(entries) => {
                let entries: Result<Vec<_>, Stop> = entries
                    .into_iter()
                    .map(|(k, v)| Ok((k, v.stringified()?)))
                    .collect();
                Self::Dict(entries?)
            }
            other => other,
        })
    }

    /// The texts that dask's `keys_in_tasks` would compare with the keys.
    pub(super) fn mentioned(&self, to: &mut Vec<Key>) {
        match self {
            Self::Text(text) => to.push(Key::from(text.as_str())),
            Self::List(items) => items.iter().for_each(|item| item.mentioned(to)),
            Self::Tuple(items) if items.first().is_some_and(Self::is_callable) => {
                items.iter().skip(1).for_each(|item| item.mentioned(to));
            }
            Self::Dict(entries) => entries.iter().for_each(|(_, value)| value.mentioned(to)),
            _ => {}
        }
    }

    fn is_callable(&self) -> bool {
        matches!(
            self,
            Self::Global(..) | Self::LazyImport(_) | Self::Payload(_)
        )
    }

    fn has_payload(&self) -> bool {
        match self {
            Self::Payload(_) => true,
            Self::List(items) | Self::Tuple(items) => items.iter().any(Self::has_payload),
            Self::Dict(entries) => entries
                .iter()
                .any(|(k, v)| k.has_payload() || v.has_payload()),
            _ => false,
        }
    }

    /// Whether dask would not take a task apart because of this argument.
    fn is_complex(&self) -> bool {
        match self {
            Self::Tuple(items) => items.first().is_some_and(Self::is_callable),
            Self::List(items) => items.iter().any(Self::is_complex),
            Self::Dict(entries) => entries.iter().any(|(_, v)| v.is_complex()),
            _ => false,
        }
    }

    fn into_item(self) -> Result<Item<P>, Stop> {
        match self {
            Self::Text(text) => Ok(Item::Text(text)),
            Self::Payload(payload) => Ok(Item::Payload(payload)),
            other => Ok(Item::Pickle(other.pickle()?)),
        }
    }

    /// A pickle of its own.
    ///
    /// # Errors
    /// If an object of the client is inside.
    pub(super) fn pickle(&self) -> Result<Bytes, Stop> {
        if self.has_payload() {
            return Err(Stop::python("object of the client inside of a container"));
        }
        let mut out = vec![op::PROTO, 4];
        self.write(&mut out);
        out.push(op::STOP);
        Ok(out.into())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::None | Self::Payload(_) => out.push(op::NONE),
            Self::Bool(true) => out.push(op::NEWTRUE),
            Self::Bool(false) => out.push(op::NEWFALSE),
            Self::Int(value) => emit::int(*value, out),
            Self::Float(value) => {
                out.push(op::BINFLOAT);
                out.extend(value.to_be_bytes());
            }
            Self::Text(text) => emit::text(text.as_bytes(), out),
            Self::Bytes(value) => emit::bytes(value, out),
            Self::List(items) => {
                out.extend([op::EMPTY_LIST, op::MARK]);
                items.iter().for_each(|item| item.write(out));
                out.push(op::APPENDS);
            }
            Self::Tuple(items) => {
                out.push(op::MARK);
                items.iter().for_each(|item| item.write(out));
                out.push(op::TUPLE);
            }
            Self::Dict(entries) => {
                out.extend([op::EMPTY_DICT, op::MARK]);
                for (key, value) in entries {
                    key.write(out);
                    value.write(out);
                }
                out.push(op::SETITEMS);
            }
            Self::Slice(start, stop) => {
                global("builtins", "slice", out);
                emit::int(*start, out);
                emit::int(*stop, out);
                out.extend([op::NONE, op::TUPLE3, op::REDUCE]);
            }
            Self::Global(module, name) => global(module, name, out),
            Self::LazyImport(path) => {
                global("dask.layers", "CallableLazyImport", out);
                out.extend([op::EMPTY_TUPLE, op::NEWOBJ, op::EMPTY_DICT]);
                emit::text(b"function_path", out);
                emit::text(path.as_bytes(), out);
                out.extend([op::SETITEM, op::BUILD]);
            }
        }
    }
}

fn global(module: &str, name: &str, out: &mut Vec<u8>) {
    emit::text(module.as_bytes(), out);
    emit::text(name.as_bytes(), out);
    out.push(op::STACK_GLOBAL);
}

fn all_stringified<P: Clone>(items: Vec<Object<P>>) -> Result<Vec<Object<P>>, Stop> {
    items.into_iter().map(Object::stringified).collect()
}

fn raw_key<P>(items: &[Object<P>]) -> Option<Key> {
    let keys: Option<Vec<Key>> = items
        .iter()
        .map(|item| {
            Some(match item {
                Object::None => Key::None,
                Object::Bool(b) => Key::Bool(*b),
                Object::Int(i) => Key::Int(*i),
                Object::Float(f) => Key::Float(*f),
                Object::Text(text) => Key::from(text.as_str()),
                Object::Bytes(bytes) => Key::Bytes(bytes[..].into()),
                Object::Tuple(items) => raw_key(items)?,
                _ => return None,
            })
        })
        .collect();
    Some(Key::from(keys?))
}

/// dask's `dumps_task`: function and arguments apart if no argument is a task itself.
pub(super) fn dump_task<P: Clone>(task: Object<P>) -> Result<PackedSpec<P>, Stop> {
    let items = match task {
        Object::Payload(payload) => return Ok(PackedSpec::Given(Input::Payload(payload))),
        Object::Tuple(items) if items.iter().any(Object::has_payload) => return nested(items),
        Object::Tuple(items) => items,
        other => return Ok(PackedSpec::PickledTask(other.pickle()?)),
    };
    // `apply` takes keyword arguments, which a worker handles as well within a task.
    let apply = matches!(items.first(), Some(Object::Global("dask.utils", "apply")));
    let simple = !apply && items.iter().skip(1).all(|item| !item.is_complex());
    match items.split_first() {
        Some((function, args)) if simple && function.is_callable() => Ok(PackedSpec::Parts {
            function: function.pickle()?,
            args: Object::Tuple(args.to_vec()).pickle()?,
        }),
        _ => Ok(PackedSpec::PickledTask(Object::Tuple(items).pickle()?)),
    }
}

/// A task with objects of the client in it.
pub(super) fn nested<P: Clone>(items: Vec<Object<P>>) -> Result<PackedSpec<P>, Stop> {
    let items: Result<Vec<Item<P>>, Stop> = items.into_iter().map(Object::into_item).collect();
    Ok(PackedSpec::Task(items?))
}

/// A function, pickled by the client, and its arguments.
pub(super) fn call<P: Clone>(function: Bytes, args: Vec<Object<P>>) -> Result<PackedSpec<P>, Stop> {
    if args.iter().any(Object::has_payload) {
        let args: Result<Vec<Item<P>>, Stop> = args.into_iter().map(Object::into_item).collect();
        return Ok(PackedSpec::Call {
            function,
            args: args?,
        });
    }
    Ok(PackedSpec::Parts {
        function,
        args: Object::List(args).pickle()?,
    })
}
