"""The Python side of the scheduler: runs functions of clients against the mirror of its state.

One process, which lives as long as it is used: what a function leaves at `dask_scheduler` is found by
the next one. Functions run in the event loop, as in stock; a blocking one holds up others here, never
the scheduler. Plugins and preload modules live here, too.
"""

import asyncio
import collections
import inspect
import itertools
import logging
import os
import queue
import threading

from .frames import take_over_stdio
from .serve import answer, die_with_parent
from .server import start_sampling

# Seconds that the native scheduler may take for one question.
PATIENCE = 300
# Hooks that are passed on to plugins before others may run.
HOOKS_AT_ONCE = 500


class Session:
    """The state of the process."""

    def __init__(self, send):
        self._send = send
        self._numbers = itertools.count(1)
        self._questions = {}
        self._running = {}
        self._feeds = {}
        self._background = set()
        # Messages with hooks, and the task that works them off.
        self._hooks = collections.deque()
        self._telling = None
        self._pinned = False
        self._loop = self._ended = None
        self._basics = None
        self._mirror = None

    @property
    def mirror(self):
        """What functions get as `dask_scheduler`."""
        if self._mirror is None:
            from .shell import Scheduler

            self._mirror = Scheduler(self.ask, self._basics)
        return self._mirror

    # Questions to the scheduler; block the caller, whatever thread it is.

    def ask(self, what, fields=None, frames=()):
        """(header, frames) of the answer. Raises RuntimeError when there is none."""
        number = next(self._numbers)
        waiting = self._questions[number] = queue.SimpleQueue()
        try:
            self._send({"op": "ask", "id": number, "what": what, **(fields or {})}, frames)
            header, frames = waiting.get(timeout=PATIENCE)
        except queue.Empty:
            raise RuntimeError("the scheduler did not answer in time") from None
        finally:
            del self._questions[number]
        if header.get("error"):
            raise RuntimeError(header["error"])
        return header, frames

    # Messages of the scheduler.

    def receive(self, header, frames):
        """Take a message; called by the reading thread."""
        if header["op"] == "answer":
            waiting = self._questions.get(header["id"])
            if waiting is not None:
                waiting.put((header, frames))
            return
        self._loop.call_soon_threadsafe(self._dispatch, header, frames)

    def _dispatch(self, header, frames):
        op, number = header["op"], header.get("id")
        if op == "run_function":
            self._start(number, self._run_function(header, frames))
        elif op == "feed":
            self._start(number, self._feed(header, frames))
        elif op == "stop":
            task = self._running.get(number)
            if task is not None:
                task.cancel()
        elif op == "ack":
            waiting = self._feeds.get(number)
            if waiting is not None:
                waiting.set()
        elif op == "hooks":
            self._hooks.append((header["items"], frames))
            if self._telling is None or self._telling.done():
                self._telling = self._loop.create_task(self._tell_plugins())
        elif hasattr(self, "_do_" + op):
            self._start(number, self._do(getattr(self, "_do_" + op), header, frames))
        elif op == "basics":
            self._basics = header
        else:
            reply, frames = answer(header, frames)
            self._send({**reply, "op": "reply", "id": number}, frames)

    def _start(self, number, coroutine):
        task = self._running[number] = self._loop.create_task(coroutine)
        task.add_done_callback(lambda _: self._running.pop(number, None))

    # Plugins and what else lasts

    async def _tell_plugins(self):
        while self._hooks:
            items, frames = self._hooks.popleft()
            for number, _ in enumerate(self.mirror._told(items, frames), 1):
                if number % HOOKS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            self.mirror._coming = ()
            self._send({"op": "taken"})

    async def _told_all(self):
        """Until plugins know what happened before."""
        if self._telling is not None and not self._telling.done():
            await self._telling

    def _pin(self):
        """Tell the scheduler whether this process may be ended when it is idle."""
        pinned = bool(self._background) or (self._mirror is not None and self._mirror._is_lasting())
        if pinned != self._pinned:
            self._pinned = pinned
            self._send({"op": "pin", "on": pinned})

    async def _do(self, work, header, frames):
        """Answer a request with the map, or the map and the message, that `work` gives."""
        from .errors import encode_message, failure

        try:
            answer = await work(header, frames)
            answer, message = answer if isinstance(answer, tuple) else (answer, None)
            reply = {"status": "OK", **(answer or {})}, []
            if message is not None:
                reply = reply[0], encode_message(message)
        except asyncio.CancelledError:
            reply = {"status": "cancelled"}, []
        except (Exception, SystemExit) as error:
            reply = failure(error, "uncaught-error")
        self._pin()
        self._send({**reply[0], "op": "reply", "id": header["id"]}, reply[1])

    async def _do_register_plugin(self, header, frames):
        from distributed.diagnostics.plugin import SchedulerPlugin
        from distributed.protocol import pickle

        plugin = pickle.loads(bytes(frames[0]))
        if not isinstance(plugin, SchedulerPlugin):
            raise TypeError("a scheduler plugin must be a SchedulerPlugin, not %r" % type(plugin).__name__)
        name, added = await self.mirror._register(plugin, header["name"], header["idempotent"])
        return {"name": name, "added": added}

    async def _do_unregister_plugin(self, header, frames):
        self.mirror.remove_plugin(header["name"])

    async def _do_import_preloads(self, header, frames):
        from .preloads import load

        return load(self.mirror, list(header["names"]), header["argv"])

    async def _do_start_preloads(self, header, frames):
        from .preloads import start

        return await start(self.mirror)

    async def _do_closing(self, header, frames):
        from .preloads import teardown

        await self._told_all()
        if header["phase"] == "before":
            await self.mirror._call_all("before_close")
            await teardown(self.mirror)
        else:
            await self.mirror._call_all("close")

    async def _do_handle(self, header, frames):
        from .errors import decode_message

        arguments = decode_message(frames)
        if header["sender"] == "request":
            handler = self.mirror.handlers[header["handler"]]
            first = list(inspect.signature(handler).parameters)[:1]
            # Up to 2022.10 handlers were given the connection first.
            leading = (None,) if first == ["comm"] else ()
        else:
            handler, leading = self.mirror.stream_handlers[header["handler"]], ()
            arguments[header["sender"]] = header["name"]
        result = handler(*leading, **arguments)
        if inspect.isawaitable(result):
            result = await result
        return {}, {"result": result}

    async def _do_workers_to_close(self, header, frames):
        from distributed.scheduler import Scheduler as Stock

        from .errors import decode_message

        await self._told_all()
        return {}, {"result": list(Stock.workers_to_close(self.mirror, **decode_message(frames)))}

    async def _do_load_policies(self, header, frames):
        self.mirror.load_policies()

    async def _do_run_policies(self, header, frames):
        self.mirror.run_policies()

    async def _do_performance_report(self, header, frames):
        from distributed.scheduler import Scheduler as Stock

        from .errors import decode_message

        arguments = decode_message(frames)
        return {}, {"result": await Stock.performance_report(self.mirror, **arguments)}

    # run_on_scheduler

    async def _run_function(self, header, frames):
        from .errors import encode_message, failure

        serializers = header.get("serializers")
        await self._told_all()
        try:
            start_sampling()
            parts = self._load(header, frames)
            message = await self._call(parts, header.get("wait", True))
            reply = {"status": "OK"}, encode_message(message, serializers)
        except asyncio.CancelledError:
            reply = {"status": "cancelled"}, []
        except Exception as error:
            reply = failure(error, "uncaught-error", serializers)
        self._pin()
        self._send({**reply[0], "op": "reply", "id": header["id"]}, reply[1])

    def _load(self, header, frames):
        from distributed.protocol import pickle

        parts = dict(zip(header["parts"], frames))
        return {name: pickle.loads(bytes(part)) for name, part in parts.items() if part}

    async def _call(self, parts, wait):
        from distributed.core import error_message
        from distributed.protocol import to_serialize
        from distributed.utils import has_arg

        function, args = parts["function"], parts.get("args", ())
        kwargs = dict(parts.get("kwargs") or {})
        for name in ("dask_worker", "dask_scheduler"):
            if has_arg(function, name):
                kwargs[name] = self.mirror
        is_async = _is_coroutine_function(function)
        if not wait and not is_async:
            raise AssertionError("Combination not supported")
        try:
            if not wait:
                task = self._loop.create_task(function(*args, **kwargs))
                self._background.add(task)
                task.add_done_callback(self._background_done)
                result = None
            else:
                result = function(*args, **kwargs)
                if is_async:
                    result = await result
        except Exception as error:
            return error_message(error)
        except SystemExit as error:
            # It would end this process; in stock it ends nothing but the call either.
            return error_message(RuntimeError("SystemExit: %s" % error))
        return {"status": "OK", "result": to_serialize(result)}

    def _background_done(self, task):
        self._background.discard(task)
        self._pin()

    # feed

    async def _feed(self, header, frames):
        from .errors import encode_message, failure

        number, state, parts = header["id"], None, {}
        acknowledged = self._feeds[number] = asyncio.Event()
        end = {"status": "OK"}, []
        try:
            parts = self._load(header, frames)
            interval = _seconds(header.get("interval", "1s"))
            if "setup" in parts:
                state = parts["setup"](self.mirror)
                if inspect.isawaitable(state):
                    state = await state
            while True:
                arguments = (self.mirror,) if state is None else (self.mirror, state)
                value = parts["function"](*arguments)
                # Under a name of its own: a value may be of any type.
                self._send({"op": "value", "id": number}, encode_message({"value": value}))
                await acknowledged.wait()
                acknowledged.clear()
                await asyncio.sleep(interval)
        except asyncio.CancelledError:
            pass
        except (Exception, SystemExit) as error:
            end = failure(error, "uncaught-error")
        finally:
            self._feeds.pop(number, None)
        if "teardown" in parts:
            try:
                parts["teardown"](self.mirror, state)
            except Exception:
                logging.getLogger("distributed.scheduler").exception("Teardown of a feed failed")
        self._send({**end[0], "op": "reply", "id": number}, end[1])

    async def run(self, start_reading):
        """Serve for ever."""
        self._loop = asyncio.get_event_loop()
        ended = self._ended = asyncio.Event()
        start_reading()
        await ended.wait()

    def end(self):
        """Stop serving; called by any thread."""
        self._loop.call_soon_threadsafe(self._ended.set)


def _is_coroutine_function(function):
    from distributed.utils import iscoroutinefunction

    return iscoroutinefunction(function)


def _seconds(interval):
    try:
        from dask.utils import parse_timedelta
    except ImportError:
        from distributed.utils import parse_timedelta

    return parse_timedelta(interval, default="s")


def main(parent):
    """Entry point of the process that runs functions."""
    channel = take_over_stdio()
    die_with_parent(parent)
    # The first request is `hello`, whose answer must not wait for imports.
    request, frames = channel.read()
    header, reply = answer(request, frames)
    channel.write({**header, "id": request["id"]}, reply)
    session = Session(channel.write)

    def read():
        try:
            while True:
                session.receive(*channel.read())
        except BaseException:
            # Without the scheduler there is nothing to do, also not for what still runs.
            os._exit(0)

    asyncio.run(session.run(threading.Thread(target=read, name="reader", daemon=True).start))
