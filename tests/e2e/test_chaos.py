"""Stock workers are killed, stopped and resumed, and their connections cut, while a large graph runs. The result is right.

`OXIDASK_CHAOS_ROUNDS` (`cargo xtask test --only e2e chaos` runs one) says how often the whole is repeated, each time with
other faults.
"""

import os
import random
import signal
import threading
import time

import pytest
from harness.proxy import Proxy
from harness.releases import RELEASES

ROUNDS = int(os.environ.get("OXIDASK_CHAOS_ROUNDS", "1"))
WORKERS = 3
LEAVES = 10_000
# Deaths are on purpose here: no task is given up because of them.
ENVIRONMENT = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000"}


class Chaos:
    """Hurts the workers of a cluster until it is told to end, and keeps up their number."""

    def __init__(self, cluster, proxy, seed):
        self.cluster, self.proxy, self.random = cluster, proxy, random.Random(seed)
        self.done = dict.fromkeys(["kill", "stop", "cut"], 0)

    def keep_up(self):
        workers = self.cluster.workers
        workers[:] = [worker for worker in workers if worker.alive]
        while len(workers) < WORKERS:
            workers.append(self.cluster.add_worker(address=self.proxy.address))

    def hurt(self, what):
        worker = self.random.choice(self.cluster.workers)
        if what == "kill":
            worker.signal(signal.SIGKILL)
        elif what == "stop":
            worker.signal(signal.SIGSTOP)
            time.sleep(self.random.uniform(0.2, 2))
            worker.signal(signal.SIGCONT)
        else:
            self.proxy.cut()
        self.done[what] += 1

    def until(self, ended):
        while not ended.wait(self.random.uniform(1, 3)):
            self.keep_up()
            # All three happen in every run, then chance decides.
            fewest = min(self.done, key=self.done.get)
            self.hurt(fewest if self.done[fewest] == 0 else self.random.choice(list(self.done)))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_large_graph_survives_chaos(new_cluster, seed):
    cluster = new_cluster(RELEASES[-1], workers=0, environment=ENVIRONMENT)
    proxy = Proxy(cluster.address)
    try:
        chaos = Chaos(cluster, proxy, seed)
        chaos.keep_up()
        for worker in cluster.workers:
            worker.wait_until_registered()
        call = cluster.start("chaos.sums_up_a_tree", LEAVES)
        assert call.told() >= 2 * LEAVES - 1
        ended = threading.Event()
        outcome = []

        def follow():
            try:
                outcome.append(call.result(timeout=560))
            except AssertionError as failure:
                outcome.append(failure)
            ended.set()

        threading.Thread(target=follow, daemon=True).start()
        chaos.until(ended)
        assert outcome == [None]
        assert all(chaos.done.values()), chaos.done
        cluster.check()
    finally:
        proxy.close()
