"""TLS and WebSocket: stock clients, workers and nannies of every release that has them."""

import contextlib
import json
import queue
import re
import socket
import ssl
import urllib.request

import pytest

from harness.certificates import Authority, self_signed, tls_configuration, write_configuration
from harness.cluster import Cluster, Scheduler, Worker, free_port
from harness.peer import Peer
from harness.releases import NATIVE, python_of
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
        cluster.workers += started
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
    return caller(address, authority, None)


def caller(address, authority, certificate):
    """What becomes of a TLS caller."""
    context = ssl.create_default_context(cafile=str(authority.file))
    context.check_hostname = False
    if certificate:
        context.load_cert_chain(*certificate)
    host, port = address.removeprefix("tls://").split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as plain, context.wrap_socket(plain) as stream:
            # In TLS 1.3 the refusal comes after the handshake. Some peers of 2.30.1 wait for the first word.
            stream.settimeout(5)
            return "let in" if stream.recv(1) else "refused"
    except TimeoutError:
        return "let in"
    except (ssl.SSLError, ConnectionResetError):
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


@pytest.mark.parametrize(("release", "scheme"), [("2022.12.0", "ws"), ("2026.8.0", "ws"), ("2026.8.0", "wss")])
def test_native_workers_on_web_sockets(start, release, scheme):
    """One of them beside a stock worker, and one under a nanny."""
    cluster = start(release, scheme, workers=1)
    ours = cluster.add_worker(options=["--protocol", scheme], native=True)
    ours.wait_until_registered()
    assert ours.contact_address.startswith(f"{scheme}://")
    cluster.run("transports.everything_works", scheme)
    cluster.workers[0].stop()
    # Like the scheduler, if nothing is said.
    cluster.add_worker(native=True, nanny=True).wait_until_registered()
    cluster.run("transports.everything_works", scheme)
    cluster.check()


def test_the_name_that_is_asked_for(tmp_path, authority):
    """`--scheduler-sni`, for schedulers behind a proxy that goes by it."""
    asked = queue.Queue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("scheduler"))
    context.sni_callback = lambda _, name, __: asked.put(name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tls://127.0.0.1:{listener.getsockname()[1]}"
        cert, key = authority.issue("worker")
        words = ["--scheduler-sni", "scheduler.example", "--tls-ca-file", authority.file, "--tls-cert", cert]
        worker = Worker(tmp_path, NEWEST, address, *words, "--tls-key", key, native=True)
        try:
            listener.settimeout(30)
            plain, _ = listener.accept()
            with contextlib.suppress(OSError), plain:
                context.wrap_socket(plain, server_side=True).close()
            assert asked.get(timeout=10) == "scheduler.example"
        finally:
            worker.stop()


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


@pytest.mark.parametrize("release", NATIVE["native"])
def test_our_workers_with_tls(start, release):
    cluster = start(release, "tls", workers=2, native=True)
    cluster.run("transports.everything_works", "tls")
    cluster.check()
    assert not certificate_complaints(cluster.scheduler)


@pytest.mark.parametrize("release", NATIVE["native"])
def test_our_worker_refuses_and_is_refused(start, release, authority, tmp_path):
    """Wrong, expired and missing certificates: one line where somebody was refused, and nobody else is harmed."""
    cluster = start(release, "tls", workers=1, native=True)
    stranger = Authority(tmp_path / "stranger")
    wrong = {"a stranger's": stranger.issue("worker"), "expired": authority.issue("old-worker", expired=True)}
    for name, certificate in wrong.items():
        folder = cluster.folder / name.split("'")[0].replace(" ", "-")
        write_configuration(folder, tls_configuration(authority.file, worker=certificate))
        config = str(folder / "dask-config")
        environment = {"DASK_CONFIG": config, "DASK_ROOT_CONFIG": config}
        number = len(certificate_complaints(cluster.scheduler))
        options = ["--protocol", "tls", "--death-timeout", "3"]
        impostor = cluster.add_worker(native=True, options=options, **environment)
        assert impostor.wait(40) == 1, f"{name}: {impostor.tail()}"
        assert len(certificate_complaints(cluster.scheduler)) > number, name
        assert "Registered to" not in impostor.text()
    # The worker's own port.
    address = cluster.workers[0].contact_address
    for name, certificate in {**wrong, "missing": None}.items():
        number = len(certificate_complaints(cluster.workers[0]))
        assert caller(address, authority, certificate) == "refused", name
        wait_for(lambda: len(certificate_complaints(cluster.workers[0])) == number + 1, 10, name)  # noqa: B023
    assert caller(address, authority, authority.issue("client")) == "let in"
    assert cluster.run("transports.connects") == 2
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
