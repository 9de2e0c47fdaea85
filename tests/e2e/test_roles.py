"""Roles by certificate (docs/roles.md), with stock clients and workers."""

import pytest

from harness.certificates import Authority, tls_configuration, write_configuration
from harness.cluster import Cluster, Scheduler
from harness.peer import Peer
from harness.releases import RELEASES, python_of

pytestmark = pytest.mark.native_only

NEWEST = "2026.8.0"
RULES = """
rules:
  - subject: {CN: "worker*"}
    roles: worker
  - subject: {CN: client}
    roles: client
  - subject: {CN: watcher}
    roles: read-only
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


# Our worker beside those of stock.
WORKERS = [(release, False) for release in RELEASES] + [(NEWEST, True)]


@pytest.fixture(params=WORKERS, ids=lambda param: f"{param[0]}-{'native' if param[1] else 'stock'}")
def cluster(request, tmp_path, authority):
    """A cluster with rules and one worker."""
    release, native = request.param
    rules = tmp_path / "roles.yaml"
    rules.write_text(RULES)
    roles = {role: authority.issue(role) for role in ("scheduler", "worker", "client")}
    write_configuration(tmp_path, tls_configuration(authority.file, **roles))
    environment = {"DASK_OXIDASK__ROLES__FILE": str(rules)}
    cluster = Cluster(tmp_path, release, workers=0, options=["--protocol", "tls"], environment=environment)
    cluster.native = native
    request.node.clusters = [cluster]
    try:
        cluster.add_worker(options=["--protocol", "tls"], native=native).wait_until_registered()
        yield cluster
    finally:
        cluster.close()


def peer(cluster, authority, name):
    """A client process whose certificate is for `name`."""
    folder = cluster.folder / name
    write_configuration(folder, tls_configuration(authority.file, client=authority.issue(name)))
    cluster.peers.append(Peer(python_of(cluster.release), folder, name))
    return cluster.peers[-1]


def test_each_may_do_what_its_role_allows(cluster, authority):
    """One test for all roles, since a cluster takes seconds to start."""
    told = peer(cluster, authority, "client").run("transports.may_work_but_not_rule", cluster.address)
    assert "CN=client has client, which may not ask for 'run_function'" in told

    assert "may only look" in peer(cluster, authority, "watcher").run("transports.may_only_look", cluster.address)

    for name, role in {"nobody": "no role", "worker-2": "worker"}.items():
        error = peer(cluster, authority, name).run("transports.is_refused", cluster.address)
        assert f"CN={name} has {role}, which may not ask for 'register-client'" in error

    folder = cluster.folder / "impostor"
    write_configuration(folder, tls_configuration(authority.file, worker=authority.issue("client")))
    config = str(folder / "dask-config")
    environment = {"DASK_CONFIG": config, "DASK_ROOT_CONFIG": config}
    impostor = cluster.add_worker(options=["--protocol", "tls"], native=cluster.native, **environment)
    impostor.wait_for_line("CN=client has client, which may not ask for 'register-worker'")
    cluster.check()


def test_mistakes_in_the_rules_are_told_at_the_start(tmp_path):
    rules = tmp_path / "roles.yaml"
    rules.write_text("rules: [{subject: {CN: a}, roles: boss}]")
    process = Scheduler(tmp_path, NEWEST, DASK_OXIDASK__ROLES__FILE=str(rules))
    try:
        assert process.wait(20) == 1
        assert f"{rules} (configuration key oxidask.roles.file): " in process.text()
    finally:
        process.stop()
