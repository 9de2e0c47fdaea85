"""P2P shuffles, joins and rechunks with stock clients, and workers of stock and ours.

`cargo xtask test --only p2p` runs these with further releases, each of which asks for shuffles in another way.
"""

import signal

import pytest

from harness.releases import p2p_environments, version_tuple

ENVIRONMENTS = p2p_environments()
# Before, a worker that leaves is an error for the shuffles it takes part in: workers have no other answer.
RESTARTS = (2023, 6, 0)
LATER = [release for release in ENVIRONMENTS if version_tuple(release) >= RESTARTS]
MIXED = ("native", "stock", "native")
NATIVE = ("native",) * 4


def clusters(releases, native):
    """Releases with stock workers, and those that have native ones, with these."""
    stock = [pytest.param(release, None, id=release) for release in releases]
    return stock + [pytest.param(release, native, id=f"{release}-native") for release in releases]


@pytest.mark.parametrize(("release", "kinds"), clusters(ENVIRONMENTS, MIXED))
def test_frames_and_arrays_change_their_partitions(new_cluster, release, kinds):
    cluster = new_cluster(ENVIRONMENTS[release], workers=3, kinds=kinds)
    cluster.run("p2p.shuffles")
    cluster.run("p2p.joins")
    if version_tuple(release) >= (2023, 2, 1):
        cluster.run("p2p.rechunks")
    cluster.run("p2p.an_input_fails")
    cluster.run("p2p.is_cancelled")
    cluster.check()


@pytest.mark.parametrize(("release", "kinds"), clusters(LATER, NATIVE))
def test_a_shuffle_begins_again_without_the_worker_that_was_killed(new_cluster, release, kinds):
    cluster = new_cluster(ENVIRONMENTS[release], workers=4, kinds=kinds)
    for stage in ["sending", "taking"]:
        call = cluster.start("p2p.survives", stage)
        call.told()
        cluster.workers.pop().signal(signal.SIGKILL)
        call.go_on()
        call.result(timeout=90)
    cluster.check()


@pytest.mark.parametrize(("release", "kinds"), clusters(LATER, NATIVE))
def test_a_worker_retires_from_a_shuffle(new_cluster, release, kinds):
    cluster = new_cluster(ENVIRONMENTS[release], workers=4, kinds=kinds)
    for stage in ["sending", "taking"]:
        cluster.run("p2p.survives_a_retirement", stage, timeout=90)
    cluster.check()
