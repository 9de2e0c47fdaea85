"""The Python side of the scheduler: runs functions of clients against the mirror of its state.

One process, which lives as long as it is used: what a function leaves at `dask_scheduler` is found by
the next one. Functions run in the event loop, as in stock; a blocking one holds up others here, never
the scheduler.

Not here yet: scheduler plugins. They would be kept in `Session.mirror.plugins` by a request of their
own, and be told of more than transitions.
"""

import asyncio
import inspect
import itertools
import logging
import os
import queue
import threading

from .frames import take_over_stdio
from .serve import answer, die_with_parent

# Seconds that the native scheduler may take for one question.
PATIENCE = 300


class Session:
    """The state of the process."""

    def __init__(self, send):
        self._send = send
        self._numbers = itertools.count(1)
        self._questions = {}
        self._running = {}
        self._feeds = {}
        self._background = set()
        self._loop = self._ended = None
        self._basics = None
        self._mirror = None

    @property
    def mirror(self):
        """What functions get as `dask_scheduler`."""
        if self._mirror is None:
            from .mirror import Scheduler

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
        elif op == "transitions":
            self._transitions(header, frames)
        elif op == "restarted":
            self.mirror._restarted()
        elif op == "basics":
            self._basics = header
        else:
            reply, frames = answer(header, frames)
            self._send({**reply, "op": "reply", "id": number}, frames)

    def _start(self, number, coroutine):
        task = self._running[number] = self._loop.create_task(coroutine)
        task.add_done_callback(lambda _: self._running.pop(number, None))

    def _transitions(self, header, frames):
        from .errors import decode_message

        for sequence, key, start, finish, stimulus_id, raw in header["items"]:
            details = {}
            if raw:
                details = decode_message(frames[:raw])
                frames = frames[raw:]
                for name in ("op", "key", "stimulus_id"):
                    details.pop(name, None)
            self.mirror._transition(sequence, key, start, finish, stimulus_id, details)

    # run_on_scheduler

    async def _run_function(self, header, frames):
        from .errors import encode_message, failure

        serializers = header.get("serializers")
        try:
            parts = self._load(header, frames)
            message = await self._call(parts, header.get("wait", True))
            reply = {"status": "OK"}, encode_message(message, serializers)
        except asyncio.CancelledError:
            reply = {"status": "cancelled"}, []
        except Exception as error:
            reply = failure(error, "uncaught-error", serializers)
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
                task.add_done_callback(self._background.discard)
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
