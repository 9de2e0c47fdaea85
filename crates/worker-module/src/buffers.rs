//! Memory that Python and the sockets share, so that large data is copied by the kernel alone: frames are
//! written from where objects have them ([`lend`]), and objects are made in the memory that frames were
//! read into ([`take_over`]).
//!
//! The buffer protocol is part of the limited API only since 3.11, but its functions and the layout of
//! `Py_buffer` are the same in every CPython from 3.3 on, so they are declared here.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView, PySlice};

use crate::jobs::{Job, Jobs};

/// Messages below this many bytes are copied: cheaper, and nothing small keeps something large alive.
const LARGE: usize = 256 << 10;
/// Objects below this many bytes are copied while the interpreter is held.
const LENT_FROM: usize = 64 << 10;

/// `Py_buffer`.
#[repr(C)]
struct RawBuffer {
    start: *mut c_void,
    owner: *mut ffi::PyObject,
    length: isize,
    item_size: isize,
    read_only: c_int,
    dimensions: c_int,
    format: *mut c_char,
    shape: *mut isize,
    strides: *mut isize,
    suboffsets: *mut isize,
    internal: *mut c_void,
}

unsafe extern "C" {
    fn PyObject_GetBuffer(object: *mut ffi::PyObject, view: *mut RawBuffer, flags: c_int) -> c_int;
    fn PyBuffer_Release(view: *mut RawBuffer);
    fn PyBuffer_FillInfo(
        view: *mut RawBuffer,
        owner: *mut ffi::PyObject,
        start: *mut c_void,
        length: isize,
        read_only: c_int,
        flags: c_int,
    ) -> c_int;
}

/// Contiguous bytes, writable or not.
const SIMPLE: c_int = 0;
/// Slot of a type: `Py_bf_getbuffer`.
const GET_BUFFER: c_int = 1;

/// A buffer that an object has exported. Dropping it without [`Lent::give_back`] leaves the object's
/// memory locked for good, which is safe.
pub(crate) struct Lent(Box<RawBuffer>);

// SAFETY: the exporter keeps the memory where it is until the buffer is released, which needs the
// interpreter's lock and is done in `give_back` alone.
unsafe impl Send for Lent {}
// SAFETY: as above; nothing is changed through it.
unsafe impl Sync for Lent {}

impl Lent {
    fn of(object: &Bound<'_, PyAny>) -> Option<Self> {
        let mut raw = Box::new(RawBuffer {
            start: ptr::null_mut(),
            owner: ptr::null_mut(),
            length: 0,
            item_size: 0,
            read_only: 0,
            dimensions: 0,
            format: ptr::null_mut(),
            shape: ptr::null_mut(),
            strides: ptr::null_mut(),
            suboffsets: ptr::null_mut(),
            internal: ptr::null_mut(),
        });
        // SAFETY: the object is alive and the interpreter held, as `object` shows; `raw` is a `Py_buffer`
        // and does not move until it is released.
        let failed = unsafe { PyObject_GetBuffer(object.as_ptr(), &raw mut *raw, SIMPLE) } != 0;
        if failed {
            drop(PyErr::take(object.py()));
            return None;
        }
        Some(Self(raw))
    }

    fn bytes(&self) -> &[u8] {
        let length = usize::try_from(self.0.length).unwrap_or(0);
        if length == 0 || self.0.start.is_null() {
            return &[];
        }
        // SAFETY: the exporter guarantees `length` bytes there until the release. A task that changes its
        // own input while that is sent makes the receiver's copy a mixture, as with stock's worker: the
        // bytes go to the kernel, nothing here depends on what they are.
        unsafe { std::slice::from_raw_parts(self.0.start.cast::<u8>(), length) }
    }

    /// Unlocks the object's memory.
    pub(crate) fn give_back(mut self, _py: Python<'_>) {
        // SAFETY: the interpreter is held; the buffer was got in `of` and is not used any more.
        unsafe { PyBuffer_Release(&raw mut *self.0) }
    }
}

/// Gives the buffer back on a thread that holds the interpreter, from wherever it is dropped.
struct OnLoan {
    lent: Option<Lent>,
    jobs: Arc<Jobs>,
}

impl AsRef<[u8]> for OnLoan {
    fn as_ref(&self) -> &[u8] {
        self.lent.as_ref().map_or(&[], Lent::bytes)
    }
}

impl Drop for OnLoan {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take() {
            self.jobs.service.push(Job::GiveBack(lent));
        }
    }
}

/// A frame that Python made: anything with contiguous memory. Large ones are not copied.
///
/// # Errors
/// The object has no such memory.
pub(crate) fn lend(frame: &Bound<'_, PyAny>, jobs: &Arc<Jobs>) -> PyResult<Bytes> {
    let Some(lent) = Lent::of(frame) else {
        // What is not contiguous is made so.
        let copied = frame.py().get_type::<PyBytes>().call1((frame,))?;
        return Ok(Bytes::copy_from_slice(copied.cast::<PyBytes>()?.as_bytes()));
    };
    if lent.bytes().len() < LENT_FROM {
        let copied = Bytes::copy_from_slice(lent.bytes());
        lent.give_back(frame.py());
        return Ok(copied);
    }
    Ok(Bytes::from_owner(OnLoan {
        lent: Some(lent),
        jobs: Arc::clone(jobs),
    }))
}

/// An object of Python whose buffer is memory of ours, writable.
#[repr(C)]
struct Memory {
    base: ffi::PyObject,
    start: *mut u8,
    length: isize,
    /// Keeps the memory.
    frames: *mut Vec<Bytes>,
}

/// # Safety
/// Called by Python alone, with an object of this type whose last reference is gone.
unsafe extern "C" fn deallocate(object: *mut ffi::PyObject) {
    // SAFETY: `object` is a `Memory` made in `memory_of`, which has set `frames` once; nobody else frees
    // it. Instances of heap types hold a reference to their type.
    unsafe {
        let kind = ffi::Py_TYPE(object);
        let frames = (*object.cast::<Memory>()).frames;
        if !frames.is_null() {
            drop(Box::from_raw(frames));
        }
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

/// # Safety
/// Called by Python alone, with an object of this type.
unsafe extern "C" fn export(
    object: *mut ffi::PyObject,
    view: *mut RawBuffer,
    flags: c_int,
) -> c_int {
    // SAFETY: `object` is a `Memory`, whose memory stays for as long as the object, which the view keeps.
    unsafe {
        let memory = object.cast::<Memory>();
        let (start, length) = ((*memory).start.cast::<c_void>(), (*memory).length);
        PyBuffer_FillInfo(view, object, start, length, 0, flags)
    }
}

fn memory_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static TYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = TYPE.get_or_try_init(py, || {
        let slot = |slot, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
        let mut slots = [
            slot(ffi::Py_tp_dealloc, deallocate as *mut c_void),
            slot(GET_BUFFER, export as *mut c_void),
            slot(0, ptr::null_mut()),
        ];
        let mut spec = ffi::PyType_Spec {
            name: c"oxidask_worker.Memory".as_ptr(),
            basicsize: c_int::try_from(size_of::<Memory>()).unwrap_or(c_int::MAX),
            itemsize: 0,
            flags: u32::try_from(ffi::Py_TPFLAGS_DEFAULT).unwrap_or(0),
            slots: slots.as_mut_ptr(),
        };
        // SAFETY: the slots are functions of the right kinds for a type of that size, and end with zero;
        // Python copies what it keeps of them.
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec)) }
            .map(Bound::unbind)
    })?;
    Ok(made.bind(py))
}

/// An object whose buffer are frames that lie one behind the other in memory, not empty.
fn memory_of(py: Python<'_>, frames: Vec<Bytes>) -> PyResult<Bound<'_, PyAny>> {
    let start = frames.first().map_or(ptr::null(), |frame| frame.as_ptr());
    let length = frames.iter().map(Bytes::len).sum::<usize>();
    let length = isize::try_from(length).map_err(|_| PyMemoryError::new_err("too large"))?;
    let kind = memory_type(py)?;
    // SAFETY: `kind` is the type whose instances are `Memory`; what is allocated is zeroed.
    let made = unsafe {
        Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(kind.as_ptr().cast(), 0))
    }?;
    let memory = made.as_ptr().cast::<Memory>();
    // SAFETY: it is a fresh `Memory` that nobody else has seen.
    unsafe {
        (*memory).start = start.cast_mut();
        (*memory).length = length;
        (*memory).frames = Box::into_raw(Box::new(frames));
    }
    Ok(made)
}

/// Frames of a message that was read from a socket, for Python to build objects in: the first as bytes,
/// the others writable. Nobody else may look at the frames any more.
///
/// Frames that lie one behind the other are parts of one buffer, which the environment joins without
/// copying where it has split something large.
pub(crate) fn take_over(py: Python<'_>, frames: Vec<Bytes>) -> PyResult<Bound<'_, PyList>> {
    let copied = |frame: &Bytes| PyByteArray::new(py, frame).into_any();
    let list = PyList::empty(py);
    let large = frames.iter().skip(1).map(Bytes::len).sum::<usize>() >= LARGE;
    let mut frames = frames.into_iter();
    if let Some(first) = frames.next() {
        list.append(PyBytes::new(py, &first))?;
    }
    let mut run: Vec<Bytes> = Vec::new();
    for frame in frames {
        if !large || frame.is_empty() {
            append(&list, std::mem::take(&mut run))?;
            list.append(copied(&frame))?;
            continue;
        }
        let end = run.last().map(|last| last.as_ptr_range().end);
        if end.is_some_and(|end| end != frame.as_ptr()) {
            append(&list, std::mem::take(&mut run))?;
        }
        run.push(frame);
    }
    append(&list, run)?;
    Ok(list)
}

/// Appends a view of each of these frames, which lie one behind the other.
fn append(list: &Bound<'_, PyList>, run: Vec<Bytes>) -> PyResult<()> {
    if run.is_empty() {
        return Ok(());
    }
    let py = list.py();
    let lengths: Vec<isize> = run
        .iter()
        .map(|frame| isize::try_from(frame.len()).unwrap_or(isize::MAX))
        .collect();
    let whole = PyMemoryView::from(&memory_of(py, run)?)?;
    let mut at = 0;
    for length in lengths {
        list.append(whole.get_item(PySlice::new(py, at, at + length, 1))?)?;
        at += length;
    }
    Ok(())
}
