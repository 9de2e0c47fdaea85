"""What the current thread or coroutine is said to work for: where `get_worker()` and its kin look."""

import contextlib
import contextvars
import threading

import distributed
import distributed.worker
from distributed.metrics import time

# Year, month and so on of the environment's `distributed`.
RELEASE = tuple(int(part) for part in distributed.__version__.split("+")[0].split(".")[:3] if part.isdigit())

thread_state = distributed.worker.thread_state
# Since 2023.7.0 `get_worker()` looks here, before that in `thread_state`.
worker_cvar = getattr(distributed.worker, "_worker_cvar", None) or contextvars.ContextVar("unused")


@contextlib.contextmanager
def inside(worker):
    """Makes `get_worker()` find the worker, in the event loop."""
    token = worker_cvar.set(worker)
    try:
        yield
    finally:
        worker_cvar.reset(token)


@contextlib.contextmanager
def occupying(worker, name):
    """Makes this thread one that works for something that has a name and is not a task."""
    thread = threading.get_ident()
    worker.active_threads[thread] = name
    worker.native.begin_work()
    state = {"start_time": time(), "execution_state": worker.execution_state, "key": name, "actor": True}
    vars(thread_state).update(state)
    try:
        with inside(worker):
            yield
    finally:
        worker.native.end_work()
        worker.active_threads.pop(thread, None)
        for attribute in state:
            vars(thread_state).pop(attribute, None)
