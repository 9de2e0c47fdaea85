"""The native worker in a pod: probes that tell the truth, evictions, log lines, a file system that is not its own."""

import http.client
import json
import re
import shlex
import signal
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest

from harness.certificates import Authority
from harness.cluster import Scheduler, Worker, free_port, scheduler_words, worker_command
from harness.peer import Peer
from harness.releases import python_of
from harness.waiting import wait_for

RELEASE = "2026.8.0"
MEMORY = {"TARGET": "False", "SPILL": "False", "PAUSE": "0.5", "TERMINATE": "False"}
# The first word is the folder that stays writable.
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift && exec "$@"'


def probe(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return None, str(error)


def becomes(port, path, status, text):
    wait_for(lambda: probe(port, path)[0] == status and text in probe(port, path)[1], 30, f"{path} {status} {text}")


@pytest.mark.parametrize("nanny", [False, True])
def test_probes_of_a_worker(tmp_path, request, nanny):
    """Ready is who can be given something to do; alive is who does not need to be started again."""
    port, dashboard = free_port(), free_port()
    limits = {f"DASK_DISTRIBUTED__WORKER__MEMORY__{name}": value for name, value in MEMORY.items()}
    options = ["--dashboard-address", f"127.0.0.1:{dashboard}", "--memory-limit", "800 MiB"]
    worker = Worker(tmp_path, RELEASE, f"tcp://127.0.0.1:{port}", *options, nanny=nanny, native=True, **limits)
    request.addfinalizer(worker.stop)
    if not nanny:
        # Nannies start their worker when there is a scheduler, as stock's do.
        becomes(dashboard, "/health", 200, "ok")
        becomes(dashboard, "/ready", 503, "not connected")
    scheduler = Scheduler(tmp_path, RELEASE, port=port)
    request.addfinalizer(scheduler.stop)
    scheduler.wait_until_listening()
    becomes(dashboard, "/ready", 200, "ok")
    assert "/ready" in probe(dashboard, "/sitemap.json")[1]
    peer = peer_of(request, tmp_path)
    peer.run("native_pod.grows", scheduler.address, 450)
    becomes(dashboard, "/ready", 503, "paused")
    assert probe(dashboard, "/health") == (200, "ok")
    peer.run("native_pod.shrinks", scheduler.address)
    becomes(dashboard, "/ready", 200, "ok")
    # A task that keeps Python for itself is no reason to start the container again.
    running = peer.start("native_pod.holds", scheduler.address)
    running.told()
    assert probe(dashboard, "/health") == (200, "ok") == probe(dashboard, "/ready")
    running.go_on()
    running.result(60)
    peer.stop()
    scheduler.signal(signal.SIGKILL)
    becomes(dashboard, "/ready", 503, "not connected")
    assert probe(dashboard, "/health") == (200, "ok")


def peer_of(request, folder):
    peer = Peer(python_of(RELEASE), folder / "client", "client")
    request.addfinalizer(peer.stop)
    return peer


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("nanny", [False, True])
@pytest.mark.parametrize("release", ["2022.12.0", RELEASE])
def test_an_evicted_pod_loses_nothing(new_cluster, release, nanny, stock):
    """SIGTERM drains a worker, within the 30 s that Kubernetes gives it, whoever the scheduler is."""
    cluster = new_cluster(release, workers=0, stock=stock)
    workers = [cluster.add_worker(native=True, nanny=nanny) for _ in range(2)]
    for worker in workers:
        worker.wait_until_registered()
    leaving, staying = [worker.contact_address for worker in workers]
    running = cluster.start("native_pod.is_evicted", leaving, staying)
    running.told(90)
    workers[0].signal(signal.SIGTERM)
    assert workers[0].wait(20) == 0
    running.go_on()
    running.result(90)
    assert re.search(r"Closing worker gracefully.*Reason: \S+|Received signal SIGTERM", workers[0].text())
    assert workers[1].alive
    cluster.check()


@pytest.mark.parametrize("nanny", [False, True])
@pytest.mark.parametrize("how", ["option", "configuration"])
def test_json_lines(new_cluster, nanny, how):
    cluster = new_cluster(RELEASE, workers=0)
    given = {"options": ["--log-format", "json"]} if how == "option" else {"DASK_OXIDASK__LOG__FORMAT": "json"}
    worker = cluster.add_worker(native=True, nanny=nanny, **given)
    wait_for(lambda: "Registered to" in worker.text(), 30, worker.tail)
    cluster.run("native_pod.logs")
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    lines = [json.loads(line) for line in worker.text().splitlines()]
    for line in lines:
        assert {"timestamp", "level", "logger", "message"} <= set(line), line
    said = {line["message"]: line for line in lines}
    assert said['it says "hello"\nand more']["logger"] == "some.library"
    assert "ValueError: for the log" in said["it went wrong"]["exception"]
    assert any("mind the gap" in message for message in said), said
    assert {"distributed.worker"} <= {line["logger"] for line in lines}


def test_levels_and_the_form_of_lines_are_those_of_the_configuration(new_cluster):
    cluster = new_cluster(RELEASE, workers=0)
    given = {
        "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "<%(levelname)s %(name)s> %(message)s",
        "DASK_LOGGING__DISTRIBUTED__WORKER": "warning",
        "DASK_DISTRIBUTED__LOGGING": "{'distributed': 'error', 'distributed.nanny': 'info'}",
    }
    worker = cluster.add_worker(native=True, nanny=True, **given)
    cluster.run("transports.connects", timeout=60)
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    lines = worker.text().splitlines()
    assert lines and all(line.startswith("<INFO distributed.nanny> ") for line in lines if "distributed" in line), lines


@pytest.mark.parametrize("nanny", [False, True])
def test_a_file_system_that_is_read_only(new_cluster, tmp_path, monkeypatch, nanny):
    """But for a volume. Without one, the worker says what it would need, and ends."""
    enter = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh"]
    if subprocess.run([*enter, tmp_path, "true"], capture_output=True).returncode:
        pytest.skip("file systems can not be made read-only here")
    cluster = new_cluster(RELEASE, workers=0)
    volume = tmp_path / "volume"
    volume.mkdir()
    command = shlex.join([*map(str, enter), str(volume), *shlex.split(worker_command())])
    monkeypatch.setenv("OXIDASK_WORKER_CMD", command)
    spills = {"DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "0.1"}
    limit = ["--memory-limit", "1 GiB"]
    local = ["--local-directory", volume]
    worker = cluster.add_worker(native=True, nanny=nanny, options=[*limit, *local], threads=2, **spills)
    worker.wait_until_registered()
    cluster.run("native_resilience.spills", 20, 8)
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    elsewhere = ["--local-directory", tmp_path / "nowhere", "--death-timeout", "10s"]
    worker = cluster.add_worker(native=True, nanny=nanny, options=elsewhere)
    assert worker.wait(30) == 1
    assert f"no folder can be made in {tmp_path}/nowhere" in worker.text() and "Read-only" in worker.text()


@pytest.mark.parametrize("nanny", [False, True])
def test_https(new_cluster, tmp_path, nanny):
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("dashboard")
    name = "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__TLS__"
    cluster = new_cluster(RELEASE, workers=0)
    port = free_port()
    options = ["--dashboard", "--dashboard-address", f"127.0.0.1:{port}"]
    worker = cluster.add_worker(
        native=True, nanny=nanny, options=options, **{name + "CERT": str(cert), name + "KEY": str(key)}
    )
    worker.wait_until_registered()
    context = ssl.create_default_context(cafile=str(authority.file))
    context.check_hostname = False
    for path in ("/health", "/ready", "/metrics", "/info/main/workers.html"):
        with urllib.request.urlopen(f"https://127.0.0.1:{port}{path}", context=context, timeout=10) as answer:
            assert answer.status == 200
    assert probe(port, "/health")[0] is None, "not in clear text"


def test_a_health_check_needs_no_other_program(tmp_path, request):
    """What images use: it asks the scheduler of this machine."""
    scheduler = Scheduler(tmp_path, RELEASE)
    request.addfinalizer(scheduler.stop)
    scheduler.wait_until_listening()
    words = [*scheduler_words(RELEASE), "--check-health", "--dashboard-address"]
    done = subprocess.run([*words, f"127.0.0.1:{scheduler.dashboard_port}"], capture_output=True, timeout=30)
    assert done.returncode == 0, done
    done = subprocess.run([*words, f"127.0.0.1:{free_port()}"], capture_output=True, timeout=30)
    assert done.returncode == 1, done
