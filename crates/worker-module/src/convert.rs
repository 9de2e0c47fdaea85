//! Between values of the wire and objects of Python.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::{Key, MAX_KEY_DEPTH};
use oxidask_wire::Value;
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_host::interpreter::Run;
use oxidask_worker_host::{Failure, Object};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
};

/// Deepest nesting of annotations that Python is given.
const MAX_DEPTH: usize = 64;

/// A key as Python has it.
pub(crate) fn key_to_py<'py>(py: Python<'py>, key: &Key) -> PyResult<Bound<'py, PyAny>> {
    Ok(match key {
        Key::Str(text) => PyString::new(py, text).into_any(),
        Key::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Key::Int(int) => int.into_pyobject(py)?.into_any(),
        Key::UInt(int) => int.into_pyobject(py)?.into_any(),
        Key::Float(float) => float.into_pyobject(py)?.into_any(),
        Key::Bool(bool) => PyBool::new(py, *bool).to_owned().into_any(),
        Key::None => py.None().into_bound(py),
        Key::Tuple(items) => {
            let items: PyResult<Vec<_>> = items.iter().map(|key| key_to_py(py, key)).collect();
            PyTuple::new(py, items?)?.into_any()
        }
    })
}

/// A key from Python.
pub(crate) fn key_from_py(key: &Bound<'_, PyAny>) -> PyResult<Key> {
    key_at(key, 0)
}

fn key_at(key: &Bound<'_, PyAny>, depth: usize) -> PyResult<Key> {
    if depth > MAX_KEY_DEPTH {
        return Err(PyValueError::new_err("a key is nested too deeply"));
    }
    if let Ok(text) = key.cast::<PyString>() {
        return Ok(Key::Str(text.to_cow()?.as_ref().into()));
    }
    if let Ok(items) = key.cast::<PyTuple>() {
        let items: PyResult<Vec<Key>> = items.iter().map(|key| key_at(&key, depth + 1)).collect();
        return Ok(Key::Tuple(items?.into()));
    }
    if let Ok(bool) = key.cast::<PyBool>() {
        return Ok(Key::Bool(bool.is_true()));
    }
    if key.cast::<PyInt>().is_ok() {
        let small = key.extract::<i64>().map(Key::Int);
        return small.or_else(|_| key.extract::<u64>().map(Key::UInt));
    }
    if key.cast::<PyFloat>().is_ok() {
        return key.extract().map(Key::Float);
    }
    if let Ok(bytes) = key.cast::<PyBytes>() {
        return Ok(Key::Bytes(bytes.as_bytes().into()));
    }
    if key.is_none() {
        return Ok(Key::None);
    }
    Err(PyTypeError::new_err(
        "not a key: neither str, bytes, int, float nor tuple",
    ))
}

/// A value without payloads; what is nested deeper than anybody does is None.
pub(crate) fn value_to_py<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    value_at(py, value, 0)
}

fn value_at<'py>(py: Python<'py>, value: &Value, depth: usize) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Array(items) if depth < MAX_DEPTH => {
            let items: PyResult<Vec<_>> =
                items.iter().map(|v| value_at(py, v, depth + 1)).collect();
            PyTuple::new(py, items?)?.into_any()
        }
        Value::Map(entries) if depth < MAX_DEPTH => {
            let dict = PyDict::new(py);
            for (key, value) in entries {
                dict.set_item(
                    value_at(py, key, depth + 1)?,
                    value_at(py, value, depth + 1)?,
                )?;
            }
            dict.into_any()
        }
        Value::Str(text) => PyString::new(py, text).into_any(),
        Value::Bin(bytes) => PyBytes::new(py, bytes).into_any(),
        Value::Int(int) => int.into_pyobject(py)?.into_any(),
        Value::UInt(int) => int.into_pyobject(py)?.into_any(),
        Value::Float(float) => float.into_pyobject(py)?.into_any(),
        Value::Bool(bool) => PyBool::new(py, *bool).to_owned().into_any(),
        Value::Nil | Value::Payload(_) | Value::Array(_) | Value::Map(_) => {
            py.None().into_bound(py)
        }
    })
}

/// Frames of a message: the first as bytes, the others in memory that objects may write to.
pub(crate) fn frames_to_py<'py>(py: Python<'py>, frames: &[Bytes]) -> PyResult<Bound<'py, PyList>> {
    let frames = frames.iter().enumerate().map(|(at, frame)| match at {
        0 => PyBytes::new(py, frame).into_any(),
        _ => PyByteArray::new(py, frame).into_any(),
    });
    PyList::new(py, frames.collect::<Vec<_>>())
}

/// Frames that Python made, which must be `bytes`; they are not copied.
pub(crate) fn frames_from_py(frames: &Bound<'_, PyAny>) -> PyResult<Vec<Bytes>> {
    let frames = frames.try_iter()?;
    let shared = frames.map(|frame| frame?.extract::<PyBackedBytes>().map_err(PyErr::from));
    shared.map(|bytes| Ok(Bytes::from_owner(bytes?))).collect()
}

/// An object for the store.
pub(crate) fn object(value: Bound<'_, PyAny>, typename: &str, type_pickle: &[u8]) -> Object {
    Object {
        value: Opaque::new(value.unbind()),
        typename: Arc::from(typename),
        type_pickle: Bytes::copy_from_slice(type_pickle),
    }
}

/// The object of Python in the store.
pub(crate) fn held<'py>(py: Python<'py>, object: &Object) -> PyResult<Bound<'py, PyAny>> {
    let value = object.value.get::<Py<PyAny>>();
    let value = value.ok_or_else(|| PyTypeError::new_err("not an object of Python"))?;
    Ok(value.bind(py).clone())
}

/// `("error", exception, traceback, exception_text, traceback_text, start, stop, thread)`.
pub(crate) fn failure(tuple: &Bound<'_, PyTuple>) -> PyResult<Failure> {
    type Fields<'py> = (
        String,
        Bound<'py, PyBytes>,
        Option<Bound<'py, PyBytes>>,
        String,
        String,
        Option<f64>,
        Option<f64>,
        u64,
    );
    let (_, exception, traceback, exception_text, traceback_text, start, stop, thread): Fields<'_> =
        tuple.extract()?;
    let run = start.zip(stop).map(|(start, stop)| Run {
        start,
        stop,
        thread: Some(thread),
    });
    Ok(Failure {
        exception: Bytes::copy_from_slice(exception.as_bytes()),
        traceback: traceback.map(|traceback| Bytes::copy_from_slice(traceback.as_bytes())),
        exception_text,
        traceback_text,
        run,
    })
}
