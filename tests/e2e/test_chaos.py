"""Stock workers are killed, stopped and resumed, and their connections cut, while a graph of 20,000 tasks runs. The
result is right.

`cargo xtask chaos` is the long form: more rounds, each with other faults, and more of them.
"""

import os
import random
import re
import signal
import threading
import time

import pytest

from harness.proxy import Proxy
from harness.releases import RELEASES

ROUNDS = int(os.environ.get("OXIDASK_CHAOS_ROUNDS", "1"))
FAULTS = 6 if ROUNDS == 1 else 30
WORKERS = 3
LEAVES = 10_000
# Deaths are on purpose here: no task is given up because of them.
ENVIRONMENT = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000"}


class Chaos:
    """Hurts the workers of a cluster, one after the other, and replaces those that end."""

    def __init__(self, cluster, seed):
        self.cluster, self.random = cluster, random.Random(seed)
        self.proxies = {}
        self.done = dict.fromkeys(["kill", "stop", "cut"], 0)

    def keep_up(self):
        workers = self.cluster.workers
        workers[:] = [worker for worker in workers if worker.alive]
        while len(workers) < WORKERS:
            # Each worker reaches the scheduler through a proxy of its own.
            proxy = Proxy(self.cluster.address)
            workers.append(self.cluster.add_worker(address=proxy.address))
            self.proxies[workers[-1]] = proxy

    def registered(self):
        return [w for w in self.cluster.workers if w.alive and re.search(r"Registered to:\s+tcp", w.text())]

    def hurt(self):
        # All three happen in every run.
        what = min(self.done, key=self.done.get)
        worker = self.random.choice(self.registered())
        if what == "kill":
            worker.signal(signal.SIGKILL)
        elif what == "stop":
            worker.signal(signal.SIGSTOP)
            time.sleep(self.random.uniform(0.2, 2))
            worker.signal(signal.SIGCONT)
        else:
            self.proxies[worker].cut()
        self.done[what] += 1

    def until(self, ended):
        """Faults come as fast as workers that can be spared."""
        while not ended.wait(self.random.uniform(0.2, 1)):
            self.keep_up()
            if sum(self.done.values()) < FAULTS and len(self.registered()) == WORKERS:
                self.hurt()

    def close(self):
        for proxy in self.proxies.values():
            proxy.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_large_graph_survives_chaos(new_cluster, seed):
    cluster = new_cluster(RELEASES[-1], workers=0, environment=ENVIRONMENT)
    chaos = Chaos(cluster, seed)
    try:
        chaos.keep_up()
        for worker in cluster.workers:
            worker.wait_until_registered()
        call = cluster.start("chaos.sums_up_a_tree", LEAVES)
        assert call.told() >= 2 * LEAVES - 1
        ended = threading.Event()
        outcome = []

        def follow():
            try:
                outcome.append(call.result(timeout=800))
            except AssertionError as failure:
                outcome.append(failure)
            ended.set()

        threading.Thread(target=follow, daemon=True).start()
        chaos.until(ended)
        assert outcome == [None]
        assert all(chaos.done.values()), chaos.done
        cluster.check()
    finally:
        chaos.close()
