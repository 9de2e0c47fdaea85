"""The host inside a nanny or worker, called through its `run` RPC by the scheduler.

`call` runs in the event loop of the peer and returns soon: work is done in a thread, for whose answer
the scheduler asks again. One byte precedes each answer: `+` done, `-` not yet, `?` unknown ticket.
A session (functions of clients) has a thread with an event loop of its own; its messages are exchanged
in batches.
"""

import asyncio
import collections
import threading
import time

from .frames import decode, pack, unpack
from .serve import answer

# Seconds that `start` waits, which spares small graphs a second call.
PATIENCE = 0.02
# Answers nobody fetched are dropped after this many seconds.
KEEP = 600

_jobs = {}
_sessions = {}


class _Job:
    def __init__(self, request):
        self.done = threading.Event()
        self.finished_at = None
        self.reply = None
        self._request = request
        threading.Thread(target=self._run, name="oxidask-python-host", daemon=True).start()

    def _run(self):
        try:
            header, frames = unpack(self._request)
            self._request = None
            self.reply = b"".join([b"+"] + pack(*answer(header, frames)))
        finally:
            self.finished_at = time.monotonic()
            self.done.set()


class _Session:
    def __init__(self):
        from .session import Session

        self.used_at = time.monotonic()
        self._sent = collections.deque()
        self._news = threading.Event()
        self._session = Session(self._send)
        ready = threading.Event()
        threading.Thread(
            target=lambda: asyncio.run(self._session.run(ready.set)),
            name="oxidask-python-session",
            daemon=True,
        ).start()
        ready.wait()

    def _send(self, header, frames=()):
        self._sent.append(b"".join(pack(header, frames)))
        self._news.set()

    def exchange(self, messages):
        self.used_at = time.monotonic()
        for message in messages:
            self._session.receive(*unpack(message))
        if messages:
            self._news.wait(PATIENCE)
        self._news.clear()
        sent = []
        while self._sent:
            sent.append(self._sent.popleft())
        return b"".join([b"+"] + pack({}, sent))

    def end(self):
        self._session.end()


def call(parts):
    """Answer one call; `parts` are the call's own header and, to start, a message."""
    header = decode(parts[0])
    ticket = header["ticket"]
    _forget_old()
    if header["call"] == "open":
        _sessions[ticket] = _Session()
    if header["call"] in ("open", "exchange"):
        session = _sessions.get(ticket)
        return b"?" if session is None else session.exchange(parts[1:])
    if header["call"] == "start":
        # A bytearray makes what is unpickled from it writeable, as in the client.
        job = _jobs[ticket] = _Job(bytearray(b"").join(parts[1:]))
        job.done.wait(PATIENCE)
    elif header["call"] == "abandon":
        _jobs.pop(ticket, None)
        return b"+"
    job = _jobs.get(ticket)
    if job is None:
        return b"?"
    if not job.done.is_set():
        return b"-"
    del _jobs[ticket]
    return job.reply or b"?"


def _forget_old():
    now = time.monotonic()
    for ticket, job in list(_jobs.items()):
        if job.finished_at is not None and now - job.finished_at > KEEP:
            _jobs.pop(ticket, None)
    for ticket, session in list(_sessions.items()):
        if now - session.used_at > KEEP:
            del _sessions[ticket]
            session.end()
