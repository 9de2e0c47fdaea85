"""The host inside a nanny or worker, called through its `run` RPC by the scheduler.

`call` runs in the event loop of the peer and returns soon: work is done in a thread, for whose answer
the scheduler asks again. One byte precedes each answer: `+` done, `-` not yet, `?` unknown ticket.
"""

import threading
import time

from .frames import decode, pack, unpack
from .serve import answer

# Seconds that `start` waits, which spares small graphs a second call.
PATIENCE = 0.02
# Answers nobody fetched are dropped after this many seconds.
KEEP = 600

_jobs = {}


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


def call(parts):
    """Answer one call; `parts` are the call's own header and, to start, a message."""
    header = decode(parts[0])
    ticket = header["ticket"]
    _forget_old()
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
