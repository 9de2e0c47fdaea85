"""A stock client's process, seen from the tests.

The test runner has no Dask: what a client does is written in `scenarios/` and runs in a process of the release's own
interpreter (`peer_main.py`), which is told one JSON object per line and answers with one.
"""

import json
import pathlib
import queue
import signal
import subprocess
import threading
import time

from .processes import Process, clean_environment

E2E = pathlib.Path(__file__).resolve().parent.parent


class ScenarioFailed(AssertionError):
    """The scenario raised; carries the traceback of the other process."""


class Peer:
    """One process that runs scenarios, one after the other."""

    def __init__(self, python, folder, name, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self.process = Process(
            f"client process {name}",
            [python, str(E2E / "peer_main.py")],
            folder / f"{name}.log",
            clean_environment(folder, python, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=str(folder),
        )
        self._answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.popen.stdout:
            self._answers.put(json.loads(line))
        self._answers.put({"ended": True})

    def start(self, scenario, address, *args, client=None, **kwargs):
        """Starts `file.function` of scenarios/; `client` holds options of the Client it is given."""
        module, function = scenario.split(".")
        self._tell(
            file=str(E2E / "scenarios" / f"{module}.py"),
            function=function,
            address=address,
            client=client or {},
            args=args,
            kwargs=kwargs,
        )
        return Call(self, scenario)

    def run(self, scenario, address, *args, timeout=60, **kwargs):
        """Runs a scenario to its end and returns what it returns."""
        return self.start(scenario, address, *args, **kwargs).result(timeout)

    def _tell(self, **message):
        self.process.popen.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.popen.stdin.flush()

    def answer(self, timeout, what):
        try:
            answer = self._answers.get(timeout=max(timeout, 0))
        except queue.Empty:
            # The peer writes where each of its threads is.
            self.process.signal(signal.SIGUSR1)
            time.sleep(0.5)
            self.stop()
            raise ScenarioFailed(f"{what} did not end in time; its threads:\n{self.process.tail(60)}") from None
        if "ended" in answer:
            code = self.process.wait(5)
            raise ScenarioFailed(f"the client process ended ({code}) during {what}:\n{self.process.tail()}")
        return answer

    @property
    def alive(self):
        return self.process.alive

    def stop(self):
        self.process.kill_group()


class Call:
    """A scenario that runs."""

    def __init__(self, peer, name):
        self.peer, self.name, self.done = peer, name, False

    def told(self, timeout=60):
        """The next thing that the scenario tells by `talk.tell(...)`."""
        answer = self.peer.answer(timeout, self.name)
        if "told" not in answer:
            self._finish(answer)
            raise ScenarioFailed(f"{self.name} ended without telling anything")
        return answer["told"]

    def go_on(self, value=None):
        """Lets a scenario continue that waits in `talk.wait()`."""
        self.peer._tell(go_on=value)

    def result(self, timeout=60):
        deadline = time.monotonic() + timeout
        while True:
            answer = self.peer.answer(deadline - time.monotonic(), self.name)
            if "told" not in answer:
                return self._finish(answer)

    def _finish(self, answer):
        self.done = True
        if "error" in answer:
            raise ScenarioFailed(f"{self.name} failed in the client process:\n{answer['error']}")
        return answer["result"]
