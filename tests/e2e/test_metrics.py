"""What Prometheus is told, beside what stock 2026.8.0 tells it in the same run: boards made for stock go on working."""

import re
import urllib.request

import pytest

# The newest, with the packages that stock needs for all of them.
RELEASE = "2026.8.0-prometheus"
# Work that leaves something in every family; both workers spill.
SPILLS = {"DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "0.1"}
SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? \S+$")
# Labels whose values are not the same in every cluster.
FREE = {"name", "task_prefix_name", "state", "activity"}


def page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return answer.read().decode()


def families(text):
    """Types by family."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def series(text):
    """Names with their labels, and the values of labels that are the same everywhere."""
    found = set()
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = SAMPLE.match(line)
            assert match, line
            labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match["labels"] or "")
            found.add((match["name"], tuple(sorted((name, "" if name in FREE else value) for name, value in labels))))
    return found


def check(ours, theirs, without=()):
    """Everything of theirs is in ours, but what begins with a word of `without`."""
    missing = {(name, kind) for name, kind in families(theirs).items() if not name.startswith(tuple(without))}
    missing -= set(families(ours).items())
    assert not missing, missing
    missing = {entry for entry in series(theirs) if not entry[0].startswith(tuple(without))} - series(ours)
    assert not missing, missing


@pytest.fixture
def works(new_cluster):
    def make(stock):
        cluster = new_cluster(RELEASE, workers=0, stock=stock)
        options = ["--memory-limit", "1GB"]
        cluster.workers = [cluster.add_worker(native=native, options=options, **SPILLS) for native in (True, False)]
        for worker in cluster.workers:
            worker.wait_until_registered()
        ports = cluster.run("native_measures.fills_metrics", *[worker.contact_address for worker in cluster.workers])
        return cluster, ports

    return make


@pytest.mark.parametrize("stock", [False, True])
def test_metrics_of_a_worker(works, stock):
    _, (ours, theirs) = works(stock)
    ours, theirs = page(ours), page(theirs)
    assert "dask_worker_task_duration_median_seconds" in theirs
    # The interpreter is the same, too.
    check(ours, theirs)


def test_metrics_of_a_scheduler(works):
    ours, theirs = [works(stock)[0].scheduler.dashboard_port for stock in (False, True)]
    ours, theirs = page(ours), page(theirs)
    assert 'dask_semaphore_max_leases{name="leases"}' in theirs
    # There is no Python in our scheduler.
    check(ours, theirs, without=["python_"])
