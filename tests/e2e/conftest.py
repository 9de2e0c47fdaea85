"""Fixtures: `release`, `cluster` (shared between tests), `new_cluster` (a test's own)."""

import pytest

from harness.cluster import Cluster, stock_scheduler
from harness.releases import KINDS, RELEASES


def pytest_configure(config):
    config.addinivalue_line("markers", "native_only: says something that the stock scheduler does not do")


def pytest_collection_modifyitems(config, items):
    # Tests that share a cluster run in one process of the runner, in portions that can be spread evenly.
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        scenario = params.get("scenario", "").split(".")[0]
        shared = f"{params.get('release')} {params.get('workers', 'stock')} {scenario}"
        group = shared if "cluster" in item.fixturenames else item.nodeid
        item.add_marker(pytest.mark.xdist_group(group))
        if stock_scheduler() and item.get_closest_marker("native_only"):
            item.add_marker(pytest.mark.skip(reason="the stock scheduler does not do this"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.call_failed = report.failed
        if report.failed:
            for cluster in getattr(item, "clusters", []):
                report.sections.extend(cluster.logs())
    return report


@pytest.fixture(params=RELEASES)
def release(request):
    """A stock release; a test that uses it runs once with each."""
    return request.param


class SharedClusters:
    """One cluster per release and kind of workers (`harness.releases.KINDS`), with two of them that have one thread.

    One that a test has broken is replaced.
    """

    def __init__(self, folders):
        self.folders, self.clusters = folders, {}

    def get(self, release, workers):
        which = release, workers
        if which not in self.clusters:
            folder = self.folders.mktemp(f"shared-{release}-{workers}")
            self.clusters[which] = Cluster(folder, release, kinds=KINDS[workers])
        return self.clusters[which]

    def discard(self, *which):
        self.clusters.pop(which).close()

    def close(self):
        for which in list(self.clusters):
            self.discard(*which)


@pytest.fixture(scope="session")
def shared_clusters(tmp_path_factory):
    shared = SharedClusters(tmp_path_factory)
    yield shared
    shared.close()


@pytest.fixture
def workers():
    """The kind of the workers of `cluster`; tests that want others are parametrized with it."""
    return "stock"


@pytest.fixture
def cluster(request, shared_clusters, release, workers):
    """A running cluster of the release, shared with other tests: leave it as it was."""
    cluster = shared_clusters.get(release, workers)
    request.node.clusters = [cluster]
    yield cluster
    try:
        cluster.check()
    except AssertionError:
        shared_clusters.discard(release, workers)
        raise
    if getattr(request.node, "call_failed", True):
        shared_clusters.discard(release, workers)


@pytest.fixture
def new_cluster(request, tmp_path):
    """Makes clusters that end with the test: new_cluster(release, workers=2, options=…, environment=…, …)."""
    clusters = request.node.clusters = []

    def make(release, *args, **kwargs):
        folder = tmp_path / f"cluster-{len(clusters)}"
        folder.mkdir()
        clusters.append(Cluster(folder, release, *args, **kwargs))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.close()
