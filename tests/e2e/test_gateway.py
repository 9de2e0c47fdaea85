"""Dask Gateway with its local backend and its proxy. It starts our scheduler with its preload module."""

import os
import shlex
import urllib.request

import pytest

from harness.cluster import free_port, scheduler_words, stock_scheduler, worker_command
from harness.peer import Peer
from harness.processes import Process, clean_environment
from harness.releases import variable
from harness.waiting import wait_for

ENVIRONMENT = "dask-gateway"

CONFIGURATION = """
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "127.0.0.1:{api}"
c.Proxy.address = "127.0.0.1:{proxy}"
c.UnsafeLocalBackend.clusters_directory = {folder!r}
c.ClusterConfig.scheduler_cmd = {scheduler!r}
c.ClusterConfig.worker_cmd = {worker!r}
c.ClusterConfig.worker_memory = "500 M"
c.ClusterConfig.adaptive_period = 0.5
"""


@pytest.fixture(params=["stock", "native"])
def gateway(tmp_path, request):
    """The address of a running gateway with workers of this kind, and its interpreter."""
    python = os.environ.get(variable(ENVIRONMENT))
    if not python:
        pytest.skip(f"there is no {ENVIRONMENT}: make it with `cargo xtask envs {ENVIRONMENT}`")
    words = [python, "-m", "distributed.cli.dask_scheduler"] if stock_scheduler() else scheduler_words(ENVIRONMENT)
    worker = [python, "-m", "distributed.cli.dask_worker"]
    if request.param == "native":
        worker = [*shlex.split(worker_command()), "--python", python]
    ports = {"api": free_port(), "proxy": free_port()}
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    config = tmp_path / "gateway.py"
    config.write_text(CONFIGURATION.format(folder=str(clusters), scheduler=words, worker=worker, **ports))
    command = [python, "-m", "dask_gateway_server", "-f", config]
    environment = clean_environment(tmp_path, python)
    server = Process("gateway", command, tmp_path / "gateway.log", environment, cwd=str(tmp_path))
    address = f"http://127.0.0.1:{ports['proxy']}"
    try:
        wait_for(lambda: is_up(f"{address}/api/health"), 30, server.tail)
        yield address, python
        server.stop(grace=10)
    finally:
        logs = [log.read_text(errors="replace")[-3000:] for log in clusters.rglob("*.log")]
        print(server.tail(60), *logs, sep="\n---\n")
        server.stop()


def is_up(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_a_cluster_of_a_gateway(gateway, tmp_path):
    address, python = gateway
    peer = Peer(python, tmp_path / "client", "client")
    try:
        peer.run("gateway.works", address, timeout=180)
    finally:
        peer.stop()
