"""Headless Chromium, spoken to by the DevTools protocol over a pipe."""

import contextlib
import json
import os
import shutil
import signal
import subprocess

from .processes import end_with_parent
from .waiting import wait_for

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,900",
    "--remote-debugging-pipe",
]


def find_chromium():
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page. `messages` keeps what the page asked of the network and wrote to its console."""

    def __init__(self, folder):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        def wire():
            end_with_parent()
            # Chromium reads from 3 and writes to 4; the pipes may have those very numbers.
            low = [os.dup2(fd, number) for fd, number in ((to_browser, 13), (from_browser, 14))]
            os.dup2(low[0], 3)
            os.dup2(low[1], 4)

        command = [find_chromium(), *OPTIONS, f"--user-data-dir={folder / 'chromium'}", "about:blank"]
        with (folder / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                close_fds=False,
                start_new_session=True,
                preexec_fn=wire,
            )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._count, self.messages = b"", 0, []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url):
        self._call("Page.navigate", url=url)

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_until(self, expression, timeout=60):
        return wait_for(lambda: self.evaluate(expression), timeout, lambda: f"{expression} in {self.text()!r}")

    def text(self):
        return self.evaluate("document.body && document.body.innerText")

    def requested(self):
        """Every address that the page asked for."""
        names = ("Network.requestWillBeSent", "Network.webSocketCreated")
        params = [message["params"] for message in self.messages if message["method"] in names]
        return [param["request"]["url"] if "request" in param else param["url"] for param in params]

    def complaints(self):
        """What the console shows: exceptions, and errors of the browser."""
        names = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [message["params"] for message in self.messages if message["method"] in names]

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        os.close(self._in)
        os.close(self._out)

    def _call(self, method, **params):
        self._count += 1
        request = {"id": self._count, "method": method, "params": params}
        if hasattr(self, "_session"):
            request["sessionId"] = self._session
        os.write(self._out, json.dumps(request).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._count:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                return message["result"]
            if "method" in message:
                self.messages.append(message)

    def _read(self):
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                raise AssertionError("the browser has ended; see chromium.log")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)
