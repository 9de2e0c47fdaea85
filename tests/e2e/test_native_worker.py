"""The native worker in the interpreter of a release: alone, beside a stock worker, under our scheduler and stock's."""

import signal

import pytest

from harness.near import why_memory_is_not_read
from harness.releases import NATIVE
from harness.waiting import wait_for

RELEASE = "2026.8.0"
OURS, STOCK = "our scheduler", "stock scheduler"
# What looks at copies, or changes one in place, does not want any of them taken away.
NO_MANAGER = {"DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER__START": "false"}


@pytest.fixture
def workers(new_cluster):
    """Starts a cluster with workers of these kinds: workers(OURS, "native", "stock")."""

    def make(scheduler, *kinds):
        return new_cluster(RELEASE, stock=scheduler == STOCK, kinds=kinds, environment=NO_MANAGER)

    return make


@pytest.mark.parametrize(
    ("scheduler", "kinds"),
    [(OURS, ("native", "native")), (OURS, ("native", "stock")), (STOCK, ("native", "stock"))],
)
def test_real_work(workers, scheduler, kinds):
    cluster = workers(scheduler, *kinds)
    for scenario in ("computes", "maps", "transfers", "transfers_large", "fails"):
        cluster.run(f"native_worker.{scenario}", len(kinds))
    cluster.check()
    assert "broken invariant" not in cluster.workers[0].text()


def test_data_on_the_same_machine(new_cluster):
    """Where its memory may be read, and where the system refuses it."""
    if refused := why_memory_is_not_read():
        pytest.skip(f"no process may read the memory of another here: {refused}")
    cluster = new_cluster(RELEASE, kinds=("native", "native"), environment=NO_MANAGER)
    cluster.run("native_worker.transfers_large", 2)
    addresses = [worker.contact_address for worker in cluster.workers]

    def refusals():
        return [worker.text().count("is not read") for worker in cluster.workers]

    assert refusals() == [0, 0]
    for address in addresses:
        cluster.run("native_worker.forbids_reading_memory", address)
    # It is tried once, by the one that fetches.
    for _ in range(2):
        cluster.run("native_worker.transfers_large", 2)
        assert sorted(refusals()) == [0, 1]
    cluster.check()


def test_memory_of_others_is_read_only_where_that_is_wanted(new_cluster):
    cluster = new_cluster(RELEASE, kinds=("native",), environment=NO_MANAGER)
    off = {"DASK_DISTRIBUTED__WORKER__NEAR_MEMORY": "false"}
    cluster.workers.append(cluster.add_worker(native=True, **off))
    cluster.workers[-1].wait_until_registered()
    cluster.run("native_worker.transfers_large", 2)
    cluster.run("native_worker.forbids_reading_memory", cluster.workers[0].contact_address)
    cluster.run("native_worker.transfers_large", 2)
    assert not any("is not read" in worker.text() for worker in cluster.workers)
    cluster.check()


@pytest.mark.parametrize("release", NATIVE["native"])
def test_under_the_stock_scheduler_of_every_release(new_cluster, release):
    """Where the scheduler is Python in somebody's own process: jobqueue, `LocalCluster`'s kin."""
    cluster = new_cluster(release, stock=True, kinds=("native", "stock"))
    for scenario in ("computes", "transfers"):
        cluster.run(f"native_worker.{scenario}", 2)


def test_collections(new_cluster):
    cluster = new_cluster(RELEASE, workers=2, native=True)
    # Most of the time goes into the imports of four processes.
    cluster.run("native_worker.collections", 2, timeout=120)


@pytest.mark.parametrize("scheduler", [OURS, STOCK])
def test_the_worker_as_tasks_see_it(workers, scheduler):
    cluster = workers(scheduler, "native", "stock")
    ours, other = (worker.contact_address for worker in cluster.workers)
    cluster.run("native_worker.sees_the_worker", ours)
    cluster.run("native_worker.runs_coroutines", ours)
    cluster.run("native_worker.reschedules", ours, [other])
    cluster.run("native_worker.cancels", ours)


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("release", NATIVE["native"])
def test_functions_are_unpickled_once(new_cluster, release, stock):
    cluster = new_cluster(release, stock=stock, kinds=("native", "stock"))
    addresses = [worker.contact_address for worker in cluster.workers]
    ours, other = cluster.run("native_worker.unpickles_functions", addresses)
    if stock and release == RELEASE:
        # Its scheduler sends a copy with each task, and its workers unpickle each.
        assert ours <= other
    else:
        assert ours == 1


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("release", NATIVE["native"])
def test_no_report_waits_for_what_runs(new_cluster, release, stock):
    new_cluster(release, stock=stock, kinds=("native",)).run("native_worker.no_report_waits_for_what_runs")


@pytest.mark.parametrize("release", ["2022.12.0", RELEASE])
def test_imports_on_two_threads(new_cluster, release, tmp_path):
    """Each would have the other go on with half of a package."""
    new_cluster(release, kinds=("native",)).run("native_worker.imports_on_two_threads", str(tmp_path))


@pytest.mark.parametrize("stock", [False, True])
def test_stealing_works_both_ways(new_cluster, stock):
    interval = {"DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING_INTERVAL": "100ms"}
    cluster = new_cluster(RELEASE, stock=stock, kinds=("native", "stock"), environment=interval)
    ours, other = (worker.contact_address for worker in cluster.workers)
    cluster.run("native_worker.idle_workers_help", ours, other)
    cluster.run("native_worker.idle_workers_help", other, ours)


def test_leaving_and_coming(workers):
    """SIGTERM ends the process with 0; a killed one is replaced by another, which is given the work."""
    cluster = workers(OURS, "native", "native")
    cluster.workers[0].signal(signal.SIGTERM)
    assert cluster.workers[0].wait(20) == 0
    cluster.workers[1].signal(signal.SIGKILL)
    cluster.add_worker(native=True).wait_until_registered()
    cluster.run("workers.computes")


def test_it_does_not_wait_for_ever_for_its_scheduler(new_cluster):
    cluster = new_cluster(RELEASE, workers=0)
    worker = cluster.add_worker(native=True, options=["--death-timeout", "2s"])
    stock_like = cluster.add_worker(native=True, DASK_DISTRIBUTED__WORKER__RECONNECT_TIMEOUT="0s")
    for one in (worker, stock_like):
        one.wait_until_registered()
    cluster.scheduler.signal(signal.SIGKILL)
    wait_for(lambda: not worker.alive, 20, "the end of the worker")
    wait_for(lambda: not stock_like.alive, 20, "the end of the worker")


def test_it_leaves_when_its_scheduler_is_stopped(workers):
    cluster = workers(OURS, "native")
    cluster.scheduler.signal(signal.SIGTERM)
    wait_for(lambda: not cluster.workers[0].alive, 20, "the end of the worker")


def test_what_is_not_built_is_refused(new_cluster):
    cluster = new_cluster(RELEASE, workers=0)
    worker = cluster.add_worker(native=True, options=["--protocol", "ucx"])
    assert worker.wait(20) == 1
    assert "does not support --protocol ucx yet" in worker.text()
