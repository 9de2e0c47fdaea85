"""Trivial tasks in graphs of some shapes: what they cost scheduler, workers and client. Prints one JSON object.

Called by `cargo xtask bench tasks`, on 3.8 too; `tasks.py --help` says how.
"""

import argparse
import json
import operator
import os
import statistics
import sys
import time
import uuid

from distributed import Client, wait
from measuring import Processes, pinged

# Submissions one after the other, each waited for, at most.
SUBMISSIONS = 100
# Tasks that one task needs, and tasks of each side of an all-to-all.
FAN_IN, SIDE = 1000, 100


def inc(x):
    return x + 1


def chains(tasks):
    """A hundred chains: 100 × 100 of 20,000 tasks."""
    name, length = "link-" + uuid.uuid4().hex, max(2, tasks // 200)
    graph, keys = {}, []
    for chain in range(100):
        graph[f"{name}-{chain}-0"] = (operator.neg, chain)
        for i in range(1, length):
            graph[f"{name}-{chain}-{i}"] = (operator.neg, f"{name}-{chain}-{i - 1}")
        keys.append(f"{name}-{chain}-{length - 1}")
    sign = -1 if length % 2 else 1
    return graph, keys, [sign * chain for chain in range(100)]


def tree(tasks):
    """Sums of pairs: 2^13 leaves of 20,000 tasks."""
    name, leaves = uuid.uuid4().hex, 2 ** ((tasks // 2).bit_length() - 1)
    level = [f"leaf-{name}-{i}" for i in range(leaves)]
    graph = {key: (operator.neg, i) for i, key in enumerate(level)}
    depth = 0
    while len(level) > 1:
        depth += 1
        above = [f"add-{name}-{depth}-{i}" for i in range(len(level) // 2)]
        graph.update((key, (operator.add, level[2 * i], level[2 * i + 1])) for i, key in enumerate(above))
        level = above
    return graph, level, [-sum(range(leaves))]


def fan_in(tasks):
    """Sums of a thousand tasks each: 20 of 20,000 tasks."""
    name = uuid.uuid4().hex
    graph, keys = {}, []
    for total in range(max(1, tasks // FAN_IN)):
        parts = [f"part-{name}-{total}-{i}" for i in range(FAN_IN)]
        graph.update((key, (operator.neg, i)) for i, key in enumerate(parts))
        keys.append(f"total-{name}-{total}")
        graph[keys[-1]] = (sum, parts)
    return graph, keys, [-sum(range(FAN_IN))] * len(keys)


def all_to_all(tasks):
    """A hundred tasks, and a hundred that need all of them: ten times of 20,000 tasks."""
    name = uuid.uuid4().hex
    graph, keys, values = {}, [], []
    for times in range(max(1, tasks // 2000)):
        parts = [f"part-{name}-{times}-{i}" for i in range(SIDE)]
        graph.update((key, (operator.neg, i)) for i, key in enumerate(parts))
        for i in range(SIDE):
            keys.append(f"total-{name}-{times}-{i}")
            graph[keys[-1]] = (sum, parts, i)
            values.append(i - sum(range(SIDE)))
    return graph, keys, values


GRAPHS = {"chains": chains, "tree": tree, "fan-in": fan_in, "all-to-all": all_to_all}
SHAPES = ["map", *GRAPHS]


def connected(client, rival):
    """The client that submits, and how to wait for its futures: Dask's, or a rival's that moves into the cluster."""
    if rival == "frisky":
        import frisky

        return frisky.hijack(client, tunnel_via_dashboard=False), frisky.wait
    return client, wait


class Bench:
    def __init__(self, options, dask_client):
        self.options = options
        self.client, self.wait = connected(dask_client, options.rival)
        self.parties = {
            "scheduler": Processes([options.scheduler]),
            "workers": Processes(options.workers),
            # Who asks meanwhile is no part of it.
            "client": Processes([os.getpid()], children=False),
        }

    def measured(self, tasks, submit):
        """Figures per task of a submission until its futures are done; and the futures."""
        figures = {"tasks": tasks}
        with pinged(self.options.ping, self.options.address, figures):
            memory = self.parties["scheduler"].resident_bytes()
            before = {name: party.cpu_seconds() for name, party in self.parties.items()}
            started = time.perf_counter()
            futures = submit()
            self.wait(futures)
            wall = time.perf_counter() - started
            used = {name: party.cpu_seconds() - before[name] for name, party in self.parties.items()}
            memory = self.parties["scheduler"].resident_bytes() - memory
        figures.update((name + "_cpu_us_per_task", seconds / tasks * 1e6) for name, seconds in used.items())
        figures["wall_us_per_task"] = wall / tasks * 1e6
        figures["scheduler_bytes_per_task"] = memory / tasks
        return figures, futures

    def map(self):
        """Client.map; and single tasks, one after the other."""
        tasks = self.options.tasks
        figures, futures = self.measured(tasks, lambda: self.client.map(inc, range(tasks)))
        assert self.client.submit(sum, futures[:100]).result() == sum(range(1, 101))
        del futures
        time.sleep(1)
        figures["submit_to_result_ms"] = statistics.median(self.latencies_ms(min(SUBMISSIONS, tasks)))
        return figures

    def graph(self, make):
        """A graph of dictionaries and tuples, as it is given to Client.get."""
        graph, keys, values = make(self.options.tasks)
        figures, futures = self.measured(len(graph), lambda: self.client.get(graph, keys, sync=False))
        assert self.client.gather(futures) == values
        return figures

    def latencies_ms(self, count):
        found = []
        # Numbers that were not asked for before.
        for number in range(10**6, 10**6 + count):
            begin = time.perf_counter()
            assert self.client.submit(inc, -number).result() == 1 - number
            found.append((time.perf_counter() - begin) * 1e3)
            # Apart, as from somebody who types: nothing of one waits in a batch of the other.
            time.sleep(0.02)
        return found

    def run(self):
        """Figures of each shape; `map` has the memory of workers that have done nothing as well."""
        idle = self.parties["workers"].resident_bytes()
        # Connections, imports and the first pages of every structure are not what is measured.
        warm_up = self.client.map(inc, range(-1000, 0))
        self.wait(warm_up)
        del warm_up
        found = {}
        for shape in self.options.shapes:
            print(f"  {shape}", file=sys.stderr, flush=True)
            # What is let go of is not charged to the next one.
            time.sleep(1)
            found[shape] = self.map() if shape == "map" else self.graph(GRAPHS[shape])
        if "map" in found:
            found["map"]["workers_idle_mib"] = idle / 2**20
        return found


def command_line():
    def listed(kind):
        return lambda text: [kind(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="of the scheduler")
    parser.add_argument("scheduler", type=int, help="its process")
    parser.add_argument("workers", type=listed(int), help="processes of the workers, separated by commas")
    parser.add_argument("tasks", type=int, help="of map; the graphs have at most as many")
    parser.add_argument("--shapes", type=listed(str), default=SHAPES, help="separated by commas: " + ", ".join(SHAPES))
    parser.add_argument("--rival", choices=["frisky"], help="moves into the cluster and is measured instead")
    parser.add_argument("--ping", help="oxidask-load, which asks the scheduler meanwhile")
    return parser.parse_args()


def main():
    options = command_line()
    with Client(options.address, timeout="60s") as client:
        client.wait_for_workers(len(options.workers))
        print(json.dumps(Bench(options, client).run()))


if __name__ == "__main__":
    main()
