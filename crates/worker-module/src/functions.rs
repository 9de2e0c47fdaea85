//! What many run specs have in common, the function of a map above all, is unpickled once. Our scheduler
//! puts it in front of each of them (`oxidask_graph::pickle::prefix`).

use std::sync::Arc;

use bytes::Bytes;
use oxidask_graph::calls::{Call, Layout, MODULE, Role, read};
use oxidask_graph::pickle::prefix::{common_prefix, references};
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyType};

/// Most prefixes that are kept, those used last.
const MAX_KNOWN: usize = 64;
/// Longest one that is kept, in bytes.
const MAX_LENGTH: usize = 1 << 20;
/// Most objects of it that a run spec may refer to.
const MAX_REFERENCES: usize = 8;
/// A pickle's beginning.
const PROTO: &[u8] = b"\x80\x05";

/// See the module's head.
pub(crate) struct Functions {
    /// `pickle.Unpickler` and `io.BytesIO`.
    unpickler: Py<PyAny>,
    bytes_io: Py<PyAny>,
    /// Types of objects that several tasks may be given as one: functions, and what can not change.
    shareable: Vec<Py<PyType>>,
    /// `dask._task_spec.Task` and `TaskRef`, if there are any.
    classes: Option<[Py<PyAny>; 2]>,
    layout: Option<Layout>,
    /// Whether a function is one of a coroutine, by the environment's rules.
    is_coroutine: Py<PyAny>,
    known: Mutex<Vec<Arc<Known>>>,
}

/// A prefix and what it left in the memo.
pub(crate) struct Known {
    prefix: Bytes,
    /// By slot.
    roles: Vec<Role>,
    /// By slot, if it may be shared.
    objects: Vec<Option<Py<PyAny>>>,
    layout: Option<Layout>,
    /// The latest pickle that stands in the place of the prefix, and the slots it fills.
    stub: Mutex<(Vec<u32>, Bytes)>,
}

impl Known {
    /// By slot, if it may be shared.
    pub(crate) fn objects(&self) -> &[Option<Py<PyAny>>] {
        &self.objects
    }

    fn body<'a>(&self, pickle: &'a [u8]) -> &'a [u8] {
        pickle.get(self.prefix.len()..).unwrap_or_default()
    }

    /// The call that a pickle with this prefix is; nothing if it is something else.
    pub(crate) fn call<'a>(&self, pickle: &'a [u8]) -> Option<Call<'a>> {
        read(self.body(pickle), &self.roles, self.layout.as_ref()?)
    }

    fn shared(&self, slot: u32) -> Option<&Py<PyAny>> {
        self.objects.get(slot as usize)?.as_ref()
    }

    /// A pickle that fills these slots with what is asked for by their numbers (`persistent_load`), and the
    /// others with None: the body's own slots follow them.
    fn stub(&self, slots: &[u32]) -> Bytes {
        let mut latest = self.stub.lock();
        if latest.0 != slots || latest.1.is_empty() {
            let mut stub = Vec::from(PROTO);
            for slot in 0..u32::try_from(self.roles.len()).unwrap_or(0) {
                if slots.contains(&slot) {
                    stub.push(b'J');
                    stub.extend(slot.to_le_bytes());
                    stub.extend(b"Q\x940");
                } else {
                    stub.extend(b"N\x940");
                }
            }
            *latest = (slots.to_vec(), stub.into());
        }
        latest.1.clone()
    }
}

impl Functions {
    /// `parts`: what `tasks.Runner.native` gives.
    pub(crate) fn new(parts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let types = parts.get_item("shareable")?.try_iter()?;
        let types = types.map(|kind| Ok(kind?.cast::<PyType>()?.clone().unbind()));
        let classes: Option<[Bound<'_, PyAny>; 2]> = parts.get_item("task_classes")?.extract()?;
        let fields: Vec<String> = parts.get_item("task_fields")?.extract()?;
        Ok(Self {
            classes: classes.map(|classes| classes.map(Bound::unbind)),
            layout: Layout::new(&fields),
            is_coroutine: parts.get_item("is_coroutine")?.unbind(),
            unpickler: parts.get_item("unpickler")?.unbind(),
            bytes_io: parts.get_item("bytes_io")?.unbind(),
            shareable: types.collect::<PyResult<_>>()?,
            known: Mutex::default(),
        })
    }

    /// The object of a pickle with a known prefix. Nothing if it has no part that may be shared: it is to be
    /// loaded as usual.
    ///
    /// # Errors
    /// What unpickling raises.
    pub(crate) fn load<'py>(
        &self,
        py: Python<'py>,
        known: &Known,
        pickle: &[u8],
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let body = known.body(pickle);
        let mut slots = Vec::new();
        let count = u32::try_from(known.roles.len()).unwrap_or(0);
        let all_shared = references(body, count, |slot| {
            if !slots.contains(&slot) {
                slots.push(slot);
            }
            known.shared(slot).is_some() && slots.len() <= MAX_REFERENCES
        });
        if !all_shared || slots.is_empty() {
            return Ok(None);
        }
        let unpickler = self.unpickler_of(py, &[&known.stub(&slots), body].concat())?;
        let shared = PyDict::new(py);
        for &slot in &slots {
            shared.set_item(slot, known.shared(slot))?;
        }
        let get = shared.getattr(intern!(py, "__getitem__"))?;
        unpickler.setattr(intern!(py, "persistent_load"), get)?;
        unpickler.call_method0(intern!(py, "load")).map(Some)
    }

    /// What is known of a pickle's prefix.
    pub(crate) fn find(&self, pickle: &[u8]) -> Option<Arc<Known>> {
        let mut known = self.known.lock();
        let at = known.iter().position(|k| pickle.starts_with(&k.prefix))?;
        known.get_mut(..=at)?.rotate_right(1);
        known.first().map(Arc::clone)
    }

    /// Unpickles the prefix, if there is one.
    ///
    /// # Errors
    /// What unpickling raises.
    pub(crate) fn learn(&self, py: Python<'_>, pickle: &[u8]) -> PyResult<Option<Arc<Known>>> {
        let Some(common) = common_prefix(pickle).filter(|c| c.length <= MAX_LENGTH) else {
            return Ok(None);
        };
        let prefix = pickle.get(..common.length).unwrap_or_default();
        // Something must be on the stack at the end of a pickle.
        let unpickler = self.unpickler_of(py, &[prefix, b"N."].concat())?;
        unpickler.call_method0(intern!(py, "load"))?;
        let objects = unpickler.getattr(intern!(py, "memo"))?;
        let objects = objects.call_method0(intern!(py, "copy"))?;
        let (mut roles, mut by_slot) = (Vec::new(), Vec::new());
        for slot in 0..common.slots {
            let object = objects.get_item(slot)?;
            let role = self.role(&object)?;
            roles.push(role);
            by_slot.push((role != Role::Nothing).then(|| object.unbind()));
        }
        let learnt = Arc::new(Known {
            // Not a part of the pickle: that would keep all of the message it came in.
            prefix: Bytes::copy_from_slice(prefix),
            roles,
            objects: by_slot,
            layout: self.layout,
            stub: Mutex::default(),
        });
        let mut known = self.known.lock();
        known.truncate(MAX_KNOWN - 1);
        known.insert(0, Arc::clone(&learnt));
        Ok(Some(learnt))
    }

    fn role(&self, object: &Bound<'_, PyAny>) -> PyResult<Role> {
        let py = object.py();
        if let Some([task, reference]) = &self.classes {
            if object.is(task.bind(py)) {
                return Ok(Role::Task);
            }
            if object.is(reference.bind(py)) {
                return Ok(Role::TaskRef);
            }
        }
        if let Ok(text) = object.cast_exact::<PyString>()
            && *text == MODULE
        {
            return Ok(Role::Module);
        }
        let kind = object.get_type();
        let is_class = object.is_instance_of::<PyType>();
        if !is_class && !self.shareable.iter().any(|known| kind.is(known)) {
            return Ok(Role::Nothing);
        }
        let is_function = object.is_callable() && {
            let coroutine = self.is_coroutine.bind(py).call1((object,))?;
            !coroutine.is_truthy()?
        };
        Ok(if is_function {
            Role::Function
        } else {
            Role::Value
        })
    }

    fn unpickler_of<'py>(&self, py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let file = self.bytes_io.bind(py).call1((PyBytes::new(py, pickle),))?;
        self.unpickler.bind(py).call1((file,))
    }
}
