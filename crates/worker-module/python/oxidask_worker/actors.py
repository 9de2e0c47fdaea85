"""Actors: objects that stay on the worker that made them, and the calls of their methods."""

import inspect
import weakref
from collections.abc import Mapping

from dask.utils import key_split
from distributed.actor import Actor
from distributed.protocol import to_serialize

from oxidask_worker.context import inside, occupying


class StoredActor:
    """What the store has in the place of an actor. Elsewhere it arrives as stock's proxy."""

    __slots__ = ("__weakref__", "address", "instance", "key")

    def __init__(self, instance, address, key):
        self.instance, self.address, self.key = instance, address, key

    def __reduce__(self):
        return Actor, (type(self.instance), self.address, self.key)


class Actors(Mapping):
    """`Worker.state.actors`: the objects by key, as long as the store has them."""

    def __init__(self, native):
        self._native = native
        self._stored = weakref.WeakValueDictionary()

    def keep(self, instance, address, key):
        """What goes into the store."""
        stored = self._stored[key] = StoredActor(instance, address, key)
        return stored

    def __getitem__(self, key):
        return self._stored[key].instance

    def __contains__(self, key):
        return key in self._stored

    def __iter__(self):
        return iter(list(self._stored))

    def __len__(self):
        return len(self._stored)


def with_proxies(inputs, worker):
    """Inputs of a task, with a proxy of its own for each actor of this worker."""
    return {
        key: Actor(type(value.instance), value.address, key, worker) if type(value) is StoredActor else value
        for key, value in inputs.items()
    }


async def execute(worker, actor=None, function=None, args=(), kwargs=None):
    """The operation `actor_execute`: calls a method, by default on the thread for actors."""
    kwargs = kwargs or {}
    separate_thread = kwargs.pop("separate_thread", True)
    try:
        method = getattr(worker.state.actors[actor], function)
        if inspect.iscoroutinefunction(method):
            with inside(worker):
                result = await method(*args, **kwargs)
        elif separate_thread:

            def call():
                with occupying(worker, f"{key_split(actor)}.{function}"):
                    return method(*args, **kwargs)

            result = await worker.asyncio_loop.run_in_executor(worker.executors["actor"], call)
        else:
            with inside(worker):
                result = method(*args, **kwargs)
        return {"status": "OK", "result": to_serialize(result)}
    except Exception as exception:
        return {"status": "error", "exception": to_serialize(exception)}


def attribute(worker, actor=None, attribute=None):
    """The operation `actor_attribute`."""
    try:
        return {"status": "OK", "result": to_serialize(getattr(worker.state.actors[actor], attribute))}
    except Exception as exception:
        return {"status": "error", "exception": to_serialize(exception)}
