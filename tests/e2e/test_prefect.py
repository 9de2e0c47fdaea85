"""Prefect flows by DaskExecutor with an address, on the releases of their time."""

import pytest

from harness.releases import PREFECT


@pytest.fixture(params=sorted(PREFECT))
def prefect(request):
    return request.param


@pytest.fixture(params=["stock", "native"])
def prefect_cluster(request, new_cluster, prefect):
    """Workers must have Prefect, too."""
    native = request.param == "native"
    if native and prefect == "0.13.19":
        pytest.skip("its Python is 3.8, and the native worker needs 3.9")
    return new_cluster(PREFECT[prefect], environment_name=f"prefect-{prefect}", native=native)


def test_a_mapped_flow(prefect_cluster, prefect):
    peer = prefect_cluster.peer(f"prefect-{prefect}")
    result = peer.run("prefect_flow.inc_dec_add_sum", prefect_cluster.address, timeout=120)
    assert result == {"version": prefect, "total": 9900}
    prefect_cluster.check()


def test_a_flow_with_a_failing_task(prefect_cluster, prefect):
    peer = prefect_cluster.peer(f"prefect-{prefect}")
    states = peer.run("prefect_flow.a_failing_task", prefect_cluster.address, timeout=120)
    assert states == ["Success", "Failed", "Success"]
    prefect_cluster.check()
