"""What the native worker tells of itself, beside stock's worker of the same release."""

import pytest

NEWEST = "2026.8.0"


@pytest.fixture
def pair(new_cluster):
    """A native worker beside one of stock, and their addresses: pair(release, stock=…, dashboard=…)."""

    def make(release=NEWEST, stock=False, dashboard=False):
        cluster = new_cluster(release, workers=0, stock=stock)
        # The later of two opposite options counts.
        options = ["--memory-limit", "1GB", *(["--dashboard", "--dashboard-prefix", "a/b"] if dashboard else [])]
        spills = {"DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "0.1"}
        cluster.workers = [cluster.add_worker(native=True, options=options, **spills), cluster.add_worker()]
        for worker in cluster.workers:
            worker.wait_until_registered()
        return cluster, [worker.contact_address for worker in cluster.workers]

    return make


@pytest.mark.parametrize(
    ("release", "stock"),
    [("2022.12.0", True), (NEWEST, True), ("2022.12.0", False), (NEWEST, False)],
)
def test_heartbeats(pair, release, stock):
    cluster, addresses = pair(release, stock)
    cluster.run("native_measures.tells_like_stock", *addresses)
    assert "answers a heartbeat" not in cluster.workers[0].text()


@pytest.mark.parametrize("pages", [False, True])
def test_http(pair, pages):
    cluster, addresses = pair(dashboard=pages)
    cluster.run("native_measures.serves_metrics", *addresses, "/a/b" if pages else "")


@pytest.mark.parametrize("stock", [False, True])
def test_transfers(pair, stock):
    cluster, addresses = pair(stock=stock)
    cluster.run("native_measures.shows_transfers", *addresses)


def test_time_by_activity_and_span(new_cluster):
    cluster = new_cluster(NEWEST, workers=0, stock=True)
    worker = cluster.add_worker(native=True)
    worker.wait_until_registered()
    cluster.run("native_measures.spends_time", worker.contact_address)
