"""What the worker tells of itself on request: identity, stories, dumps, measurements."""

import dask
import distributed.worker
from distributed import profile
from distributed.versions import get_versions


class Introspection:
    """The part of the worker that answers such requests."""

    def keys(self):
        return list(self.data)

    def versions(self, packages=None):
        return get_versions(packages=packages)

    def identity(self):
        return {
            "type": "Worker",
            "id": self.id,
            "scheduler": self.scheduler.address,
            "nthreads": self.nthreads,
            "memory_limit": self.memory_limit,
        }

    async def get_profile(self, start=None, stop=None, key=None, server=False):
        """As the environment's worker does it. The event loop is watched from the first time that this is asked for."""
        if server and not hasattr(self.io_loop, "profile"):
            self.io_loop.profile = profile.watch(
                omit=("profile.py", "selectors.py"),
                interval=dask.config.get("distributed.worker.profile.interval"),
                cycle=dask.config.get("distributed.worker.profile.cycle"),
            )
        words = {"start": start, "stop": stop, "key": key}
        if server:
            words["server"] = server
        return await distributed.worker.Worker.get_profile(self, **words)

    async def get_story(self, keys_or_stimuli=(), **_):
        return self.state.story(*keys_or_stimuli)

    def story(self, *keys):
        return self.state.story(*keys)

    def stateof(self, key):
        task = self.state.tasks[key]
        return {
            "executing": task.state == "executing",
            "waiting_for_data": bool(task.waiting_for_data),
            "heap": task.state in ("ready", "constrained"),
            "data": key in self.data,
        }

    def dump_state(self, exclude=()):
        """Everything, in stock's form, for cluster dumps (since 2021.10.0)."""
        from distributed.utils import recursive_to_dict

        info = {
            **self.identity(),
            "address": self.address,
            "status": self.status.name,
            "thread_id": self.thread_id,
            "logs": self.get_logs(),
            "config": dask.config.config,
            "transfer_incoming_log": [],
            "transfer_outgoing_log": [],
            **self.state._to_dict(exclude=exclude),
            "max_spill": False,
        }
        return recursive_to_dict({name: value for name, value in info.items() if name not in exclude}, exclude=exclude)

    _to_dict = dump_state
