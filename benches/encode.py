"""Writes graphs to a file as a stock client sends them, byte for byte.

Usage: encode.py SHAPE TASKS COUNT FILE. The first graph is a small one of the same shape, for warming up; COUNT of
TASKS tasks follow.
Called by `cargo xtask bench`; runs on Python 3.8 too. Functions are importable anywhere; nothing runs them.
"""

import asyncio
import operator
import struct
import sys
import uuid

import dask
import distributed
from distributed import Client, Scheduler
from distributed.protocol import dumps

WARM_UP = 100
# Since this release each message is preceded by its length as well.
WITH_LENGTH = (2021, 3)


def merge(tasks):
    """Independent tasks and their sum."""
    name = "negative-" + uuid.uuid4().hex
    keys = [f"{name}-{i}" for i in range(tasks - 1)]
    graph = {key: (operator.neg, i) for i, key in enumerate(keys)}
    total = "total-" + uuid.uuid4().hex
    graph[total] = (sum, keys)
    return graph, [total]


def independent(tasks):
    """What Client.map makes."""
    name = "negative-" + uuid.uuid4().hex
    graph = {f"{name}-{i}": (operator.neg, i) for i in range(tasks)}
    return graph, list(graph)


def tree(tasks):
    """Sums of pairs, of as many leaves as there is room for."""
    name = uuid.uuid4().hex
    level = [f"leaf-{name}-{i}" for i in range((tasks + 1) // 2)]
    graph = {key: (operator.neg, i) for i, key in enumerate(level)}
    depth = 0
    while len(level) > 1:
        depth += 1
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [f"add-{name}-{depth}-{i}" for i in range(len(pairs))]
        graph.update((key, (sum, pair)) for key, pair in zip(level, pairs))
    return graph, level


def chain(tasks):
    """Each needs the one before."""
    name = "link-" + uuid.uuid4().hex
    graph = {f"{name}-0": (operator.neg, 1)}
    graph.update((f"{name}-{i}", (operator.neg, f"{name}-{i - 1}")) for i in range(1, tasks))
    return graph, [f"{name}-{tasks - 1}"]


SHAPES = {shape.__name__: shape for shape in (merge, independent, tree, chain)}


def on_the_wire(message):
    frames = [bytes(frame) for frame in dumps([message])]
    prelude = struct.pack(f"<{1 + len(frames)}Q", len(frames), *map(len, frames))
    data = prelude + b"".join(frames)
    release = tuple(int(part) for part in distributed.__version__.split(".")[:2])
    return struct.pack("<Q", len(data)) + data if release >= WITH_LENGTH else data


async def encode(shape, tasks, count, file):
    dask.config.set({"distributed.comm.compression": None})
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
        async with Client(scheduler.address, asynchronous=True, set_as_default=False) as client:
            sent, send = [], client._send_to_scheduler
            client._send_to_scheduler = sent.append
            for size in [min(tasks, WARM_UP)] + [tasks] * count:
                client.get(*SHAPES[shape](size), sync=False)
                (message,) = [message for message in sent if message["op"].startswith("update-graph")]
                file.write(on_the_wire(message))
                sent.clear()
            client._send_to_scheduler = send


def main():
    shape, tasks, count, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    with open(path, "wb") as file:
        asyncio.run(encode(shape, tasks, count, file))


if __name__ == "__main__":
    main()
