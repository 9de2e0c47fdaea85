"""The nanny's Python: functions, plugins and preloads of users, in a process beside the nanny."""

import asyncio
import inspect
import json
import logging
import os
import signal
import socket
import struct
import sys
import threading
import types

if sys.path and sys.path[0] == "":
    # `python -c` puts the working directory there, the command of stock does not.
    del sys.path[0]
channel = socket.socket(fileno=os.dup(0))
null = os.open(os.devnull, os.O_RDONLY)
os.dup2(null, 0)
os.close(null)
# Signals for a whole group are the nanny's to obey: it ends this process when nothing is left to do.
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
try:
    # Should the nanny be killed while a function of a user blocks this process.
    import ctypes

    ctypes.CDLL(None).prctl(1, 9)
except (ImportError, AttributeError, OSError):
    pass

from distributed import preloading, protocol  # noqa: E402
from distributed.core import ConnectionPool, Status, error_message  # noqa: E402
from distributed.diskutils import WorkSpace  # noqa: E402
from distributed.protocol import pickle  # noqa: E402
from distributed.security import Security  # noqa: E402
from tornado.ioloop import IOLoop  # noqa: E402

logger = logging.getLogger("distributed.nanny")


class NannyError(Exception):
    """The nanny could not do what it was asked for."""


class Process:
    """The worker process, as far as others are told."""

    def __init__(self, nanny):
        self.nanny = nanny

    pid = property(lambda self: self.nanny.pid)
    worker_address = property(lambda self: self.nanny.worker_address)
    worker_dir = property(lambda self: self.nanny.worker_dir)
    status = property(lambda self: self.nanny.status)

    def is_alive(self):
        return self.pid is not None


class Background:
    """Coroutines that nobody waits for."""

    def __init__(self):
        self.tasks = set()

    def call_soon(self, function, *args, **kwargs):
        task = asyncio.ensure_future(function(*args, **kwargs))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Nanny:
    """What users' code gets for a nanny: the documented surface of stock's."""

    def __init__(self, given, link):
        self._link = link
        self.address = self.address_safe = given["address"]
        self.id, self.name = given["id"], given["name"]
        self.ip, _, port = self.address.partition("://")[2].rpartition(":")
        self.ip, self.port = self.ip.strip("[]"), int(port)
        self.nthreads = given["nthreads"]
        self.death_timeout = given["death_timeout"]
        # Made here; another folder where that one belongs to somebody else.
        self.local_directory = WorkSpace(given["local_directory"]).base_dir
        # As stock's: workers inherit the path, and find there what plugins bring.
        sys.path.insert(0, self.local_directory)
        self.env = dict(given["env"])
        self.pre_spawn_env = self.env
        self.memory_limit = given["memory_limit"]
        self.memory_manager = types.SimpleNamespace(memory_limit=self.memory_limit)
        self.scheduler_addr = given["scheduler"]
        self.security = Security(**given["tls"])
        self.connection_args = self.security.get_connection_args("worker")
        self.rpc = ConnectionPool(deserialize=True, connection_args=self.connection_args)
        self.plugins, self.preloads = {}, []
        self.loop = self.io_loop = IOLoop.current()
        self.process = Process(self)
        self.status, self.pid, self.worker_address, self.worker_dir = Status.init, None, None, None
        self._ongoing_background_tasks = Background()

    def __repr__(self):
        return f"<Nanny: {self.worker_address}, threads: {self.nthreads}>"

    @property
    def scheduler(self):
        return self.rpc(self.scheduler_addr)

    def is_alive(self):
        return self.pid is not None

    def update(self, worker):
        self.status = getattr(Status, worker["status"], Status.running)
        self.pid, self.worker_address, self.worker_dir = worker["pid"], worker["address"], worker["directory"]

    async def restart(self, timeout=30, reason="nanny-restart"):
        await self._link.call("restart", timeout=timeout, reason=reason)
        return "OK"

    async def kill(self, timeout=5, reason="nanny-kill"):
        await self._link.call("kill", timeout=timeout, reason=reason)

    async def instantiate(self):
        await self._link.call("instantiate")
        return Status.running

    async def close(self, timeout=5, reason="nanny-close"):
        await self._link.call("close", timeout=timeout, reason=reason)
        return "OK"

    def close_gracefully(self, reason="nanny-close-gracefully"):
        self._ongoing_background_tasks.call_soon(self._link.call, "close_gracefully", reason=reason)

    def log_event(self, topic, msg):
        self._ongoing_background_tasks.call_soon(self._link.call, "log_event", topic=topic, msg=msg)

    async def plugin_add(self, plugin, name=None):
        if isinstance(plugin, (bytes, bytearray, memoryview)):
            plugin = pickle.loads(plugin)
        name = name or getattr(plugin, "name", None) or type(plugin).__name__
        self.plugins[name] = plugin
        logger.info("Starting Nanny plugin %s", name)
        try:
            if hasattr(plugin, "setup"):
                await finished(plugin.setup(nanny=self))
        except Exception as exception:
            logger.exception("Nanny plugin %s failed to setup", name)
            return error_message(exception)
        self._link.restart |= bool(getattr(plugin, "restart", False))
        return {"status": "OK"}

    async def plugin_remove(self, name):
        logger.info("Removing Nanny plugin %s", name)
        try:
            plugin = self.plugins.pop(name)
            if hasattr(plugin, "teardown"):
                await finished(plugin.teardown(nanny=self))
        except Exception as exception:
            logger.exception("Nanny plugin %s failed to teardown", name)
            return error_message(exception)
        return {"status": "OK"}

    async def run(self, **arguments):
        # Only here: the import takes half a second.
        from distributed.worker import run

        return await run(self, None, **arguments)


async def finished(result):
    return await result if inspect.isawaitable(result) else result


class Link:
    """The channel to the nanny, and what comes through it."""

    def __init__(self, given):
        self.given, self.restart = given, False
        self.environ, self.path = dict(os.environ), list(sys.path)
        self.waiting, self.number = {}, 0
        self.nanny = None

    async def serve(self):
        self.loop = asyncio.get_running_loop()
        self.nanny = Nanny(self.given, self)
        threading.Thread(target=self.read, name="Nanny-Link", daemon=True).start()
        await asyncio.Event().wait()

    def read(self):
        file = channel.makefile("rb")

        def exactly(count):
            data = file.read(count)
            if len(data) != count:
                # The nanny has died.
                os._exit(0)
            return data

        while True:
            (count,) = struct.unpack("<Q", exactly(8))
            lengths = struct.unpack(f"<{count}Q", exactly(8 * count))
            head, *frames = [exactly(length) for length in lengths]
            self.loop.call_soon_threadsafe(self.begin, json.loads(head), frames)

    def begin(self, head, frames):
        if head.get("worker"):
            self.nanny.update(head["worker"])
        if head["op"] == "answer":
            future = self.waiting.pop(head["number"], None)
            if future is not None and not future.done():
                error = head["error"]
                future.set_exception(NannyError(error)) if error else future.set_result(None)
            return
        self.nanny._ongoing_background_tasks.call_soon(self.answer, head, frames)

    async def answer(self, head, frames):
        reply, answer = {"id": head["id"]}, []
        try:
            answer = await getattr(self, head["op"])(frames)
        except Exception as exception:
            logger.exception("in the nanny's Python process")
            reply["error"] = f"{type(exception).__name__}: {exception}"
        reply["env"] = {str(name): str(value) for name, value in self.nanny.env.items()}
        reply["environ"] = {k: v for k, v in os.environ.items() if self.environ.get(k) != v}
        reply["path"] = [entry for entry in sys.path if entry not in self.path]
        reply["restart"], self.restart = self.restart, False
        self.write(reply, answer)

    def write(self, head, frames=()):
        frames = [json.dumps(head).encode(), *frames]
        lengths = [len(frame) for frame in frames]
        channel.sendall(struct.pack(f"<{len(frames) + 1}Q", len(frames), *lengths))
        for frame in frames:
            channel.sendall(frame)

    def call(self, name, **arguments):
        self.number += 1
        future = self.waiting[self.number] = self.loop.create_future()
        self.write({"call": name, "number": self.number, **arguments})
        return future

    async def start(self, frames):
        given = self.given
        if given["preload"]:
            modules, words = given["preload"], given["preload_argv"]
            loaded = preloading.process_preloads(self.nanny, modules, words, file_dir=given["local_directory"])
            self.nanny.preloads = loaded
            for preload in loaded:
                await finished(preload.start())
        return []

    async def tear_down(self, frames):
        for preload in self.nanny.preloads:
            await finished(preload.teardown())
        for name in list(self.nanny.plugins):
            await self.nanny.plugin_remove(name)
        return []

    async def plugins(self, frames):
        reply = protocol.loads(frames)
        for name, plugin in reply["nanny-plugins"].items():
            await self.nanny.plugin_add(plugin=plugin, name=name)
        self.restart = False
        return []

    async def request(self, frames):
        serializers = None
        try:
            message = protocol.loads(frames)
            for name in ("reply", "close"):
                message.pop(name, None)
            serializers = message.pop("serializers", None)
            result = await getattr(self.nanny, message.pop("op"))(**message)
        except Exception as exception:
            logger.warning("Exception while handling a request", exc_info=True)
            result = error_message(exception, status="uncaught-error")
        try:
            return as_bytes(protocol.dumps(result, **context(serializers)))
        except Exception as exception:
            return as_bytes(protocol.dumps(error_message(exception, status="uncaught-error")))


def context(serializers):
    return {"serializers": serializers, "on_error": "raise"} if serializers else {"on_error": "raise"}


def as_bytes(frames):
    return [memoryview(frame).cast("B") for frame in frames]


async def main():
    await Link(json.loads(sys.argv[1])).serve()


asyncio.run(main())
