"""Running tasks, on threads that do nothing else. What a run spec is depends on the release of the environment.

These functions are compiled under the file name of stock's worker, so that the environment's own rules for cutting
tracebacks and profiles at the user's code hold for them, too.
"""

import asyncio
import contextvars
import inspect
import pickle
import threading

import distributed.core
import distributed.worker
from dask.utils import typename
from distributed import protocol
from distributed.metrics import time
from distributed.sizeof import sizeof

try:
    from distributed.sizeof import safe_sizeof
except ImportError:
    safe_sizeof = sizeof

try:
    from distributed import Reschedule
except ImportError:
    from distributed.worker import Reschedule

thread_state = distributed.worker.thread_state
# Since 2026.x `get_worker()` looks here, before that in `thread_state`.
worker_cvar = getattr(distributed.worker, "_worker_cvar", None) or contextvars.ContextVar("unused")

# Held while user data is unpickled, as if one thread did it, like in stock: an import that one thread has not finished
# is no module to another yet, and pickle does not wait for the packages around it.
loading = threading.RLock()

# Pickles of types that results had, of which there are few.
_types = {}


def described(value):
    """Name and pickle of the type of a value."""
    cls = type(value)
    try:
        return _types[cls]
    except KeyError:
        pass
    try:
        pickled = protocol.pickle.dumps(cls)
    except Exception:
        pickled = protocol.pickle.dumps(cls.__name__)
    if len(_types) >= 1000:
        _types.clear()
    found = _types[cls] = (typename(cls), pickled)
    return found


def failure(exception, start=None, stop=None):
    """What the scheduler is told of an exception that is being handled."""
    message = distributed.core.error_message(exception)
    pickled = _bytes(message["exception"])
    traceback = message.get("traceback")
    # Releases before 2021.08 have no texts.
    text = message.get("exception_text") or repr(exception)
    return (
        "error",
        pickled,
        None if traceback is None else _bytes(traceback),
        text,
        message.get("traceback_text") or "",
        start,
        stop,
        threading.get_ident(),
    )


def _bytes(error):
    error = getattr(error, "data", error)
    return error if isinstance(error, bytes) else pickle.dumps(error, protocol=4)


def success(value, start, stop):
    name, pickled = described(value)
    return ("ok", value, int(safe_sizeof(value)), name, pickled, start, stop, threading.get_ident())


def load_node(pickled, buffers):
    """A task of releases since 2023.8.1 as a function of its inputs, and whether that is a coroutine function."""
    with loading:
        node = protocol.pickle.loads(pickled, buffers=buffers)
    if callable(node) and hasattr(node, "dependencies"):
        return node, bool(getattr(node, "is_coro", False))
    if isinstance(node, tuple) and len(node) == 3:
        return _packed(*node)
    raise TypeError(f"a run spec of type {typename(type(node))} is not supported by the native worker")


def load_parts(frames):
    """A task of releases up to 2023.8.0: function, arguments and keyword arguments, or one serialised object."""
    with loading:
        message = protocol.loads(frames)
        run_spec = message.get("run_spec", message.get("task", distributed.worker.no_value))
        if isinstance(run_spec, dict) and "function" in run_spec:
            message, run_spec = run_spec, distributed.worker.no_value
        parts = distributed.worker._deserialize(
            message.get("function"), message.get("args"), message.get("kwargs"), run_spec
        )
    return _packed(*parts)


def _packed(function, args, kwargs):
    from distributed.utils_comm import pack_data

    def call(inputs):
        types = (bytes, str, tuple)
        return function(
            *pack_data(args or (), inputs, key_types=types), **pack_data(kwargs or {}, inputs, key_types=types)
        )

    return call, inspect.iscoroutinefunction(function)


class Runner:
    """Runs one task after the other for `Native.run_one`; shared by all threads."""

    def __init__(self, worker):
        self.worker = worker

    def run(self, attempt, key, pickled, buffers, parts, inputs, annotations):
        """What became of the task; None if that is told later, with `Native.finish`."""
        worker = self.worker
        thread_state.start_time = time()
        thread_state.execution_state = worker.execution_state
        thread_state.key = key
        worker.attempts[key] = attempt
        thread = threading.get_ident()
        worker.active_threads[thread] = key
        token = worker_cvar.set(worker)
        try:
            return self._run(attempt, pickled, buffers, parts, inputs, annotations)
        except (SystemExit, KeyboardInterrupt) as exception:
            worker.native.close(f"a task raised {exception!r}")
            return failure(exception)
        finally:
            worker_cvar.reset(token)
            worker.active_threads.pop(thread, None)
            if worker.attempts.get(key) == attempt:
                del worker.attempts[key]
            del thread_state.start_time, thread_state.execution_state, thread_state.key

    def _run(self, attempt, pickled, buffers, parts, inputs, annotations):
        start = time()
        try:
            executor = (annotations or {}).get("executor", "default")
            if executor != "default":
                raise NotImplementedError(
                    f"the native worker has no executor {executor!r} yet; its only one is 'default'"
                )
            call, is_coroutine = load_parts(parts) if pickled is None else load_node(pickled, buffers)
            if is_coroutine:
                asyncio.run_coroutine_threadsafe(self._run_async(attempt, call, inputs), self.worker.asyncio_loop)
                return None
            start = time()
            value = call(inputs)
            stop = time()
            return success(value, start, stop)
        except (SystemExit, KeyboardInterrupt):
            raise
        except Reschedule:
            return ("reschedule",)
        except BaseException as exception:
            return failure(exception, start, time())

    async def _run_async(self, attempt, call, inputs):
        start = time()
        token = worker_cvar.set(self.worker)
        try:
            value = await call(inputs)
            outcome = success(value, start, time())
        except Reschedule:
            outcome = ("reschedule",)
        except BaseException as exception:
            outcome = failure(exception, start, time())
        finally:
            worker_cvar.reset(token)
        self.worker.native.finish(attempt, outcome)
