"""Collections of 2022.12.0 on a scheduler that may not use Python at all."""

import pytest

from harness.cluster import Cluster
from test_scenarios import scenarios

pytestmark = pytest.mark.native_only

RELEASE = "2022.12.0"
COLLECTIONS = sorted(
    name
    for name, release, workers in scenarios()
    if (release, workers) == (RELEASE, "stock") and name.startswith("collections_")
)
COLLECTIONS += [
    "layers.annotations_reach_tasks",
    "layers.annotations_decide_where_and_how_often",
    "layers.joins_with_a_small_side",
    "layers.overlaps_that_are_not_optimised",
    "layers.shuffles_in_stages",
    "layers.tree_reductions_of_many_partitions",
    "layers.failed_tasks_are_replayed_locally",
]


@pytest.fixture(scope="module")
def without_python(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("without-python"), RELEASE, options=["--python-host", "off"])
    yield cluster
    cluster.check()
    cluster.close()


@pytest.mark.xdist_group("without-python")
@pytest.mark.parametrize("scenario", COLLECTIONS)
def test_collections(without_python, request, scenario):
    request.node.clusters = [without_python]
    without_python.run(scenario)
