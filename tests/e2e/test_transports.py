"""TLS and WebSocket: stock clients, workers and nannies of every release that has them."""

import json
import re
import socket
import ssl
import urllib.request

import pytest

from harness.certificates import Authority, self_signed, tls_configuration, write_configuration
from harness.cluster import Cluster, Scheduler, free_port
from harness.peer import Peer
from harness.releases import python_of
from harness.waiting import wait_for

NEWEST = "2026.8.0"
# 2.30.1 has no WebSocket transport.
TRANSPORTS = [
    ("2.30.1", "tls"),
    ("2022.12.0", "tls"),
    ("2026.8.0", "tls"),
    ("2022.12.0", "ws"),
    ("2026.8.0", "ws"),
    ("2022.12.0", "wss"),
    ("2026.8.0", "wss"),
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def start(request, tmp_path, authority):
    """Starts clusters with certificates: start(release, scheme, workers=…, inline=…, …)."""
    clusters = request.node.clusters = []

    def start(release, scheme, workers=0, inline=False, options=(), **worker_options):
        folder = tmp_path / f"cluster-{len(clusters)}"
        roles = {role: authority.issue(role) for role in ("scheduler", "worker", "client")}
        write_configuration(folder, tls_configuration(authority.file, inline, **roles))
        cluster = Cluster(folder, release, workers=0, options=["--protocol", scheme, *options])
        clusters.append(cluster)
        started = [cluster.add_worker(options=["--protocol", scheme], **worker_options) for _ in range(workers)]
        for worker in started:
            worker.wait_until_registered()
        return cluster

    yield start
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def scheduler(request, tmp_path):
    """Starts schedulers alone: scheduler(*options, **environment)."""
    started = []

    def start(*options, **environment):
        process = Scheduler(tmp_path, NEWEST, *options, **environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()


def files(authority, role="scheduler"):
    """The options of TLS."""
    cert, key = authority.issue(role)
    return ["--tls-ca-file", authority.file, "--tls-cert", cert, "--tls-key", key]


def client(cluster, authority_file, certificate):
    """A client process with other certificates than the cluster's."""
    folder = cluster.folder / f"client-{len(cluster.peers)}"
    write_configuration(folder, tls_configuration(authority_file, client=certificate))
    peer = Peer(python_of(cluster.release), folder, "client")
    cluster.peers.append(peer)
    return peer


def anonymous(address, authority):
    """What becomes of a TLS caller without a certificate."""
    context = ssl.create_default_context(cafile=str(authority.file))
    context.check_hostname = False
    host, port = address.removeprefix("tls://").split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as plain, context.wrap_socket(plain) as stream:
            # In TLS 1.3 the refusal comes after the handshake.
            return "let in" if stream.recv(1) else "refused"
    except ssl.SSLError:
        return "refused"


def certificate_complaints(scheduler):
    return re.findall(r"TLS handshake failed with remote 'tls://\S+': .*", scheduler.text())


@pytest.mark.parametrize(("release", "scheme"), TRANSPORTS)
def test_a_cluster_on_every_transport(start, release, scheme):
    cluster = start(release, scheme, workers=2)
    # Stock listens for WebSocket connections on every interface, whatever the host.
    assert cluster.address.startswith(f"{scheme}://")
    cluster.run("transports.everything_works", scheme)
    cluster.check()
    assert not certificate_complaints(cluster.scheduler)


@pytest.mark.parametrize(("release", "scheme"), [("2.30.1", "tls"), ("2022.12.0", "tls"), ("2026.8.0", "wss")])
def test_nannies_are_called_with_tls(start, release, scheme):
    cluster = start(release, scheme, workers=1, nanny=True)
    cluster.run("transports.restarts", timeout=120)
    cluster.check()


def test_certificates_as_text(start):
    """As `Security.temporary()` has them."""
    cluster = start(NEWEST, "tls", workers=2, inline=True)
    cluster.run("transports.everything_works", "tls")


def test_wrong_certificates_are_refused(start, release, authority, tmp_path):
    cluster = start(release, "tls", workers=1)
    stranger = Authority(tmp_path / "stranger")
    good = authority.issue("client")
    refused = {
        "a stranger's": (authority.file, stranger.issue("client")),
        "expired": (authority.file, authority.issue("old-client", expired=True)),
    }
    for number, (name, (ca, certificate)) in enumerate(refused.items(), start=1):
        peer = client(cluster, ca, certificate)
        error = peer.run("transports.is_refused", cluster.address)
        assert re.match("(OSError|(Fatal)?CommClosedError|TimeoutError)", error), f"{name}: {error}"
        # A client may learn of it before the scheduler has written its line.
        wait_for(lambda: len(certificate_complaints(cluster.scheduler)) >= number, 10, name)  # noqa: B023
        peer.stop()
    # Neither is a worker, nor a caller that shows none.
    folder = cluster.folder / "impostor"
    write_configuration(folder, tls_configuration(authority.file, worker=stranger.issue("worker")))
    config = str(folder / "dask-config")
    environment = {"DASK_CONFIG": config, "DASK_ROOT_CONFIG": config}
    impostor = cluster.add_worker(options=["--protocol", "tls", "--death-timeout", "5"], **environment)
    number = len(certificate_complaints(cluster.scheduler))
    wait_for(lambda: len(certificate_complaints(cluster.scheduler)) > number, 30, impostor.tail)
    impostor.stop()
    assert anonymous(cluster.address, authority) == "refused"
    # A client that does not know the scheduler's authority says so itself.
    error = client(cluster, stranger.file, good).run("transports.is_refused", cluster.address)
    assert "let in" not in error
    assert client(cluster, authority.file, good).run("transports.connects", cluster.address) == 2
    cluster.check()


def test_one_certificate_for_all_as_gateways_have_it(request, release, tmp_path):
    """By variables, as in pods; the proxy in front sends the cluster's name along, which is nobody's host name."""
    cert, key = self_signed(tmp_path / "credentials", "daskgateway-abc")
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    environment = {prefix + "CA_FILE": str(cert), "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    for role in ("SCHEDULER", "WORKER"):
        environment |= {f"{prefix}{role}__CERT": str(cert), f"{prefix}{role}__KEY": str(key)}
    write_configuration(tmp_path / "client", tls_configuration(cert, client=(cert, key)))
    cluster = Cluster(tmp_path, release, workers=0, options=["--protocol", "tls"], environment=environment)
    request.node.clusters = [cluster]
    try:
        cluster.add_worker(**environment).wait_until_registered()
        cluster.peers.append(Peer(python_of(release), tmp_path / "client", "client"))
        assert cluster.peers[0].run("transports.connects", cluster.address) == 2
        context = ssl.create_default_context(cafile=str(cert))
        context.check_hostname = False
        context.load_cert_chain(cert, key)
        host, port = cluster.address.removeprefix("tls://").split(":")
        plain = socket.create_connection((host, int(port)), timeout=10)
        with context.wrap_socket(plain, server_hostname="daskgateway-abc") as stream:
            assert stream.getpeercert()["subject"] == ((("commonName", "dask-internal"),),)
        assert not certificate_complaints(cluster.scheduler)
    finally:
        cluster.close()


def test_callers_without_tls_are_not_let_in(start, release):
    cluster = start(release, "tls")
    plain = cluster.address.replace("tls://", "tcp://")
    assert cluster.peer().run("transports.is_refused", plain) != "let in"
    cluster.check()


@pytest.mark.native_only
def test_a_health_check_is_no_complaint(start):
    cluster = start(NEWEST, "tls")
    host, port = cluster.address.removeprefix("tls://").split(":")
    socket.create_connection((host, int(port))).close()
    cluster.run("transports.is_refused")
    assert not certificate_complaints(cluster.scheduler)


def test_the_options_of_tls_mean_tls(scheduler, authority):
    """Also with a host and without --protocol: no clear text by mistake."""
    process = scheduler(*files(authority)).wait_until_listening()
    assert process.address.startswith("tls://127.0.0.1:")


@pytest.mark.native_only
@pytest.mark.parametrize(
    ("options", "environment", "complaint"),
    [
        (["--protocol", "tls"], {}, "protocol 'tls' needs a certificate"),
        (["--host", "wss://127.0.0.1"], {}, "protocol 'wss' needs a certificate"),
        ([], {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true"}, "protocol 'tls' needs a certificate"),
        (["--protocol", "tcp", "FILES"], {}, "encryption required by Dask configuration"),
        (["FILES", "--tls-key", "CA"], {}, "distributed.comm.tls.scheduler.key, set by option --tls-key"),
        (["FILES"], {"DASK_DISTRIBUTED__COMM__TLS__CIPHERS": "RC4-MD5"}, "no cipher of 'RC4-MD5'"),
        (["FILES"], {"DASK_DISTRIBUTED__COMM__TLS__MIN_VERSION": "1.1"}, "must be 1.2, 1.3 or null"),
    ],
)
def test_mistakes_are_told_at_the_start(scheduler, authority, options, environment, complaint):
    words = []
    for option in options:
        known = {"FILES": files(authority), "CA": [authority.file]}
        words += known.get(option, [option])
    process = scheduler(*words, **environment)
    assert process.wait(20) == 1, process.tail()
    assert complaint in process.text()
    assert len(process.text().splitlines()) <= 3, process.text()


def test_https(scheduler, authority):
    cert, key = authority.issue("dashboard")
    name = "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__TLS__"
    process = scheduler(**{name + "CERT": str(cert), name + "KEY": str(key)}).wait_until_listening()
    context = ssl.create_default_context(cafile=str(authority.file))
    context.check_hostname = False
    url = f"https://127.0.0.1:{process.dashboard_port}"
    with urllib.request.urlopen(url + "/health", context=context, timeout=10) as answer:
        assert answer.read() == b"ok"
    assert re.search(rf"dashboard at:\s+https://127.0.0.1:{process.dashboard_port}/status", process.text())


def test_websockets_and_pages_share_a_port(scheduler, tmp_path):
    port = free_port()
    process = scheduler("--protocol", "ws", "--port", str(port), "--dashboard-address", f"127.0.0.1:{port}")
    process.wait_until_listening()
    assert process.address.startswith("ws://") and process.address.endswith(f":{port}")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/identity.json", timeout=10) as answer:
        assert json.load(answer)["address"] == process.address
    peer = Peer(python_of(NEWEST), tmp_path, "client")
    try:
        assert peer.run("transports.is_refused", process.address) == "let in"
    finally:
        peer.stop()


def test_several_transports_at_once(start):
    ports = [free_port(), free_port()]
    cluster = start(NEWEST, "tcp,ws", options=["--port", ",".join(map(str, ports))])
    assert cluster.address == f"tcp://127.0.0.1:{ports[0]}"
    wait_for(lambda: re.search(rf"Scheduler at:\s+ws://\S+:{ports[1]}\s", cluster.scheduler.text()), 10)
    cluster.add_worker(address=f"ws://127.0.0.1:{ports[1]}", options=["--protocol", "ws"]).wait_until_registered()
    assert cluster.run("transports.connects") == 2
