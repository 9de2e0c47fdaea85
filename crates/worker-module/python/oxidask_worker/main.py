"""Starting the worker: options and configuration, the event loop of the main thread, the threads."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import threading

import dask
import distributed
import msgpack
from dask.utils import parse_bytes, parse_timedelta
from distributed.comm import get_address_host, get_address_host_port
from distributed.diskutils import WorkSpace
from distributed.utils import get_ip, get_ip_interface
from distributed.versions import get_versions
from tornado.ioloop import IOLoop

from oxidask_worker import configured, data, disk
from oxidask_worker.imports import keep_apart
from oxidask_worker.lines import write_json
from oxidask_worker.measures import watch_garbage
from oxidask_worker.requests import Requests
from oxidask_worker.tasks import Runner, loading
from oxidask_worker.worker import Worker

logger = logging.getLogger("distributed.worker")

PROTOCOLS = "tcp", "tls", "ws", "wss"

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
        self.look = worker.is_to_look_at_threads

    def transitions(self, changes):
        self.worker.asyncio_loop.call_soon_threadsafe(self.worker.notify_of_transitions, changes)

    def begin(self, beginning):
        """A task may begin when plugins know of it."""
        self.worker.asyncio_loop.call_soon_threadsafe(beginning)

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
        self.worker.native.tell_started()

    def closed(self, reason):
        self.ended = reason
        self.worker.loop.add_callback(self._tear_down)

    async def _tear_down(self):
        await self.worker.tear_down()
        self.worker.loop.stop()


def scheduler_of(options):
    address = options["scheduler"]
    if address.partition("://")[0] not in PROTOCOLS:
        raise StartError(f"the native worker speaks {', '.join(PROTOCOLS)}, but not to {address}")
    return address


def hosts(options):
    """Where to listen, and what others are told."""
    if options["interface"]:
        host = get_ip_interface(options["interface"])
        return host, host
    if options["host"]:
        # Stock takes it with a protocol, too.
        host = options["host"].rpartition("://")[2]
        return host, host
    return "0.0.0.0", get_ip(get_address_host(options["scheduler"]))


def addresses(options):
    """The same with ports, and an address for others that need not be one of this machine."""
    listen, contact = options["listen_address"], options["contact_address"]
    if not listen:
        listen_host, contact_host = hosts(options)
        return {"listen_host": listen_host, "contact_host": contact_host, "ports": options["ports"]}
    host, port = get_address_host_port(listen, strict=True)
    return {"listen_host": host or "0.0.0.0", "ports": [port], "contact_address": contact or listen}


def lifetime_of(options):
    """Seconds until the worker leaves, if ever, and whether another one follows."""
    given = {"duration": options["lifetime"], "stagger": options["lifetime_stagger"]}
    for name, value in given.items():
        configured = dask.config.get("distributed.worker.lifetime." + name, None)
        given[name] = parse_timedelta(configured, "s") if value is None and configured else value
    restart = options["lifetime_restart"]
    if restart is None:
        restart = bool(dask.config.get("distributed.worker.lifetime.restart", False))
    if not given["duration"]:
        return None, restart
    return given["duration"] + (2 * random.random() - 1) * (given["stagger"] or 0), restart


def new_folder(options):
    """A folder of this worker's own; those that dead workers left are removed, as by stock."""
    try:
        # Older releases make only the last part of it.
        os.makedirs(options["local_directory"], exist_ok=True)
        return WorkSpace(options["local_directory"]).new_work_dir(prefix="worker-")
    except OSError as error:
        raise StartError(f"no folder can be made in {options['local_directory']}: {error}") from error


def preloads_of(options):
    """Modules, files or URLs to load, and their words."""
    preload = options["preload"] or dask.config.get("distributed.worker.preload", [])
    return preload, options["preload_argv"] or dask.config.get("distributed.worker.preload-argv", [])


def seconds(name, default):
    value = dask.config.get(name, default)
    return parse_timedelta(value, "s")


def settings_of(options, folder):
    get = dask.config.get
    scheduler = scheduler_of(options)
    security = configured.given(options)
    return {
        "release": distributed.__version__,
        "scheduler": scheduler,
        "security": security,
        "tls": configured.tls(security),
        # Like the scheduler, if nothing is said.
        "protocol": (options["listen_address"] or options["protocol"] or scheduler).partition("://")[0],
        "server_name": options["scheduler_sni"],
        **configured.leaving(),
        "near_memory": configured.near_memory(),
        **addresses(options),
        "nanny": options["nanny"],
        "name": options["name"],
        "nthreads": options["nthreads"],
        "resources": options["resources"] or get("distributed.worker.resources", {}),
        "memory_limit": options["memory_limit"],
        "memory": configured.memory(),
        "http": configured.http(options),
        "local_directory": folder,
        "death_timeout": options["death_timeout"],
        "connect_timeout": seconds("distributed.comm.timeouts.connect", "30s"),
        # Stock takes each of the two for the other direction, and its defaults (50, 10) are tuned to that.
        "incoming": get("distributed.worker.connections.outgoing", 50),
        "outgoing": get("distributed.worker.connections.incoming", 10),
        "message_bytes": parse_bytes(get("distributed.worker.transfer.message-bytes-limit", "50MB")),
        "validate": bool(get("distributed.worker.validate", False)),
        "versions": get_versions(),
    }


def serve(native, ordered):
    while native.serve_one(ordered):
        pass


def obey_signals(worker, nanny):
    """A nanny that got the same signal, as all processes of a group do, says what to do."""
    loop, close = worker.asyncio_loop, worker.native.close_gracefully
    os.register_at_fork(after_in_child=ends_by_signals)
    if not nanny:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, close, f"signal {number}")
        return
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    later = (loop.call_later, 1, close, f"signal {signal.SIGTERM}", False)
    loop.add_signal_handler(signal.SIGTERM, *later)


def ends_by_signals():
    """A child that a task forks would otherwise pass its signals on to our loop instead of ending by them."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def leave_after(worker, lifetime, restart):
    if lifetime is not None:
        reason = "worker-lifetime-reached"
        worker.asyncio_loop.call_later(lifetime, worker.native.close_gracefully, reason, not restart)


def start(native_class, options):
    """Runs a worker until it ends; the exit code of the process."""
    if options["refused"]:
        raise StartError(f"the native worker does not support {options['refused']} yet")
    if options["json_logs"]:
        write_json()
    for warning in options["warnings"]:
        logger.warning(warning)
    folder = new_folder(options)
    settings = settings_of(options, folder.dir_path)
    if sys.path and sys.path[0] == "":
        # `python -c` puts the working directory there, the command of stock does not.
        del sys.path[0]
    sys.path[:0] = [settings["local_directory"], *options["sys_path"]]
    asyncio.set_event_loop(asyncio.new_event_loop())
    loop = IOLoop.current()
    hooks = Hooks()
    native = native_class(msgpack.packb(settings, use_bin_type=True), hooks)
    native.tell_directory(settings["local_directory"])
    worker = Worker(native, loop, settings)
    hooks.bind(worker)
    watch_garbage(native)
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

    obey_signals(worker, options["nanny"] is not None)
    leave_after(worker, *lifetime_of(options))

    async def begin():
        try:
            await worker.start(*preloads_of(options))
        except Exception as exception:
            # Stock ends, too, when a preload can not be loaded.
            logger.exception("the worker could not be started")
            hooks.ended = f"error: {exception!r}"
            return loop.stop()
        native.register()

    keep_apart(loading)
    loop.add_callback(begin)
    loop.add_callback(worker.gather_for_heartbeats)
    if dask.config.get("distributed.worker.profile.enabled", True):
        interval = seconds("distributed.worker.profile.interval", "10ms")
        cycle = seconds("distributed.worker.profile.cycle", "1s")
        native.watch_work(interval)
        loop.add_callback(worker.cycle_profiles, cycle)
    loop.start()
    logger.info("Stopping worker at %s. Reason: %s", worker.address, hooks.ended)
    native.stop()
    folder.release()
    if options["pid_file"]:
        with contextlib.suppress(OSError):
            os.remove(options["pid_file"])
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
