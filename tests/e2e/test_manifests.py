"""The manifests in docker/kubernetes: valid for Kubernetes, and their commands form a working cluster."""

import json
import os
import pathlib
import shlex
import subprocess
import sys

import pytest

from harness.cluster import scheduler_command, stock_scheduler, worker_command
from harness.processes import clean_environment, end_with_parent
from harness.releases import python_of

ROOT = pathlib.Path(__file__).parents[2]
KUBERNETES = ROOT / "docker/kubernetes"
HELPERS = pathlib.Path(__file__).parent / "manifests"
RELEASE = "2026.8.0"
# Lies beside a worker that was not built for an image.
MODULE = "liboxidask_worker_module.so"
FOLDERS = ["prefect-static", "overlays/production", "operator", "classic"]
SERVICE = "dask-scheduler"
OPERATOR_ADDRESS = "tcp://oxidask-scheduler.default.svc.cluster.local:8786"

# Waits for the workers and computes on each; prints a line.
CLIENT = """
import sys
from distributed import Client
address = None if len(sys.argv) < 3 else sys.argv[2]
with Client(address, timeout=60) as client:
    client.wait_for_workers(int(sys.argv[1]), timeout=120)
    print(len(client.ncores()), sum(client.gather(client.map(lambda x: x + 1, range(100)))))
"""


def rendered(folder):
    words = [python_of("manifests"), HELPERS / "render.py", KUBERNETES / folder]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("folder", FOLDERS)
def test_manifests_are_valid(folder):
    assert rendered(folder)


def pod_of(resource):
    spec = resource["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


def container(pod):
    (only,) = pod["containers"]
    return only


def urls(container):
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    gets = [
        container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe") if name in container
    ]
    return [f"http://127.0.0.1:{ports.get(get['port'], get['port'])}{get.get('path', '/')}" for get in gets]


def pod(name, container, **extra):
    env = {entry["name"]: entry["value"] for entry in container.get("env", [])}
    return {"name": name, "args": list(container["args"]), "env": {**env, **extra}, "probes": urls(container)}


def run(tmp_path, pods, workers, names=(), address=f"{SERVICE}:8786", **client_env):
    """Runs pods as processes in a network of their own; what the client saw."""
    if stock_scheduler():
        pytest.skip("the images have our scheduler")
    allowed = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True)
    if allowed.returncode:
        pytest.skip(f"no network of its own for the pods: {allowed.stderr.strip()}")
    programs = tmp_path / "bin"
    programs.mkdir()
    scheduler = pathlib.Path(shlex.split(scheduler_command())[0])
    worker = pathlib.Path(shlex.split(worker_command())[0])
    for program in (scheduler, scheduler.parent / "dask", worker, worker.parent / MODULE):
        (programs / program.name).symlink_to(program)
    python = python_of(RELEASE)
    env = clean_environment(tmp_path, python)
    env["PATH"] = f"{programs}{os.pathsep}{env['PATH']}"
    client = [python, "-c", CLIENT, str(workers), *([address] if address else [])]
    plan = {"names": [SERVICE, *names], "pods": pods, "client": {"args": client, "env": client_env}}
    done = subprocess.run(
        [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
            sys.executable,
            HELPERS / "pods.py",
        ],
        input=json.dumps(plan),
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
        preexec_fn=end_with_parent,
    )
    logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in tmp_path.glob("*.log"))
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{logs}"
    result = json.loads(done.stdout)
    assert result["client"].split() == [str(workers), "5050"], result
    assert set(result["codes"].values()) == {0}, (result["codes"], logs)
    return result


@pytest.mark.parametrize("folder", ["prefect-static", "overlays/production"])
def test_the_static_cluster_runs(tmp_path, folder):
    deployments = {r["metadata"]["name"]: r for r in rendered(folder) if r["kind"] == "Deployment"}
    workers = deployments["dask-worker"]
    pods = [pod("scheduler", container(pod_of(deployments["dask-scheduler"])))]
    if folder == "overlays/production":
        assert len(pods[0]["probes"]) == 2
    worker = container(pod_of(workers))
    # /scratch is a volume of the pod.
    worker["args"] = [str(tmp_path) if word == "/scratch" else word for word in worker["args"]]
    for number in range(workers["spec"]["replicas"]):
        # The two pods have an address each in Kubernetes; here they share one, and so a port.
        own = {"8788": str(8788 + 100 * number)}
        args = [own.get(word, word) for word in worker["args"]]
        ports = [{**port, "containerPort": own["8788"]} for port in worker.get("ports", [])]
        pods.append(pod(f"worker-{number}", {**worker, "args": args, "ports": ports}))
    run(tmp_path, pods, workers=4)


def test_a_cluster_of_the_operator_runs(tmp_path):
    (cluster,) = [r for r in rendered("operator") if r["kind"] == "DaskCluster"]
    spec = cluster["spec"]
    pods = [pod("scheduler", container(spec["scheduler"]["spec"]))]
    for number in range(spec["worker"]["replicas"]):
        added = {"DASK_WORKER_NAME": f"oxidask-default-worker-{number}", "DASK_SCHEDULER_ADDRESS": OPERATOR_ADDRESS}
        worker = container(spec["worker"]["spec"])
        args = ["0" if word == "8788" else word for word in worker["args"]]
        pods.append(pod(f"worker-{number}", {**worker, "args": args}, **added))
    names = [OPERATOR_ADDRESS.split("/")[2].split(":")[0]]
    run(tmp_path, pods, workers=2, names=names, address=None, DASK_SCHEDULER_ADDRESS=OPERATOR_ADDRESS)


def test_a_job_of_the_operator_runs(tmp_path):
    (job,) = [r for r in rendered("operator") if r["kind"] == "DaskJob"]
    spec = job["spec"]["cluster"]["spec"]
    pods = [pod("scheduler", container(spec["scheduler"]["spec"]))]
    added = {"DASK_SCHEDULER_ADDRESS": OPERATOR_ADDRESS, "DASK_WORKER_NAME": "oxidask-job-default-worker-0"}
    pods.append(pod("worker-0", container(spec["worker"]["spec"]), **added))
    names = [OPERATOR_ADDRESS.split("/")[2].split(":")[0]]
    run(tmp_path, pods, workers=1, names=names, address=None, DASK_SCHEDULER_ADDRESS=OPERATOR_ADDRESS)


def test_a_classic_cluster_runs(tmp_path):
    pod_specs = {container(r["spec"])["name"]: container(r["spec"]) for r in rendered("classic")}
    pods = [pod("scheduler", pod_specs["dask-scheduler"])]
    worker = pod_specs["dask-worker"]
    for number in range(2):
        # What the cluster object adds to its template.
        args = [*worker["args"], "--name", str(number)]
        pods.append(pod(f"worker-{number}", {**worker, "args": args}, DASK_SCHEDULER_ADDRESS=f"tcp://{SERVICE}:8786"))
    run(tmp_path, pods, workers=2)
