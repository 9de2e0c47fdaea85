#!/usr/bin/env python3
"""Record what stock peers of one release put on the wire.

Starts a stock scheduler, a stock worker and a stock client, with a byte-for-byte relay in front of
the scheduler (one for the client, one for the worker) and one in front of the worker, lets the
client do a bit of everything, and writes one sample of each kind of message to ``--out``:

* ``NNN-<sender>-<op>.bin``: one framed message exactly as it was sent,
* ``index.json``: one entry per file (sender, receiver, kind, ops, frames, bytes).

Run it with the interpreter of the release: ``cargo xtask record`` does so for all three. Ids, times
and ports differ from run to run; the set of messages does not. Needs only the standard library and
the release itself; written for Python 3.8 and newer.
"""

import argparse
import asyncio
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import msgpack

LARGEST = 24_000  # bytes; larger samples teach a decoder nothing new
F1_BEFORE = (2021, 3)
# Operations whose samples differ in more than their values, and how many of them are kept.
VARIED_OPS = {"update-graph", "update-graph-hlg", "compute-task"}
VARIED = 8


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Relay:
    """Passes connections on to ``target`` and keeps what went through."""

    def __init__(self, caller, listener, port, target):
        self.caller, self.listener = caller, listener
        self.port, self.target = port, target
        self.connections = []

    async def serve(self):
        return await asyncio.start_server(self.accept, "127.0.0.1", self.port)

    async def accept(self, reader, writer):
        record = {"up": bytearray(), "down": bytearray()}
        self.connections.append(record)
        try:
            target = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            self.pump(reader, target[1], record["up"]),
            self.pump(target[0], writer, record["down"]),
        )

    @staticmethod
    async def pump(reader, writer, kept):
        try:
            while True:
                data = await reader.read(65536)
                if not data:
                    break
                kept += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            try:
                writer.close()
            except OSError:
                pass


def run_relays(relays):
    ready = threading.Event()

    def main():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        for relay in relays:
            loop.run_until_complete(relay.serve())
        ready.set()
        loop.run_forever()

    threading.Thread(target=main, daemon=True).start()
    ready.wait()


def messages(data, framing1):
    """Cut a byte stream into framed messages: (all bytes, frames)."""
    at = 0
    while at + 16 <= len(data):
        start = at
        if not framing1:
            at += 8
        (count,) = struct.unpack_from("<Q", data, at)
        at += 8
        if at + 8 * count > len(data):
            return
        lengths = struct.unpack_from("<%dQ" % count, data, at)
        at += 8 * count
        if at + sum(lengths) > len(data):
            return
        frames = []
        for length in lengths:
            frames.append(bytes(data[at : at + length]))
            at += length
        yield bytes(data[start:at]), frames


def body(frames, framing1):
    raw = frames[1] if framing1 else frames[0]
    return msgpack.unpackb(raw, raw=False, strict_map_key=False, use_list=False)


def ops_of(message):
    items = message if isinstance(message, tuple) else (message,)
    return [i["op"] for i in items if isinstance(i, dict) and isinstance(i.get("op"), str)]


class Samples:
    """One file per kind of message."""

    def __init__(self, out):
        self.out, self.index, self.seen = out, [], {}

    def add(self, sender, receiver, kind, ops, raw, frames):
        name = ops[0] if ops else "data"
        identity = (sender, receiver, kind, tuple(sorted(set(ops))))
        wanted = VARIED if VARIED_OPS.intersection(ops) else 1
        if self.seen.get(identity, 0) >= wanted or len(raw) > LARGEST:
            return
        self.seen[identity] = self.seen.get(identity, 0) + 1
        kind_part = "" if kind in ("stream", "request") else kind + "-"
        file = "%03d-%s-%s%s.bin" % (len(self.index), sender, kind_part, name.replace("_", "-"))
        (self.out / file).write_bytes(raw)
        entry = {
            "file": file,
            "from": sender,
            "to": receiver,
            "kind": kind,
            "ops": ops,
            "frames": len(frames),
            "bytes": len(raw),
        }
        self.index.append(entry)

    def connection(self, relay, record, framing1):
        up = list(messages(record["up"], framing1))
        down = list(messages(record["down"], framing1))
        if not up or not down:
            return
        caller, listener = relay.caller, relay.listener
        if caller == "worker" and len(up) > 1 and "register-client" in ops_of(body(up[1][1], framing1)):
            caller = "worker-client"
        self.add(caller, listener, "handshake", [], *up.pop(0))
        self.add(listener, caller, "handshake", [], *down.pop(0))
        streaming = False
        for raw, frames in up:
            message = body(frames, framing1)
            ops = ops_of(message)
            if not streaming and isinstance(message, dict) and ops:
                self.add(caller, listener, "request", ops, raw, frames)
                if ops[0].startswith("register-"):
                    streaming = True
                    if ops[0] == "register-worker" and down:
                        self.add(listener, caller, "reply", ops, *down.pop(0))
                elif message.get("reply", True) and down:
                    self.add(listener, caller, "reply", ops, *down.pop(0))
            elif streaming and ops:
                self.add(caller, listener, "stream", ops, raw, frames)
        for raw, frames in down if streaming else ():
            ops = ops_of(body(frames, framing1))
            if ops:
                self.add(listener, caller, "stream", ops, raw, frames)

    def write_index(self, release):
        head = {"release": release, "python": "%d.%d" % sys.version_info[:2]}
        head["samples"] = self.index
        text = json.dumps(head, indent=1) + "\n"
        (self.out / "index.json").write_text(text)


def scenario(client):
    """A bit of everything, small."""
    import operator

    import dask
    from distributed import Event, Lock, Queue, Semaphore, Variable, wait

    x = client.submit(operator.add, 1, 2)
    assert x.result() == 3
    xs = client.map(operator.neg, range(3))
    total = client.submit(sum, xs, retries=1, priority=3)
    assert total.result() == -3
    # Nested tasks and aliases.
    get = {"a": (operator.add, (operator.neg, 1), 2), "b": (operator.add, "a", 1), "c": "b"}
    assert list(client.get(get, ["b", "c"])) == [2, 2]
    boom = client.submit(operator.truediv, 1, 0)
    wait(boom)
    assert isinstance(boom.exception(), ZeroDivisionError)
    boom.retry()
    wait(boom)
    assert dask.delayed(operator.add)(1, dask.delayed(operator.neg)(2)).compute() == -1
    if hasattr(dask, "annotate"):
        with dask.annotate(priority=2, retries=1):
            dask.delayed(operator.neg)(7).compute()

    data = client.scatter([b"x" * 100, 2.5])
    assert client.gather(data, direct=False)[1] == 2.5
    direct = client.scatter({"k": "v"}, direct=True)
    assert client.gather(direct["k"], direct=True) == "v"
    wide = client.submit(bytes, 70_000 // 10)
    assert len(client.gather(wide, direct=False)) == 7000

    client.who_has()
    client.has_what()
    client.nthreads()
    client.processing()
    client.nbytes()
    client.scheduler_info()
    client.call_stack()
    client.profile()
    client.get_versions(check=False)
    client.get_task_stream()
    client.get_scheduler_logs()
    client.get_worker_logs()
    client.set_metadata(["a", "b"], 1)
    assert client.get_metadata(["a", "b"]) == 1
    assert client.get_metadata(["no"], default=None) is None
    client.run(os.getpid)
    client.publish_dataset(data, name="published")
    client.list_datasets()
    client.get_dataset("published")
    client.unpublish_dataset("published")

    queue = Queue("q", maxsize=3)
    queue.put(1)
    queue.put(x)
    queue.qsize()
    assert queue.get() == 1
    queue.get()
    variable = Variable("v")
    variable.set(x)
    variable.get()
    variable.set("text")
    variable.get()
    variable.delete()
    with Lock("l"):
        pass
    with Semaphore(2, "s"):
        pass
    event = Event("e")
    event.set()
    event.wait()
    event.clear()
    try:
        event.wait(timeout=0.01)
    except Exception:
        pass
    if hasattr(client, "log_event"):
        client.log_event("topic", {"some": ["thing", 1.5]})
        client.get_events("topic")
    if hasattr(client, "subscribe_topic"):
        client.subscribe_topic("topic", lambda event: None)
        client.log_event("topic", "seen")
        time.sleep(0.3)
        client.unsubscribe_topic("topic")

    slow = client.submit(time.sleep, 0.3)
    client.cancel(slow)
    client.replicate([x])
    try:
        client.rebalance()
    except Exception:
        pass
    # A task that submits, and one that secedes.
    client.submit(from_worker, 4).result()
    try:
        import dask.array as da

        array = da.ones((4,), chunks=2)
        assert (array + 1).sum().compute() == 8
    except ImportError:
        pass
    try:
        import dask.dataframe as dd
        import pandas as pd

        frame = dd.from_pandas(pd.DataFrame({"a": [1, 2, 1], "b": [1, 2, 3]}), npartitions=2)
        frame.groupby("a").b.sum().compute()
    except ImportError:
        pass
    del xs, total, boom, data, direct, wide, slow
    time.sleep(0.6)
    client.retire_workers()
    time.sleep(0.3)


def from_worker(n):
    from distributed import secede, worker_client

    secede()
    with worker_client(separate_thread=False) as client:
        import operator

        return client.submit(operator.add, n, 1).result()


SCHEDULER = "from distributed.cli.dask_scheduler import main; main()"
WORKER = "from distributed.cli.dask_worker import main; main()"


def wait_for_port(port, process):
    deadline = time.time() + 60
    while time.time() < deadline:
        if process.poll() is not None:
            raise SystemExit("a stock peer ended early: exit code %s" % process.returncode)
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("nobody listens on port %d" % port)


def record(python, out):
    import distributed
    from distributed import Client

    release = distributed.__version__
    numbers = tuple(int(part) for part in release.split(".")[:2])
    framing1 = numbers < F1_BEFORE
    scheduler_port, worker_port = free_port(), free_port()
    client_relay = Relay("client", "scheduler", free_port(), scheduler_port)
    worker_relay = Relay("worker", "scheduler", free_port(), scheduler_port)
    inward = Relay("scheduler", "worker", free_port(), worker_port)
    run_relays([client_relay, worker_relay, inward])
    environment = dict(os.environ)
    environment.update(
        PYTHONPATH=str(pathlib.Path(__file__).parent),
        DASK_DISTRIBUTED__COMM__COMPRESSION="None",
        DASK_DISTRIBUTED__ADMIN__LOG_FORMAT="%(message)s",
    )
    with tempfile.TemporaryDirectory() as scratch:
        processes = []

        def start(code, *args):
            command = [python, "-c", code, *args]
            process = subprocess.Popen(
                command, cwd=scratch, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            processes.append(process)
            return process

        try:
            host = "tcp://127.0.0.1:%d"
            scheduler = start(
                SCHEDULER, "--host", "127.0.0.1", "--port", str(scheduler_port), "--dashboard-address", "127.0.0.1:0"
            )
            wait_for_port(scheduler_port, scheduler)
            worker = start(
                WORKER,
                host % worker_relay.port,
                "--no-nanny",
                "--nthreads",
                "2",
                "--name",
                "recorded",
                "--listen-address",
                host % worker_port,
                "--contact-address",
                host % inward.port,
                "--no-dashboard",
            )
            wait_for_port(worker_port, worker)
            with Client(host % client_relay.port) as client:
                client.wait_for_workers(1)
                scenario(client)
            time.sleep(0.5)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.bin"):
        old.unlink()
    samples = Samples(out)
    for relay in (client_relay, worker_relay, inward):
        for connection in relay.connections:
            samples.connection(relay, connection, framing1)
    samples.write_index(release)
    total = sum(entry["bytes"] for entry in samples.index)
    print("%s: %d messages, %d bytes in %s" % (release, len(samples.index), total, out))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter with the release")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the samples")
    options = parser.parse_args()
    python = os.path.abspath(options.python)
    if python != os.path.abspath(sys.executable):
        os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])
    record(python, options.out.absolute())


if __name__ == "__main__":
    main()
