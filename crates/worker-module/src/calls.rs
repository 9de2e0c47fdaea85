//! The arguments of a call that `oxidask_graph::calls` has read, as objects of Python.

use oxidask_graph::calls::{Call, Item};
use oxidask_key::Key;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyString, PyTuple};

/// Arguments by place and by name.
pub(crate) type Arguments<'py> = (Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>);

/// The arguments of a call. `shared`: by slot what it refers to; `keys`: those of the results it is given, in
/// the order of `inputs`. Nothing if one of them is not to be had here.
pub(crate) fn arguments<'py, 'k>(
    py: Python<'py>,
    call: &Call<'_>,
    shared: &[Option<Py<PyAny>>],
    keys: impl Iterator<Item = &'k Key> + Clone,
    inputs: &[Bound<'py, PyAny>],
) -> PyResult<Option<Arguments<'py>>> {
    let argument = |item: &Item<'_>| match item {
        Item::Input(key) => {
            let at = keys.clone().position(|known| key.is_key(known));
            Ok(at.and_then(|at| inputs.get(at)).cloned())
        }
        other => object(py, other, shared),
    };
    let args: PyResult<Option<Vec<_>>> = call.args.iter().map(argument).collect();
    let named: PyResult<Option<Vec<_>>> = call.named.iter().map(argument).collect();
    let (Some(args), Some(named)) = (args?, named?) else {
        return Ok(None);
    };
    let named = match named.is_empty() {
        true => None,
        false => Some(dict(py, &named)?),
    };
    Ok(Some((PyTuple::new(py, args)?, named)))
}

/// The object of Python. Nothing for what is none of a plain value.
fn object<'py>(
    py: Python<'py>,
    item: &Item<'_>,
    shared: &[Option<Py<PyAny>>],
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let items = |items: &[Item<'_>]| -> PyResult<Option<Vec<_>>> {
        items.iter().map(|item| object(py, item, shared)).collect()
    };
    Ok(match item {
        Item::None => Some(py.None().into_bound(py)),
        Item::Bool(bool) => Some(PyBool::new(py, *bool).to_owned().into_any()),
        Item::Int(int) => Some(int.into_pyobject(py)?.into_any()),
        Item::Float(float) => Some(float.into_pyobject(py)?.into_any()),
        Item::Text(text) => Some(PyString::new(py, text).into_any()),
        Item::Bytes(bytes) => Some(PyBytes::new(py, bytes).into_any()),
        Item::Shared(slot) => {
            let object = shared.get(*slot as usize).and_then(Option::as_ref);
            object.map(|object| object.bind(py).clone())
        }
        Item::Tuple(nested) => match items(nested.items())? {
            Some(items) => Some(PyTuple::new(py, items)?.into_any()),
            None => None,
        },
        Item::List(nested) => match items(nested.items())? {
            Some(items) => Some(PyList::new(py, items)?.into_any()),
            None => None,
        },
        Item::Dict(nested) => match items(nested.items())? {
            Some(items) => Some(dict(py, &items)?.into_any()),
            None => None,
        },
        Item::Dependencies
        | Item::TaskRefClass
        | Item::TaskClass
        | Item::Input(_)
        | Item::Blank
        | Item::Call(_) => None,
    })
}

fn dict<'py>(py: Python<'py>, items: &[Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for pair in items.chunks_exact(2) {
        if let [key, value] = pair {
            dict.set_item(key, value)?;
        }
    }
    Ok(dict)
}
