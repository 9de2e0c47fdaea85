"""Runs scenarios in an interpreter that has stock Dask. Python 3.8, distributed 2.30.1 and newer.

Reads one JSON object per line on stdin, writes one per line on what stdout was at the start; everything that is printed
goes to the log. A scenario's module runs as `__main__`, like a user's script: its functions travel by value.
"""

import faulthandler
import inspect
import json
import os
import queue
import signal
import sys
import threading
import traceback
import types

from distributed import Client

HERE = os.path.dirname(os.path.abspath(__file__))


class Talk:
    """What a scenario says to the test, and hears from it, while it runs."""

    def __init__(self, send):
        self._send = send
        self.heard = queue.Queue()

    def tell(self, value=None):
        self._send({"told": value})

    def wait(self, timeout=60):
        """Waits until the test goes on; returns the value it passes."""
        return self.heard.get(timeout=timeout)


def load(path):
    module = types.ModuleType("__main__")
    module.__file__ = path
    with open(path, encoding="utf-8") as file:
        code = compile(file.read(), path, "exec")
    sys.modules["__main__"] = module
    exec(code, module.__dict__)
    return module


def call(order, talk):
    function = getattr(load(order["file"]), order["function"])
    names = list(inspect.signature(function).parameters)
    kwargs = dict(order["kwargs"])
    if "talk" in names:
        kwargs["talk"] = talk
    if names and names[0] == "client":
        options = {"timeout": "30s"}
        options.update(order["client"])
        with Client(order["address"], **options) as client:
            return function(client, *order["args"], **kwargs)
    if names and names[0] == "address":
        return function(order["address"], *order["args"], **kwargs)
    return function(*order["args"], **kwargs)


def main():
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, os.path.join(HERE, "scenarios"))

    def send(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    talk = Talk(send)
    orders = queue.Queue()

    def listen():
        for line in sys.stdin:
            message = json.loads(line)
            (talk.heard if "go_on" in message else orders).put(message.get("go_on", message))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        order = orders.get()
        try:
            send({"result": call(order, talk)})
        except BaseException:
            send({"error": traceback.format_exc()})


if __name__ == "__main__":
    main()
