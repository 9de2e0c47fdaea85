//! Run specs that cannot harm a worker: what fails to unpickle fails as the task, not the connection.
//!
//! Workers since 2023.8.1 unpickle a task when they read the message it is in; an error there, e.g. a
//! module they do not have, ends their connection and with it the worker. Stock's scheduler has
//! unpickled every task itself before. Ours has not, so it sends tasks of unknown quality as a pickle
//! in a pickle: the outer one names nothing but dask, tblib and toolz, which every worker has. It is
//! a call of `toolz.excepts` that loads the inner one, or makes a task that raises the reason.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::message::worker::Pickle;
use crate::pickle::Object;

const MESSAGE: &str = "Error during deserialization of the task on the worker. This frequently occurs if \
                       the worker and the client have different environments.";

/// What a worker takes for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskForm {
    /// `(function, args, kwargs)` (≤ 2024.10.0).
    Triple,
    /// `dask._task_spec.Task` (≥ 2024.11.0).
    Node,
}

const HEAD: &[u8] = b"\x80\x04ctoolz.functoolz\nexcepts\n(cbuiltins\nException\n";
const LOADS: &[u8] = b"cpickle\nloads\n";
/// Ends the first call and begins the arguments of the second.
const MIDDLE: &[u8] = b"tR(";
const TAIL: &[u8] = b"tR.";

static NODE: LazyLock<Bytes> = LazyLock::new(|| failing_node().stream());

/// The task's own pickle in one that a scheduler of ours has guarded; nothing if it is none of those, has
/// buffers, or is for releases before 2024.11.0. A worker that unpickles a task when it runs it needs no
/// guard, but what is to be raised if that fails.
pub fn unguarded(pickle: &Bytes) -> Option<Bytes> {
    let rest = pickle.strip_prefix(HEAD)?.strip_prefix(LOADS)?;
    let rest = rest.strip_prefix(&**NODE)?.strip_prefix(MIDDLE)?;
    let (length, rest) = match rest.split_first()? {
        (b'B', rest) => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
        }
        (&BINBYTES8, rest) => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_le_bytes(*length)).ok()?, rest)
        }
        _ => return None,
    };
    let (inner, tail) = rest.split_at_checked(length)?;
    (tail == TAIL).then(|| pickle.slice_ref(inner))
}

/// The pickle with `pickle` in it; `buffers` is the number of its out-of-band buffers.
pub(super) fn guarded(pickle: &Pickle, buffers: usize, form: TaskForm) -> Bytes {
    static TRIPLE: LazyLock<Bytes> = LazyLock::new(|| failing_triple().stream());
    let handler = match form {
        TaskForm::Node => &NODE,
        TaskForm::Triple => &TRIPLE,
    };
    let length = pickle
        .pieces()
        .iter()
        .map(|piece| piece.len())
        .sum::<usize>();
    let mut out = Vec::with_capacity(length + handler.len() + buffers + 192);
    out.extend_from_slice(HEAD);
    if buffers == 0 {
        out.extend_from_slice(LOADS);
    } else {
        // functools.partial(pickle.loads, buffers=[…])
        out.extend_from_slice(
            b"cfunctools\npartial\n(cpickle\nloads\ntR(cpickle\nloads\n)}X\x07\0\0\0buffers](",
        );
        out.resize(out.len() + buffers, NEXT_BUFFER);
        out.extend_from_slice(b"esNtb");
    }
    out.extend_from_slice(handler);
    out.extend_from_slice(MIDDLE);
    match u32::try_from(length) {
        Ok(len) => {
            out.push(b'B');
            out.extend_from_slice(&len.to_le_bytes());
        }
        Err(_) => {
            out.push(BINBYTES8);
            out.extend_from_slice(&(length as u64).to_le_bytes());
        }
    }
    for piece in pickle.pieces() {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(TAIL);
    out.into()
}

const NEXT_BUFFER: u8 = 0x97;
const BINBYTES8: u8 = 0x8e;

/// exception → `RuntimeError(MESSAGE)` with it as its cause.
fn explained() -> Object {
    let runtime_error = Object::global("builtins", "RuntimeError");
    let arguments = Object::Tuple(vec![MESSAGE.into()]);
    Object::partial(
        Object::global("tblib.pickling_support", "unpickle_exception"),
        vec![runtime_error, arguments],
        vec![("tb", Object::None)],
    )
}

fn raise() -> Object {
    Object::global("dask.local", "reraise")
}

/// Functions, the last of which is called first.
fn composed(functions: Vec<Object>) -> Object {
    Object::call(Object::global("toolz.functoolz", "compose"), functions)
}

/// exception → `Task(None, function that raises, exception)`.
fn failing_node() -> Object {
    let function = composed(vec![raise(), explained()]);
    let task = Object::global("dask._task_spec", "Task");
    Object::partial(task, vec![Object::None, function], Vec::new())
}

/// exception → `(reraise, (exception,), {})`.
fn failing_triple() -> Object {
    let each = |functions| Object::call(Object::global("toolz.functoolz", "juxt"), functions);
    let empty = Object::partial(
        Object::call(
            Object::global("builtins", "getattr"),
            vec![Object::global("builtins", "dict"), "fromkeys".into()],
        ),
        vec![Object::Tuple(Vec::new())],
        Vec::new(),
    );
    let rest = each(vec![each(vec![explained()]), empty]);
    let join = Object::partial(
        Object::global("operator", "add"),
        vec![Object::Tuple(vec![raise()])],
        Vec::new(),
    );
    composed(vec![join, rest])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_was_guarded_is_found_again() {
        let pickle = Pickle {
            prefix: Some(Arc::new(Bytes::from_static(b"\x80\x05N0"))),
            body: (*b"K\x01.").into(),
        };
        let whole = guarded(&pickle, 0, TaskForm::Node);
        let inner = unguarded(&whole).expect("found");
        assert_eq!(&inner[..], b"\x80\x05N0K\x01.");
        for other in [
            guarded(&pickle, 1, TaskForm::Node),
            guarded(&pickle, 0, TaskForm::Triple),
            inner,
            whole.slice(..whole.len() - 1),
        ] {
            assert_eq!(unguarded(&other), None);
        }
    }
}
