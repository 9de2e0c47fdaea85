"""Starting the worker: options and configuration, the event loop of the main thread, the threads."""

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
import threading

import dask
import distributed
import msgpack
from dask.utils import parse_bytes, parse_timedelta
from distributed.utils import get_ip, get_ip_interface
from tornado.ioloop import IOLoop

from oxidask_worker import configured, data, disk
from oxidask_worker.requests import Requests
from oxidask_worker.tasks import Runner
from oxidask_worker.worker import Worker

logger = logging.getLogger("distributed.worker")

# Threads that serialise and that call handlers, apart from those for tasks.
SERVICE_THREADS = 2


class StartError(Exception):
    """Something in the options does not do; printed without a traceback."""


class Hooks:
    """What Rust calls, always on a thread that holds the interpreter."""

    def __init__(self):
        self.worker = None
        self.ended = None

    def bind(self, worker):
        self.worker, self.requests = worker, Requests(worker)
        runner = Runner(worker)
        self.run, self.raised = runner.run, runner.raised
        worker.native.prepare(runner.native())
        self.load, self.dump = data.load, data.dump
        self.pack, self.unpack, self.collect = disk.pack, disk.unpack, disk.collect
        self.request, self.stream = self.requests.begin, self.requests.stream

    def transitions(self, transitions):
        self.worker.asyncio_loop.call_soon_threadsafe(self.worker.notify_of_transitions, transitions)

    def registered(self, number, frames):
        """The scheduler has let this worker in."""
        loop = self.worker.asyncio_loop
        loop.call_soon_threadsafe(lambda: loop.create_task(self._set_up(number, frames)))

    async def _set_up(self, number, frames):
        try:
            await self.worker.set_up_plugins(distributed.protocol.loads(frames).get("worker-plugins"))
        except Exception:
            logger.exception("the plugins could not be set up")
        logger.info("        Registered to: %26s", self.worker.scheduler.address)
        logger.info("-" * 49)
        self.worker.native.answer(number, [])

    def closed(self, reason):
        self.ended = reason
        self.worker.loop.add_callback(self._tear_down)

    async def _tear_down(self):
        await self.worker.tear_down()
        self.worker.loop.stop()


def address_of(options):
    address = options["scheduler"]
    if options["scheduler_file"]:
        with open(options["scheduler_file"], encoding="utf-8") as file:
            address = json.load(file)["address"]
    address = address or dask.config.get("scheduler-address", None)
    if not address:
        raise StartError("Need to provide scheduler address like\n  dask worker SCHEDULER_ADDRESS:8786")
    address = address if "://" in address else "tcp://" + address
    if not address.startswith("tcp://"):
        raise StartError(f"the native worker speaks only tcp:// yet, not {address}")
    return address if address.rpartition(":")[2].isdigit() else address + ":8786"


def hosts(options):
    """Where to listen, and what others are told."""
    if options["interface"]:
        host = get_ip_interface(options["interface"])
        return host, host
    if options["host"]:
        return options["host"], options["host"]
    return "0.0.0.0", get_ip()


def memory_limit_of(options, nthreads):
    given = options["memory_limit"]
    if given == "auto":
        from dask.system import CPU_COUNT
        from distributed.system import MEMORY_LIMIT

        return int(MEMORY_LIMIT * min(1, nthreads / CPU_COUNT))
    if given is not None and 0 < given <= 1 and isinstance(given, float):
        from distributed.system import MEMORY_LIMIT

        return int(MEMORY_LIMIT * given)
    return int(given) if given else None


def preloads_of(options):
    """Modules, files or URLs to load, and their words."""
    preload = options["preload"] or dask.config.get("distributed.worker.preload", [])
    return preload, options["preload_argv"] or dask.config.get("distributed.worker.preload-argv", [])


def seconds(name, default):
    value = dask.config.get(name, default)
    return parse_timedelta(value, "s")


def settings_of(options):
    nthreads = options["nthreads"] or os.cpu_count() or 1
    listen, contact = hosts(options)
    folder = options["local_directory"] or dask.config.get("temporary-directory", None) or tempfile.gettempdir()
    folder = os.path.join(folder, "dask-scratch-space")
    os.makedirs(folder, exist_ok=True)
    name = options["name"]
    if name is not None and name.lstrip("-").isdigit():
        name = int(name)
    get = dask.config.get
    return {
        "release": distributed.__version__,
        "scheduler": address_of(options),
        "listen_host": listen,
        "contact_host": contact,
        "port": options["port"],
        "name": name,
        "nthreads": nthreads,
        "resources": options["resources"] or get("distributed.worker.resources", {}),
        "memory_limit": memory_limit_of(options, nthreads),
        "memory": configured.memory(),
        "local_directory": tempfile.mkdtemp(prefix="worker-", dir=folder),
        "death_timeout": options["death_timeout"],
        "connect_timeout": seconds("distributed.comm.timeouts.connect", "30s"),
        # Stock takes each of the two for the other direction, and its defaults (50, 10) are tuned to that.
        "incoming": get("distributed.worker.connections.outgoing", 50),
        "outgoing": get("distributed.worker.connections.incoming", 10),
        "message_bytes": parse_bytes(get("distributed.worker.transfer.message-bytes-limit", "50MB")),
        "validate": bool(get("distributed.worker.validate", False)),
        "versions": distributed.versions.get_versions(),
    }


def serve(native, ordered):
    while native.serve_one(ordered):
        pass


def start(native_class, options):
    """Runs a worker until it ends; the exit code of the process."""
    if options["refused"]:
        raise StartError(f"the native worker does not support {options['refused']} yet")
    for warning in options["warnings"]:
        logger.warning(warning)
    settings = settings_of(options)
    if sys.path and sys.path[0] == "":
        # `python -c` puts the working directory there, the command of stock does not.
        del sys.path[0]
    sys.path.insert(0, settings["local_directory"])
    asyncio.set_event_loop(asyncio.new_event_loop())
    loop = IOLoop.current()
    hooks = Hooks()
    native = native_class(msgpack.packb(settings, use_bin_type=True), hooks)
    worker = Worker(native, loop, settings)
    hooks.bind(worker)
    worker.executor.start()
    for number in range(SERVICE_THREADS + 1):
        # The first one does what has an order.
        words = (native, number == 0)
        threading.Thread(target=serve, args=words, name=f"Oxidask-Service-{number}", daemon=True).start()
    logger.info("      Start worker at: %26s", worker.address)
    logger.info("         Listening to: %26s", worker.address)
    logger.info("          Worker name: %26s", worker.name)
    logger.info("Waiting to connect to: %26s", settings["scheduler"])
    logger.info("-" * 49)
    logger.info("              Threads: %26d", worker.nthreads)
    logger.info("      Local Directory: %26s", settings["local_directory"])
    logger.info("-" * 49)

    for number in (signal.SIGINT, signal.SIGTERM):
        worker.asyncio_loop.add_signal_handler(number, native.close, f"signal {number}")

    async def begin():
        try:
            await worker.start(*preloads_of(options))
        except Exception as exception:
            # Stock ends, too, when a preload can not be loaded.
            logger.exception("the worker could not be started")
            hooks.ended = f"error: {exception!r}"
            return loop.stop()
        native.register()

    loop.add_callback(begin)
    if dask.config.get("distributed.worker.profile.enabled", True):
        interval = seconds("distributed.worker.profile.interval", "10ms")
        cycle = seconds("distributed.worker.profile.cycle", "1s")
        loop.add_callback(worker.watch_threads, interval, cycle)
    loop.start()
    logger.info("Stopping worker at %s. Reason: %s", worker.address, hooks.ended)
    native.stop()
    return 1 if (hooks.ended or "").startswith("error:") else 0


def main(native_class, options):
    try:
        code = start(native_class, options)
    except StartError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads may be at tasks that nobody wants any more; they are not waited for.
    os._exit(code)
