"""Running tasks, on threads that do nothing else. What a run spec is depends on the release of the environment.

These functions are compiled under the file name of stock's worker, so that the environment's own rules for cutting
tracebacks and profiles at the user's code hold for them, too.
"""

import asyncio
import inspect
import io
import pickle
import sys
import threading
import types

import distributed.core
import distributed.threadpoolexecutor
import distributed.worker
from dask.utils import typename
from distributed import protocol
from distributed.metrics import time
from distributed.sizeof import sizeof
from distributed.utils import iscoroutinefunction
from distributed.utils_comm import pack_data

from oxidask_worker.actors import StoredActor, with_proxies
from oxidask_worker.context import inside, thread_state, worker_cvar

try:
    from distributed.sizeof import safe_sizeof
except ImportError:
    safe_sizeof = sizeof

try:
    from distributed import Reschedule
except ImportError:
    from distributed.worker import Reschedule

try:
    from dask._task_spec import Task, TaskRef

    # What a task's state has, in this order.
    TASK_FIELDS = list(Task.get_all_slots())
except (ImportError, AttributeError):
    TASK_FIELDS = []

# What `secede` looks at is not the state above.
pool_state = distributed.threadpoolexecutor.thread_state

# What stands for no task where `None` would be one.
NO_VALUE = getattr(distributed.worker, "NO_VALUE", None) or getattr(distributed.worker, "no_value", None)

# What tasks with the same function are given as one object.
SHAREABLE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    type(None),
    bool,
    int,
    float,
    str,
    bytes,
)

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


def described_to_native(value):
    """The same, and whether its size is what the interpreter says."""
    return (*described(value), sizeof.dispatch(type(value)) is sizeof.dispatch(object))


def sized(value):
    """Size in bytes by the environment's rules."""
    return int(safe_sizeof(value))


def failure(exception, start=None, stop=None):
    """What the scheduler is told of an exception that is being handled."""
    return failure_of(distributed.core.error_message(exception), exception, start, stop, threading.get_ident())


def failure_of(message, exception, start, stop, thread):
    """The same, of an exception that `error_message` has described."""
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
        thread,
    )


def _bytes(error):
    error = getattr(error, "data", error)
    return error if isinstance(error, bytes) else protocol.pickle.dumps(error)


def success(value, start, stop):
    name, pickled = described(value)
    return ("ok", value, int(safe_sizeof(value)), name, pickled, start, stop, threading.get_ident())


def load_node(pickled, buffers):
    """A task of releases since 2023.8.1 as a function of its inputs, and whether that is a coroutine function."""
    with loading:
        node = protocol.pickle.loads(pickled, buffers=buffers)
    return node_of(node)


def node_of(node):
    """What `load_node` says, of a run spec that is loaded."""
    if callable(node) and hasattr(node, "dependencies"):
        return node, bool(getattr(node, "is_coro", False))
    if isinstance(node, tuple) and len(node) == 3:
        return _packed(*node)
    raise TypeError(f"a run spec of type {typename(type(node))} is not supported by the native worker")


def load_parts(frames):
    """A task of releases up to 2023.8.0 as a function of its inputs."""
    return _packed(*load_call(frames))


def load_call(frames):
    """A task of releases up to 2023.8.0: function, arguments and keyword arguments, or one serialised object."""
    with loading:
        message = protocol.loads(frames)
        run_spec = message.get("run_spec", message.get("task", NO_VALUE))
        if isinstance(run_spec, dict) and "function" in run_spec:
            message, run_spec = run_spec, NO_VALUE
        return distributed.worker._deserialize(
            message.get("function"), message.get("args"), message.get("kwargs"), run_spec
        )


def filled(args, kwargs, inputs):
    """Arguments with the inputs in the place of their keys."""
    types = (bytes, str, tuple)
    return pack_data(args or (), inputs, key_types=types), pack_data(kwargs or {}, inputs, key_types=types)


def _packed(function, args, kwargs):
    def call(inputs):
        words, named = filled(args, kwargs, inputs)
        return function(*words, **named)

    return call, inspect.iscoroutinefunction(function)


def elsewhere(pickled, buffers, parts, inputs):
    """The words for an executor that is another process: a function of the environment's, which it can import."""
    if pickled is not None:
        with loading:
            node = protocol.pickle.loads(pickled, buffers=buffers)
        if hasattr(node, "dependencies"):
            return distributed.worker._run_task_simple, node, inputs, 0
        function, args, kwargs = node
    else:
        function, args, kwargs = load_call(parts)
    args, kwargs = filled(args, kwargs, inputs)
    return distributed.worker.apply_function_simple, function, args, kwargs, 0


def outcome_of(message):
    """What `elsewhere` returned, as `Native.finish` takes it."""
    times = message["start"], message["stop"]
    if message["op"] == "task-finished":
        return success(message["result"], *times)
    exception = message["actual_exception"]
    if isinstance(exception, Reschedule):
        return ("reschedule",)
    return failure_of(message, exception, *times, message["thread"])


def work(executor, worker):
    """What a thread for tasks does, for life. Traces of user code and profiles end at this function."""
    pool_state.proceed = True
    pool_state.executor = executor
    worker_cvar.set(worker)
    while pool_state.proceed:
        with executor._rejoin_lock:
            if executor._rejoin_list:
                # One that has seceded comes back, in the place of this one.
                thread, event = executor._rejoin_list.pop()
                executor._threads.add(thread)
                executor._threads.discard(threading.current_thread())
                event.set()
                return
        if not worker.native.run_one():
            return


class Runner:
    """Runs one task after the other for `Native.run_one`; shared by all threads."""

    def __init__(self, worker):
        self.worker = worker

    def native(self):
        """What `Native` needs to run ordinary tasks without us."""
        return {
            "loads": pickle.loads,
            "unpickler": pickle.Unpickler,
            "bytes_io": io.BytesIO,
            "shareable": SHAREABLE,
            "task_classes": (Task, TaskRef) if TASK_FIELDS else None,
            "task_fields": TASK_FIELDS,
            "is_coroutine": iscoroutinefunction,
            "loading": loading,
            "thread_state": thread_state,
            "execution_state": self.worker.execution_state,
            "get_ident": threading.get_ident,
            "active_threads": self.worker.active_threads,
            "attempts": self.worker.attempts,
            "sizeof": sized,
            "getsizeof": sys.getsizeof,
            "described": described_to_native,
            "function_type": types.FunctionType,
            "builtin_type": types.BuiltinFunctionType,
            "actor_type": StoredActor,
        }

    def raised(self, exception, start):
        """What becomes of an ordinary task that raised this."""
        try:
            raise exception
        except (SystemExit, KeyboardInterrupt):
            self.worker.native.close(f"a task raised {exception!r}")
            return failure(exception)
        except Reschedule:
            return ("reschedule",)
        except BaseException as error:
            return failure(error, start, time())

    def run(self, attempt, key, pickled, buffers, parts, inputs, annotations, actor=False, node=None):
        """What became of the task; None if that is told later, with `Native.finish`. `node`: the spec, if loaded."""
        worker = self.worker
        if worker.state.actors:
            inputs = with_proxies(inputs, worker)
        if annotations and "executor" in annotations:
            name = annotations["executor"]
            if name != "default":
                return self._run_in(name, attempt, key, pickled, buffers, parts, inputs, actor)
        outcome = self.run_here(attempt, key, pickled, buffers, parts, inputs, actor, node)
        return self.kept(outcome, key) if actor else outcome

    def kept(self, outcome, key):
        """The outcome with what the store is to have in the place of an actor."""
        if outcome is None or outcome[0] != "ok":
            return outcome
        worker = self.worker
        return ("ok", worker.state.actors.keep(outcome[1], worker.address, key), *outcome[2:])

    def run_here(self, attempt, key, pickled, buffers, parts, inputs, actor, node=None):
        """Runs the task on this thread; None if that is told later."""
        worker = self.worker
        thread_state.start_time = time()
        thread_state.execution_state = worker.execution_state
        thread_state.key = key
        worker.attempts[key] = attempt
        thread = threading.get_ident()
        worker.active_threads[thread] = key
        worker.native.begin_work()
        token = worker_cvar.set(worker)
        try:
            return self._run(attempt, key, pickled, buffers, parts, inputs, actor, node)
        except (SystemExit, KeyboardInterrupt) as exception:
            worker.native.close(f"a task raised {exception!r}")
            return failure(exception)
        finally:
            worker_cvar.reset(token)
            worker.native.end_work()
            worker.active_threads.pop(thread, None)
            if worker.attempts.get(key) == attempt:
                del worker.attempts[key]
            del thread_state.start_time, thread_state.execution_state, thread_state.key

    def _run(self, attempt, key, pickled, buffers, parts, inputs, actor, node):
        start = time()
        try:
            if node is not None:
                call, is_coroutine = node_of(node)
            else:
                call, is_coroutine = self._load(attempt, pickled, buffers, parts)
            if is_coroutine:
                coroutine = self._run_async(attempt, key, call, inputs, actor)
                asyncio.run_coroutine_threadsafe(coroutine, self.worker.asyncio_loop)
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

    def _load(self, attempt, pickled, buffers, parts):
        native = self.worker.native
        native.begin_loading(attempt)
        try:
            return load_parts(parts) if pickled is None else load_node(pickled, buffers)
        finally:
            native.end_loading(attempt)

    async def _run_async(self, attempt, key, call, inputs, actor):
        worker = self.worker
        start = time()
        worker.attempts[key] = attempt
        try:
            with inside(worker):
                value = await call(inputs)
            outcome = success(value, start, time())
        except Reschedule:
            outcome = ("reschedule",)
        except asyncio.CancelledError as exception:
            # The worker ends, which is not the task's fault.
            outcome = ("reschedule",) if worker.is_closing else failure(exception, start, time())
        except BaseException as exception:
            outcome = failure(exception, start, time())
        finally:
            if worker.attempts.get(key) == attempt:
                del worker.attempts[key]
        worker.native.finish(attempt, self.kept(outcome, key) if actor else outcome)

    def _run_in(self, name, attempt, key, pickled, buffers, parts, inputs, actor):
        """Gives the task to an executor that is not the threads of `Native.run_one`."""
        try:
            executor = self.worker.executors.get(name)
            if executor is None:
                known = sorted(self.worker.executors)
                raise ValueError(f"Invalid executor {name!r}; expected one of: {known}")
            if "ThreadPoolExecutor" in str(type(executor)):
                work = self.run_here, attempt, key, pickled, buffers, parts, inputs, actor
            else:
                work = elsewhere(pickled, buffers, parts, inputs)
            future = executor.submit(*work)
        except Exception as exception:
            return failure(exception)

        def done(future):
            try:
                outcome = future.result()
                if isinstance(outcome, dict):
                    outcome = outcome_of(outcome)
            except BaseException as exception:
                outcome = failure(exception)
            if outcome is not None:
                self.worker.native.finish(attempt, self.kept(outcome, key) if actor else outcome)

        future.add_done_callback(done)
        return None
