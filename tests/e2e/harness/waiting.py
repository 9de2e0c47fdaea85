"""Waiting for a condition without fixed sleeps."""

import time


def wait_for(condition, timeout, what="the condition"):
    """The first true value of `condition()`, asked every 20 ms for up to `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {timeout} s: {text}")
        time.sleep(0.02)
