"""`pip install .`: a wheel with one program, and the commands that start it with the environment's interpreter.

The whole in its release form takes minutes of compiling; here the program is built as the other tests have it, with the
worker's module that they use inside.
"""

import os
import pathlib
import shlex
import shutil
import subprocess

import pytest

from harness.cluster import free_port, stock_scheduler, worker_command
from harness.peer import Peer
from harness.processes import Process, clean_environment
from harness.releases import python_of
from harness.waiting import wait_for

RELEASE = "2026.8.0"
ROOT = pathlib.Path(__file__).parents[2]
MODULE = "liboxidask_worker_module.so"

# Compiling counts as a part of the first test, and has a limit of its own.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The interpreter of an environment in which Oxidask is installed beside Dask."""
    if not os.environ.get("OXIDASK_TEST_WHEEL"):
        pytest.skip("it compiles for minutes: set OXIDASK_TEST_WHEEL to have it")
    module = pathlib.Path(shlex.split(worker_command())[0]).with_name(MODULE)
    if stock_scheduler() or not module.exists() or not shutil.which("cargo"):
        pytest.skip("there is nothing built to make a wheel of")
    folder = tmp_path_factory.mktemp("environment")
    python = folder / "bin/python"
    subprocess.run([python_of(RELEASE), "-m", "venv", folder], check=True, timeout=120)
    # Dask is that of the release's environment.
    (site,) = folder.glob("lib/python3*/site-packages")
    (theirs,) = pathlib.Path(python_of(RELEASE)).parents[1].glob("lib/python3*/site-packages")
    (site / "dask.pth").write_text(f"{theirs}\n")
    environment = {**os.environ, "OXIDASK_WORKER_MODULE": str(module), "CARGO_TARGET_DIR": str(ROOT / "target")}
    words = [python, "-m", "pip", "install", "--no-deps", "--config-settings=build-args=--profile=dev", ROOT]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
    if "No matching distribution found for maturin" in done.stdout + done.stderr:
        pytest.skip("pip has no way to maturin, which makes the wheel")
    assert done.returncode == 0, done.stdout + done.stderr
    return python


def test_commands_of_the_environment(installed, tmp_path):
    """Native by every name: the scripts, and the modules for managers that start modules."""
    environment = clean_environment(tmp_path, installed)
    for words in (
        ["dask-scheduler"],
        ["dask-worker"],
        *([installed, "-m", f"oxidask.{m}"] for m in ("scheduler", "worker")),
    ):
        program = installed.with_name(words[0]) if len(words) == 1 else words[0]
        done = subprocess.run(
            [program, *words[1:], "--version"], env=environment, capture_output=True, text=True, timeout=60
        )
        assert "(Oxidask)" in done.stdout, (words, done)
    # What was there stays what it was.
    done = subprocess.run(
        [installed, "-m", "distributed.cli.dask_worker", "--version"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert RELEASE in done.stdout, done


def test_a_cluster_of_the_environment(installed, tmp_path, request):
    """The worker finds its interpreter without being told, and its module without a file beside it."""
    environment = clean_environment(tmp_path)
    started = []
    request.addfinalizer(lambda: [process.stop() for process in started])

    def start(name, *words):
        log = tmp_path / f"{name}.log"
        started.append(Process(name, [installed.with_name(name), *words], log, environment, cwd=str(tmp_path)))
        return started[-1]

    dashboard = f"127.0.0.1:{free_port()}"
    scheduler = start("dask-scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", dashboard)
    address = scheduler.wait_for_line(r"Scheduler at:\s+(\S+)")[1]
    worker = start("dask-worker", address, "--nworkers", "2", "--nthreads", "1", "--local-directory", tmp_path)
    wait_for(lambda: worker.text().count("Registered to") == 2, 60, worker.tail)
    peer = Peer(python_of(RELEASE), tmp_path / "client", "client")
    request.addfinalizer(peer.stop)
    assert peer.run("transports.connects", address) == 2
    worker.signal(15)
    assert worker.wait(20) == 0
