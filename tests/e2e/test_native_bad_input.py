"""Tasks and peers that misbehave: clients see what they see with stock workers, and the rest goes on."""

import pytest

from harness.control_group import ControlGroup

RELEASE = "2026.8.0"


@pytest.fixture(params=["native", "stock"])
def pair(request, new_cluster):
    """Two workers of one kind under our scheduler."""
    return new_cluster(RELEASE, kinds=(request.param, request.param))


def test_tasks_that_do_not_do(pair):
    pair.run("native_bad_input.results_that_can_not_be_pickled")
    # The class of the exception can not be sent: its text is.
    assert pair.run("native_bad_input.exceptions_that_can_not_be_pickled") == "Exception"
    name, text = pair.run("native_bad_input.modules_that_are_missing")
    assert name == "RuntimeError" and text.startswith("Error during deserialization of the task on the worker.")
    pair.run("native_bad_input.exhausts_what_it_may_have")
    pair.check()


def test_tasks_that_fork(new_cluster):
    """Pools of processes end, too, whose children stock's workers give their handlers of signals: some never do."""
    cluster = new_cluster(RELEASE, kinds=("native", "native"))
    cluster.run("native_bad_input.forks")
    cluster.check()


def test_a_disk_that_is_full(new_cluster):
    shares = {"TARGET": "0.1", "SPILL": "0.9"}
    limits = {f"DASK_DISTRIBUTED__WORKER__MEMORY__{name}": value for name, value in shares.items()}
    limits["DASK_DISTRIBUTED__WORKER__MEMORY__SPILL_COMPRESSION"] = "False"
    cluster = new_cluster(RELEASE, workers=0)
    worker = cluster.add_worker(native=True, options=["--memory-limit", "400 MiB"], **limits)
    worker.wait_until_registered()
    cluster.run("native_bad_input.a_disk_takes_no_more", worker.contact_address)
    assert "File too large" in worker.text()
    cluster.check()


DEATHS = {
    "exit": "exited with status 3 while running 'deadly'",
    "fault": "was killed by signal 11 (SIGSEGV) while running 'deadly'",
    "kill": "was killed by signal 9 (SIGKILL), not by its nanny while running 'deadly'",
    "memory": "by its nanny since it exceeded its memory budget while running 'deadly'",
}


@pytest.mark.parametrize(
    ("release", "how"), [(RELEASE, how) for how in DEATHS] + [("2022.12.0", "fault"), ("2.30.1-py39", "fault")]
)
def test_clients_are_told_why_a_worker_died(new_cluster, release, how):
    """In the cause of `KilledWorker`, which Python prints with it, and among the events of the worker."""
    environment = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    cluster = new_cluster(release, workers=0, environment=environment)
    worker = cluster.add_worker(native=True, nanny=True, options=["--memory-limit", "400 MB"])
    worker.wait_until_registered()
    events = cluster.version >= (2021,)
    told = cluster.run("native_bad_input.is_blamed", how, events)
    assert DEATHS[how] in told["cause"]
    assert not events or DEATHS[how] in told["events"][-1]
    assert DEATHS[how] in worker.text()
    assert DEATHS[how] in cluster.scheduler.text()
    if how in ("kill", "memory"):
        assert "MiB of 381.47 MiB" in told["cause"]
    cluster.check()


@pytest.fixture
def little_memory():
    """A control group of 300 MiB, in which worker and nanny leave room for about 200."""
    try:
        group = ControlGroup(300 << 20)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.remove()


def test_clients_are_told_of_a_kill_by_the_kernel(little_memory, new_cluster):
    """A task that takes more than there is ends its worker at once, before anybody has seen it grow."""
    cluster = new_cluster(RELEASE, workers=1, environment={"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"})
    no_guard = {"DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False"}
    options = ["--memory-limit", "300 MiB"]
    worker = cluster.add_worker(
        native=True, nanny=True, name="little", options=options, within=little_memory, **no_guard
    )
    worker.wait_until_registered()
    there = [cluster.workers[0].worker_name]
    told = cluster.run("native_bad_input.is_blamed", "memory", here=["little"], there=there)
    reason = "was killed by signal 9 (SIGKILL), most likely by the kernel for want of memory while running 'deadly'"
    assert little_memory.kills == 1
    assert reason in told["cause"]
    assert "MiB of 300.00 MiB" in told["cause"]
    assert reason in told["events"][-1]
    assert reason in worker.text()
    assert reason in cluster.scheduler.text()
    cluster.check()


@pytest.mark.parametrize("release", ["2022.12.0", RELEASE])
def test_a_stock_scheduler_keeps_why_a_worker_died(new_cluster, release):
    environment = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    cluster = new_cluster(release, workers=0, stock=True, environment=environment)
    cluster.add_worker(native=True, nanny=True).wait_until_registered()
    told = cluster.run("native_bad_input.is_blamed", "exit")
    assert told["cause"] is None
    assert DEATHS["exit"] in told["events"][-1]


def test_what_is_known_of_a_worker_without_a_nanny(new_cluster):
    """The scheduler has what the worker told before."""
    environment = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    cluster = new_cluster(RELEASE, workers=0, environment=environment)
    for native in (True, False):
        worker = cluster.add_worker(native=native, options=["--memory-limit", "1 GiB"])
        worker.wait_until_registered()
        told = cluster.run("native_bad_input.is_blamed_once", "exit")
        assert told.startswith("the connection to worker tcp://127.0.0.1:")
        assert "MiB of 1.00 GiB when it last told" in told


@pytest.fixture
def worker(new_cluster):
    cluster = new_cluster(RELEASE, workers=1, native=True)
    return cluster, cluster.workers[0]


# What a peer answers when it is asked for data, and what becomes of tasks that need the data.
ANSWERS = {
    "nothing": "finished",
    "truncated": "finished",
    "huge": "finished",
    "many_frames": "finished",
    "garbage": "finished",
    "other_keys": "finished",
    "no_status": "finished",
    "number": "finished",
    "error": "finished",
    "bad_pickle": "UnpicklingError",
    "bad_header": "KeyError",
}


def test_peers_that_answer_badly(worker):
    """The data is fetched once more, or the task fails as it does with stock. (Stock hangs with most of these.)"""
    cluster, worker = worker
    for how, outcome in ANSWERS.items():
        outcomes = cluster.run("native_bad_input.misled_by_a_peer", how, [worker.worker_name])
        assert set(outcomes) <= {"finished", outcome}, how
        assert outcome in outcomes, how
    cluster.check()
    assert "broken invariant" not in worker.text()
    assert "panicked" not in worker.text()
