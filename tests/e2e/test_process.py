"""The scheduler as a process: command line, files, HTTP, signals, and what it says about mistakes."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from harness.cluster import Scheduler, free_port, scheduler_words
from harness.processes import Process, clean_environment, end_with_parent
from harness.releases import python_of
from harness.waiting import wait_for

NEWEST = "2026.8.0"


@pytest.fixture
def scheduler(request, tmp_path):
    """Starts schedulers that end with the test: scheduler(*options, **environment)."""
    started = []

    def start(*options, wait=True, release=NEWEST, **kwargs):
        process = Scheduler(tmp_path, release, *options, **kwargs)
        started.append(process)
        return process.wait_until_listening() if wait else process

    yield start
    for process in started:
        process.stop()


def run_to_the_end(tmp_path, *options, timeout=20, **environment):
    """Runs the command with nothing but these options; returns (exit code, output)."""
    python = python_of(NEWEST)
    done = subprocess.run(
        [*scheduler_words(NEWEST), *options],
        env=clean_environment(tmp_path, python, **environment),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout + done.stderr


def fetch(url):
    """Status and text after redirects."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_and_front_page(scheduler):
    process = scheduler()
    base = f"http://127.0.0.1:{process.dashboard_port}"
    assert fetch(f"{base}/health") == (200, "ok")
    status, _ = fetch(f"{base}/")
    assert status == 200
    assert fetch(f"{base}/no-such-page")[0] == 404


def test_the_address_is_logged_as_launchers_parse_it(scheduler):
    process = scheduler()
    assert process.address.startswith("tcp://127.0.0.1:")
    host, port = process.address[len("tcp://") :].split(":")
    with socket.create_connection((host, int(port)), timeout=5):
        pass


@pytest.mark.native_only
@pytest.mark.parametrize(("options", "warned"), [(["--host", "0.0.0.0"], True), (["--host", "127.0.0.1"], False)])
def test_clear_text_on_every_interface_is_warned_of(tmp_path, options, warned):
    """In a network of its own, where nobody can come."""
    alone = ["unshare", "--net"]
    allowed = subprocess.run([*alone, "true"], capture_output=True, text=True)
    if allowed.returncode:
        pytest.skip(f"no network of its own: {allowed.stderr.strip()}")
    python = python_of(NEWEST)
    words = [*alone, *scheduler_words(NEWEST), *options, "--port", "8786", "--dashboard-address", "127.0.0.1:0"]
    process = Process("scheduler", words, tmp_path / "alone.log", clean_environment(tmp_path, python))
    try:
        process.wait_for_line(r"dashboard at:")
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.stop()
    warning = "WARNING - listening on 0.0.0.0:8786 without TLS: whoever can reach this port can run code on the workers"
    assert (warning in process.text()) == warned, process.text()


def test_the_scheduler_file_holds_the_identity(scheduler, tmp_path):
    path = tmp_path / "scheduler.json"
    process = scheduler("--scheduler-file", str(path))
    wait_for(path.exists, 5, "the scheduler file")
    identity = json.loads(path.read_text())
    assert identity["type"] == "Scheduler"
    assert identity["address"] == process.address
    assert identity["id"].startswith("Scheduler-")
    assert identity["workers"] == {}
    assert identity["services"]["dashboard"] == process.dashboard_port


def test_the_pid_file_holds_the_pid_and_goes(scheduler, tmp_path):
    path = tmp_path / "scheduler.pid"
    process = scheduler("--pid-file", str(path))
    assert int(path.read_text()) == process.pid
    process.signal(signal.SIGTERM)
    process.wait(10)
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_within_5_seconds_with_0(scheduler, number):
    process = scheduler()
    process.signal(number)
    started = time.monotonic()
    assert process.wait(10) == 0
    assert time.monotonic() - started < 5


def test_workers_are_told_of_the_end(new_cluster, release):
    """A worker without nanny ends with its scheduler (2.30.1 tries to come back for 10 s)."""
    cluster = new_cluster(release, workers=1)
    cluster.scheduler.signal(signal.SIGTERM)
    started = time.monotonic()
    cluster.scheduler.wait(10)
    assert time.monotonic() - started < 5
    assert cluster.workers[0].wait(30) == 0


def test_idle_timeout_ends_the_process(scheduler):
    process = scheduler("--idle-timeout", "1s")
    assert process.wait(20) == 0


@pytest.mark.parametrize("options", [["--port=0"], ["--port", "0", "--host", ""], ["--port", "0", "--no-dashboard"]])
def test_spellings_of_the_command_line(tmp_path, options):
    """As deployments write them; the scheduler listens and is ended."""
    python = python_of(NEWEST)
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*scheduler_words(NEWEST), *options, "--dashboard-address", str(free_port())],
            env=clean_environment(tmp_path, python),
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            preexec_fn=end_with_parent,
        )
    try:
        wait_for(lambda: "Scheduler at:" in log.read_text(), 30, log.read_text)
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_version_and_help(tmp_path):
    code, text = run_to_the_end(tmp_path, "--version")
    assert code == 0
    assert any(character.isdigit() for character in text)
    code, text = run_to_the_end(tmp_path, "--help")
    assert code == 0
    for option in ("--host", "--port", "--scheduler-file", "--dashboard-address", "--preload", "--tls-ca-file"):
        assert option in text


def test_an_unknown_option_is_a_usage_error(tmp_path):
    code, text = run_to_the_end(tmp_path, "--no-such-option")
    assert code == 2
    assert "--no-such-option" in text


def one_line_error(text):
    """An error for people: what, where, what to do; no backtrace."""
    assert "Traceback" not in text, text
    assert "panicked" not in text, text
    lines = [line for line in text.splitlines() if line.startswith("dask-scheduler: ")]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.native_only
def test_a_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, text = run_to_the_end(tmp_path, "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", ":0")
    assert code in (1, 2)
    assert str(port) in one_line_error(text)


@pytest.mark.native_only
def test_an_unwritable_scheduler_file(tmp_path):
    path = tmp_path / "no" / "such" / "folder.json"
    code, text = run_to_the_end(tmp_path, "--port", "0", "--dashboard-address", ":0", "--scheduler-file", str(path))
    assert code in (1, 2)
    assert str(path) in one_line_error(text)


@pytest.mark.native_only
def test_malformed_yaml(tmp_path):
    config = tmp_path / "config"
    config.mkdir()
    (config / "broken.yaml").write_text("distributed: [unclosed\n")
    code, text = run_to_the_end(tmp_path, "--port", "0", "--dashboard-address", ":0", DASK_CONFIG=str(config))
    assert code in (1, 2)
    assert "broken.yaml" in one_line_error(text)


@pytest.mark.native_only
def test_a_setting_of_the_wrong_type(tmp_path):
    """The error names the key, the value and where it came from."""
    name = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"
    code, text = run_to_the_end(tmp_path, "--port", "0", "--dashboard-address", ":0", **{name: "many"})
    assert code in (1, 2)
    line = one_line_error(text)
    assert "allowed-failures" in line
    assert "many" in line
    assert name in line


@pytest.mark.native_only
def test_an_unknown_protocol(tmp_path):
    code, text = run_to_the_end(tmp_path, "--port", "0", "--dashboard-address", ":0", "--protocol", "carrier-pigeon")
    assert code in (1, 2)
    assert "carrier-pigeon" in one_line_error(text)


@pytest.mark.native_only
def test_a_missing_interface(tmp_path):
    code, text = run_to_the_end(tmp_path, "--port", "0", "--dashboard-address", ":0", "--interface", "nosuch0")
    assert code in (1, 2)
    assert "nosuch0" in one_line_error(text)


@pytest.mark.native_only
def test_the_dask_launcher(tmp_path, scheduler):
    """`dask scheduler` is served natively; what else there is goes to the next `dask` on PATH."""
    binary = os.path.join(os.path.dirname(scheduler_words(NEWEST)[0]), "dask")
    env = clean_environment(tmp_path, python_of(NEWEST))
    done = subprocess.run([binary, "scheduler", "--version"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([binary, "config", "list"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "temporary-directory" in done.stdout
