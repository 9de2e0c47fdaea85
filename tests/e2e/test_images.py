"""The images of `cargo xtask image`, run by a container engine with the host's network: non-root, nothing writable."""

import json
import os
import shutil
import subprocess
import urllib.request
import zipfile
from pathlib import Path

import pytest

from harness.certificates import Authority
from harness.cluster import Worker, free_port, stock_scheduler
from harness.peer import Peer
from harness.releases import python_of
from harness.waiting import wait_for

NEWEST = "2026.8.0"
SCHEDULER, FULL = "oxidask/scheduler:latest", "oxidask/dask:latest"
MAX_SCHEDULER_BYTES = 15 << 20
DOCKER = os.environ.get("OXIDASK_DOCKER", "docker")
ROOT = Path(__file__).parents[2]
HARDENED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]

# Workers take part once they have installed their package.
CLIENT = """
import sys
from distributed import Client
with Client(sys.argv[1], timeout=60) as client:
    client.wait_for_workers(int(sys.argv[2]), timeout=120)
    print(sum(client.gather(client.map(lambda x: __import__("oxidask_probe").inc(x), range(100)))))
"""
PLAIN_CLIENT = CLIENT.replace('__import__("oxidask_probe").inc(x)', "x + 1")


def docker(*words, check=True, timeout=120):
    done = subprocess.run([DOCKER, *map(str, words)], capture_output=True, text=True, timeout=timeout)
    if check:
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
    return done


def image(name):
    """What the engine knows of an image; skips without engine or image."""
    if stock_scheduler():
        pytest.skip("the images have our scheduler")
    if not shutil.which(DOCKER):
        pytest.skip(f"no container engine: there is no {DOCKER}")
    engine = docker("info", "--format", "{{.ServerVersion}}", check=False)
    if engine.returncode:
        pytest.skip(f"no container engine: {engine.stderr.strip() or engine.stdout.strip()}")
    known = docker("image", "inspect", name, check=False)
    if known.returncode:
        pytest.skip(f"there is no {name}: make it with `cargo xtask image`")
    return json.loads(known.stdout)[0]


@pytest.fixture
def run():
    """Starts containers that end with the test: run(image, *command, options=…) returns the container's id."""
    started = []

    def run(name, *command, options=()):
        started.append(docker("run", "-d", "--network", "host", *options, name, *command).stdout.strip())
        return started[-1]

    yield run
    for container in started:
        logs = docker("logs", container, check=False)
        print(f"--- {container}\n{(logs.stdout + logs.stderr)[-3000:]}")
        docker("rm", "-f", container, check=False)


def scheduler_words():
    port, dashboard = free_port(), free_port()
    words = ["dask-scheduler", "--host", "127.0.0.1", "--port", port, "--dashboard-address", f"127.0.0.1:{dashboard}"]
    return words, f"tcp://127.0.0.1:{port}", dashboard


def logged(container, text):
    def found():
        logs = docker("logs", container, check=False)
        return text in logs.stdout + logs.stderr

    return wait_for(found, 60, f"{text!r} in the log of {container}")


def is_well(container):
    """By the image's own check."""
    check = json.loads(docker("inspect", container).stdout)[0]["Config"]["Healthcheck"]["Test"]
    assert check[0] == "CMD", check
    return docker("exec", container, *check[1:], check=False)


def stops_with(container):
    docker("stop", "--time", "10", container)
    return json.loads(docker("inspect", container).stdout)[0]["State"]["ExitCode"]


def test_the_scheduler_image_is_small_and_runs_as_nobody_in_particular():
    about = image(SCHEDULER)
    assert about["Size"] <= MAX_SCHEDULER_BYTES, about["Size"]
    assert about["Config"]["User"] == "65532:65532"
    assert about["Config"]["Labels"]["org.opencontainers.image.title"] == "oxidask-scheduler"
    # Args of a pod are the whole command.
    assert not about["Config"].get("Entrypoint")


def test_the_scheduler_image_serves_a_cluster(run, tmp_path):
    image(SCHEDULER)
    words, address, dashboard = scheduler_words()
    container = run(SCHEDULER, *words, options=HARDENED)
    logged(container, f"Scheduler at:     {address}")
    worker = Worker(tmp_path, NEWEST, address)
    peer = Peer(python_of(NEWEST), tmp_path / "client", "client")
    try:
        worker.wait_until_registered()
        assert peer.run("transports.connects", address) == 2
        with urllib.request.urlopen(f"http://127.0.0.1:{dashboard}/health", timeout=10) as answer:
            assert answer.read() == b"ok"
        assert is_well(container).returncode == 0, is_well(container)
        assert stops_with(container) == 0
    finally:
        peer.stop()
        worker.stop()


def test_the_health_check_knows_the_options_and_https(run, tmp_path):
    image(SCHEDULER)
    cert, key = Authority(tmp_path / "authority").issue("dashboard")
    for path in (cert, key):
        path.chmod(0o644)
    prefix = "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__TLS__"
    options = [*HARDENED, "-v", f"{cert.parent}:/certificates:ro", "--init"]
    options += ["-e", f"{prefix}CERT=/certificates/{cert.name}", "-e", f"{prefix}KEY=/certificates/{key.name}"]
    words, address, dashboard = scheduler_words()
    container = run(SCHEDULER, *words, "--dashboard-prefix", "/x", options=options)
    logged(container, f"https://127.0.0.1:{dashboard}/status")
    assert is_well(container).returncode == 0, is_well(container)
    # One that listens elsewhere is not taken for it.
    other = docker(
        "exec", container, "dask-scheduler", "--check-health", "--dashboard-address", "127.0.0.1:1", check=False
    )
    assert other.returncode == 1 and "no answer from https://127.0.0.1:1/health" in other.stderr, other
    assert stops_with(container) == 0


def wheel(folder):
    """A package of one module, as small as it can be."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "oxidask_probe-1.0-py3-none-any.whl", "w") as archive:
        about = "oxidask_probe-1.0.dist-info/"
        archive.writestr("oxidask_probe.py", "def inc(x):\n    return x + 1\n")
        archive.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: oxidask-probe\nVersion: 1.0\n")
        archive.writestr(
            about + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(about + "RECORD", "")
    for path in [folder, folder.parent, *folder.iterdir()]:
        path.chmod(0o755)
    return folder


def test_the_full_image_has_native_programs_first():
    about = image(FULL)
    assert about["Config"]["User"] == "65532:65532"
    assert about["Config"]["Labels"]["org.opencontainers.image.title"] == "oxidask"
    assert about["Config"]["Entrypoint"] == ["/opt/oxidask/entrypoint.sh"]
    which = "id -u; for name in dask-scheduler dask-worker dask; do command -v $name; done"
    asked = docker("run", "--rm", "--network", "none", FULL, "sh", "-c", which)
    bin = "/opt/oxidask/bin/"
    assert asked.stdout.split() == ["65532", bin + "dask-scheduler", bin + "dask-worker", bin + "dask"]
    for words in [("dask-scheduler",), ("dask-worker",), ("dask", "scheduler"), ("dask", "worker")]:
        told = docker("run", "--rm", "--network", "none", FULL, *words, "--version").stdout
        assert "(Oxidask)" in told, words
    # What is not native is Dask's own.
    assert NEWEST in docker("run", "--rm", "--network", "none", FULL, "dask", "--version").stdout


def test_the_full_image_takes_the_place_of_stocks(run, tmp_path):
    """Prefect's two commands, with a package that the workers install when they start."""
    image(FULL)
    words, address, _ = scheduler_words()
    scheduler = run(FULL, *words, options=[*HARDENED, "--tmpfs", "/tmp"])
    logged(scheduler, "Scheduler at:")
    extra = "EXTRA_PIP_PACKAGES=--no-index --find-links /wheels oxidask-probe"
    worker = run(
        FULL,
        *["dask-worker", address.removeprefix("tcp://"), "--no-bokeh", "--nthreads", "1", "--nprocs", "2"],
        options=["-e", extra, "-v", f"{wheel(tmp_path / 'wheels')}:/wheels:ro"],
    )
    client = docker("run", "--rm", "--network", "host", FULL, "python", "-c", CLIENT, address, 2, timeout=240)
    assert client.stdout.split() == ["5050"], client
    log = docker("logs", worker).stderr
    assert "--nprocs option has been renamed" in log and "Start worker at" in log, log
    # The workers are ours: the module is in memory, not in a package.
    assert "oxidask" in docker("exec", worker, "sh", "-c", "cat /proc/[0-9]*/maps").stdout
    for container in (scheduler, worker):
        assert is_well(container).returncode == 0, is_well(container)
    assert stops_with(worker) == 0
    assert stops_with(scheduler) == 0


def test_a_hardened_worker(run):
    """Nothing is writable but a volume, nobody in particular, little memory: it works, tells the truth to probes and in
    JSON lines, and leaves when it is told to."""
    image(FULL)
    words, address, _ = scheduler_words()
    scheduler = run(FULL, *words, options=[*HARDENED, "--read-only"])
    logged(scheduler, "Scheduler at:")
    port = free_port()
    worker = run(
        FULL,
        *["dask-worker", address, "--dashboard-address", f"127.0.0.1:{port}"],
        *["--local-directory", "/scratch", "--log-format", "json"],
        options=[*HARDENED, "--memory", "600m", "--tmpfs", "/scratch:mode=1777", "--init"],
    )
    client = (
        PLAIN_CLIENT
        + "    print([w['memory_limit'] for w in client.sync(client.scheduler.identity)['workers'].values()][0])"
    )
    done = docker("run", "--rm", "--network", "host", FULL, "python", "-c", client, address, 1, timeout=240)
    assert done.stdout.split() == ["5050", str(600 << 20)], done
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as answer:
        assert answer.read() == b"ok"
    assert stops_with(worker) == 0
    lines = [json.loads(line) for line in docker("logs", worker).stderr.splitlines()]
    assert {"distributed.worker", "distributed.nanny"} <= {line["logger"] for line in lines}, lines


def test_packages_that_cannot_be_had_end_the_container():
    image(FULL)
    words = ["run", "--rm", "--network", "none", "-e"]
    for variable, complaint in {
        "EXTRA_PIP_PACKAGES=--no-index no-such-package": "no-such-package",
        "EXTRA_APT_PACKAGES=graphviz": "needs root",
        "EXTRA_CONDA_PACKAGES=graphviz": "has no conda",
    }.items():
        done = docker(*words, variable, FULL, "echo", "started", check=False)
        assert done.returncode == 1 and complaint in done.stderr and "started" not in done.stdout, done


def test_two_lines_make_scheduler_and_worker_native(run, tmp_path):
    """docker/add-to-your-image.Dockerfile, with an image whose programs lie in one folder, as in most."""
    image(FULL)
    theirs = (
        f"FROM {FULL} AS theirs\nUSER root\nRUN rm -r /opt/oxidask && ln -s /opt/dask/bin/dask /usr/local/bin/dask\n"
    )
    # As images of Prefect and Flyte are: root, no entrypoint, Python first on PATH.
    theirs += "ENV PATH=/opt/dask/bin:/usr/local/bin:/usr/bin:/bin\nENTRYPOINT []\n"
    ours = (ROOT / "docker/add-to-your-image.Dockerfile").read_text().replace("your/image:tag", "theirs")
    assert sum(not line.startswith(("#", "FROM")) for line in ours.splitlines()) == 2
    (tmp_path / "Dockerfile").write_text(theirs + ours)
    name = "oxidask-test-two-lines"
    docker("build", "--quiet", "--tag", name, tmp_path, timeout=300)
    try:
        for words, expected in {
            ("dask-scheduler", "--version"): "(Oxidask)",
            ("dask-worker", "--version"): "(Oxidask)",
            ("dask", "scheduler", "--version"): "(Oxidask)",
            ("dask", "worker", "--version"): "(Oxidask)",
            # What is not native is still there.
            ("dask", "config", "--help"): "Dask",
        }.items():
            assert expected in docker("run", "--rm", "--network", "none", name, *words).stdout, words
        words, address, _ = scheduler_words()
        run(name, *words)
        run(name, "dask-worker", address, "--nthreads", "1")
        done = docker("run", "--rm", "--network", "host", name, "python", "-c", PLAIN_CLIENT, address, 1, timeout=240)
        assert done.stdout.split() == ["5050"], done
    finally:
        docker("rmi", "-f", name, check=False)
