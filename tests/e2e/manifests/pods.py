"""Runs containers of manifests as processes, in a network of their own where the scheduler's names and ports are free.

Started by `unshare --net --mount`; reads a plan from stdin:
{"names": [...], "pods": [{"name", "args", "env", "probes"}], "client": {"args", "env"}}.
Prints one JSON object.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request

DEADLINE = 150


def own_network(names):
    """Brings loopback up and makes the names of services lead to it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    hosts = os.path.abspath("hosts")
    with open(hosts, "w") as file:
        file.write("127.0.0.1 localhost " + " ".join(names) + "\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)


def expanded(words, env):
    """`$(NAME)` as the kubelet replaces it."""
    return [re.sub(r"\$\(([A-Za-z_]+)\)", lambda match: env.get(match[1], match[0]), word) for word in words]


def start(pod):
    env = {**os.environ, **pod["env"]}
    # A file system of its own, as far as the working directory goes.
    os.mkdir(pod["name"])
    with open(pod["name"] + ".log", "wb") as log:
        return subprocess.Popen(
            expanded(pod["args"], env), env=env, cwd=pod["name"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )


def probe(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except OSError as error:
        return str(error)


def until(condition, processes):
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        ended = [name for name, process in processes.items() if process.poll() is not None]
        if ended:
            raise AssertionError(f"ended: {ended}")
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("time is over")


def main():
    plan = json.load(sys.stdin)
    own_network(plan["names"])
    processes, probes = {}, {}
    try:
        for pod in plan["pods"]:
            processes[pod["name"]] = start(pod)
            for url in pod["probes"]:
                until(lambda url=url: probe(url) == 200, processes)
                probes[url] = 200
        words = expanded(plan["client"]["args"], plan["client"]["env"])
        done = subprocess.run(
            words, env={**os.environ, **plan["client"]["env"]}, capture_output=True, text=True, timeout=DEADLINE
        )
        if done.returncode:
            raise AssertionError(f"the client ended with {done.returncode}: {done.stderr[-3000:]}")
        codes = {}
        for name, process in reversed(processes.items()):
            process.terminate()
            codes[name] = process.wait(30)
        json.dump({"client": done.stdout, "probes": probes, "codes": codes}, sys.stdout)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()


if __name__ == "__main__":
    main()
