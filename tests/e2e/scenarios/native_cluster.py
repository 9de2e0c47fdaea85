"""A cluster with a native scheduler in one line of Python: `NativeCluster(n_workers=4)`.

Everything else of it is stock's `SpecCluster`, with which it shares `scale`, `adapt` and `close`.
It can be copied as it is: it needs nothing but Dask and `dask-scheduler` on the PATH.
"""

import asyncio
import os

import distributed
from distributed import Nanny
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface, SpecCluster


class NativeScheduler(ProcessInterface):
    """A `dask-scheduler` process of our own; `options` are those of its command line."""

    def __init__(self, command="dask-scheduler", options=()):
        super().__init__()
        self.command, self.options, self.process = command, options, None

    async def start(self):
        words = [*self.command.split(), "--host", "127.0.0.1", "--port", "0", *self.options]
        environment = dict(os.environ)
        if distributed.__version__ < "2021.03":
            # These releases wait for the scheduler to speak first, and it cannot see which framing they expect.
            environment["DASK_OXIDASK__COMM__SILENT_PEER_FRAMING"] = "f1"
        self.process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE, env=environment)
        async for line in self.process.stderr:
            if b"Scheduler at:" in line:
                self.address = line.split()[-1].decode()
                break
        else:
            raise RuntimeError(f"{words} ended with {await self.process.wait()}")
        # Read on, or the scheduler would wait for room in the pipe.
        self.log = asyncio.create_task(self.process.stderr.read())
        await super().start()

    async def close(self):
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()
        self.status = Status.closed
        await super().close()


class NativeCluster(SpecCluster):
    """Stock workers under a native scheduler, on this machine. `kwargs` are those of `Nanny`."""

    def __init__(self, n_workers=0, command="dask-scheduler", scheduler_options=(), asynchronous=False, **kwargs):
        scheduler = {"cls": NativeScheduler, "options": {"command": command, "options": scheduler_options}}
        worker = {"cls": Nanny, "options": {"nthreads": 1, "dashboard_address": None, **kwargs}}
        workers = dict.fromkeys(range(n_workers), worker)
        super().__init__(workers, scheduler=scheduler, worker=worker, asynchronous=asynchronous)
