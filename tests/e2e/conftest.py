"""Fixtures: `release`, `cluster` (shared between tests), `new_cluster` (a test's own)."""

import pytest

from harness.cluster import Cluster, stock_scheduler
from harness.releases import KINDS, RELEASES

SHARED = pytest.StashKey()


def pytest_configure(config):
    config.addinivalue_line("markers", "native_only: says something that the stock scheduler does not do")


def shared_cluster(item):
    """Release and kind of workers of the shared cluster that a test uses; empty for tests with their own."""
    if "shared_clusters" not in item.fixturenames:
        return ()
    params = item.callspec.params
    return params["release"], params.get("workers", "stock")


def pytest_collection_modifyitems(config, items):
    # Who uses a shared cluster comes one after the other (`--no-loadscope-reorder`), so that it can end with the last.
    items.sort(key=lambda item: (not shared_cluster(item), shared_cluster(item)))
    for item in items:
        # Tests that share a cluster run in one process of the runner, in portions that can be spread evenly.
        shared = shared_cluster(item)
        scenario = item.callspec.params.get("scenario", "").split(".")[0] if shared else ""
        group = " ".join((*shared, scenario)) if shared else item.nodeid
        item.add_marker(pytest.mark.xdist_group(group))
        if stock_scheduler() and item.get_closest_marker("native_only"):
            item.add_marker(pytest.mark.skip(reason="the stock scheduler does not do this"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    # An idle stock worker takes 4 to 5 % of a core.
    yield
    used = shared_cluster(item)
    if used and SHARED in item.config.stash and (nextitem is None or shared_cluster(nextitem) != used):
        item.config.stash[SHARED].end(*used)


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

    One that a test has broken is replaced. Each ends with the last test in a row that uses it.
    """

    def __init__(self, folders):
        self.folders, self.clusters = folders, {}

    def get(self, release, workers):
        which = release, workers
        if which not in self.clusters:
            folder = self.folders.mktemp(f"shared-{release}-{workers}")
            self.clusters[which] = Cluster(folder, release, kinds=KINDS[workers])
        return self.clusters[which]

    def end(self, *which):
        """Ends a cluster, if there is one."""
        if which in self.clusters:
            self.clusters.pop(which).close()

    def close(self):
        for which in list(self.clusters):
            self.end(*which)


@pytest.fixture(scope="session")
def shared_clusters(tmp_path_factory, pytestconfig):
    shared = pytestconfig.stash[SHARED] = SharedClusters(tmp_path_factory)
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
        shared_clusters.end(release, workers)
        raise
    if getattr(request.node, "call_failed", True):
        shared_clusters.end(release, workers)


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
