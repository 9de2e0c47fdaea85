"""What plugins add to heartbeats: `Worker.metrics`, and extensions with a `heartbeat`. Rust sends what was told last,
so that a loop that stands still does not hold up the heartbeats.
"""

import asyncio
import inspect
import logging

import distributed.worker
import msgpack

logger = logging.getLogger("distributed.worker")

# Those of stock that Rust measures itself.
MEASURED = frozenset({"spans"})
SECONDS = 1


class Heartbeats:
    """The part of the worker that gathers them."""

    def _set_up_heartbeats(self):
        self.metrics = dict(distributed.worker.DEFAULT_METRICS)

    async def gather_for_heartbeats(self):
        told = nothing = msgpack.packb({})
        while True:
            await asyncio.sleep(SECONDS)
            found = {"extensions": self._of_extensions(), "metrics": await self._of_metrics()}
            try:
                packed = msgpack.packb(found, use_bin_type=True) if any(found.values()) else nothing
            except Exception:
                logger.exception("what plugins add to heartbeats can not be sent")
                continue
            if packed != told:
                self.views.add_to_heartbeats(packed)
                told = packed

    def _of_extensions(self):
        found = {}
        for name, extension in dict(self.extensions).items():
            if hasattr(extension, "heartbeat") and name not in MEASURED:
                try:
                    found[name] = extension.heartbeat()
                except Exception:
                    logger.exception("the heartbeat of extension %s failed", name)
        return found

    async def _of_metrics(self):
        found = {}
        for name, metric in dict(self.metrics).items():
            try:
                value = metric(self)
                found[name] = await value if inspect.isawaitable(value) else value
            except Exception:
                # As in stock, where nobody is told either.
                logger.debug("metric %s failed", name, exc_info=True)
        return found
