"""What only Python can measure, and what stock's worker keeps for those who look: garbage, transfers, the monitor."""

import collections
import functools
import gc
import logging
import time

import dask
import distributed.worker
from dask.utils import parse_timedelta
from distributed.system_monitor import SystemMonitor
from tornado.ioloop import PeriodicCallback


def watch_garbage(native):
    """Tells Rust how long collections take, and what comes of them."""
    clock, began = time.perf_counter, 0.0
    for generation, before in enumerate(gc.get_stats()):
        native.collected_garbage(0.0, generation, before["collections"], before["collected"], before["uncollectable"])

    def collecting(phase, info):
        nonlocal began
        if phase == "start":
            began = clock()
        else:
            took, found = clock() - began, (info["collected"], info["uncollectable"])
            native.collected_garbage(took, info["generation"], 1, *found)

    gc.callbacks.append(collecting)


def _entries(moved):
    for who, start, stop, keys in moved:
        total, duration = sum(keys.values()), max(stop - start, 1e-6)
        yield {
            "start": start,
            "stop": stop,
            "middle": (start + stop) / 2,
            "duration": duration,
            "who": who,
            "keys": keys,
            "total": total,
            "bandwidth": total / duration,
        }


class Measures:
    """The part of the worker that shows measurements and logs."""

    def get_logs(self, *args, **kwargs):
        """As the environment's worker does it, with what Rust has logged among the lines."""
        lines = self._deque_handler.deque
        for created, name, level, text in self.native.log_lines():
            record = logging.LogRecord(name, level, "", 0, text, None, None)
            record.created, record.msecs = created, created % 1 * 1000
            lines.append(record)
        ordered = sorted(lines, key=lambda record: record.created)
        lines.clear()
        lines.extend(ordered)
        return distributed.worker.Worker.get_logs(self, *args, **kwargs)

    @property
    def incoming_transfer_log(self):
        return collections.deque(_entries(self.native.transfers()[0]))

    @property
    def outgoing_transfer_log(self):
        return collections.deque(_entries(self.native.transfers()[1]))

    incoming_transfer_count = property(lambda self: len(self.native.transfers()[0]))
    outgoing_transfer_count = property(lambda self: len(self.native.transfers()[1]))
    transfer_outgoing_bytes_total = property(lambda self: self.native.outgoing_bytes())
    transfer_outgoing_bytes = property(lambda self: self._figure("transfer_outgoing_bytes"))
    transfer_outgoing_count = property(lambda self: self._figure("transfer_outgoing_count"))
    transfer_outgoing_count_total = property(lambda self: self._figure("transfer_outgoing_count_total"))

    def _figure(self, name):
        return (self.native.views().state() or {}).get(name, 0)

    @functools.cached_property
    def monitor(self):
        """Stock's; it begins to measure when it is asked for the first time. Heartbeats do not need it."""
        monitor = SystemMonitor()
        interval = parse_timedelta(dask.config.get("distributed.admin.system-monitor.interval", "500ms"), "s")
        callback = PeriodicCallback(monitor.update, interval * 1000)
        self.periodic_callbacks["monitor"] = callback
        self.loop.add_callback(callback.start)
        return monitor
