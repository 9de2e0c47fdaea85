"""Scheduler plugins: kept by name, and told what happens, in order.

What happened comes as hooks (see `followers.rs`): the name of the hook and its arguments. The scheduler
tells only the hooks that some plugin implements.
"""

import asyncio
import inspect
import logging

from .errors import decode_message
from .frames import decode
from .mirror import STATES

# What the scheduler can tell. `start`, `before_close` and `close` are called where they are due.
HOOKS = (
    "transition",
    "update_graph",
    "restart",
    "add_worker",
    "remove_worker",
    "add_client",
    "remove_client",
    "log_event",
    "valid_workers_downscaling",
)

logger = logging.getLogger("distributed.scheduler")


def has_hook(plugin, hook):
    """Whether a plugin has a hook of its own: that of the base class does nothing."""
    method = getattr(plugin, hook, None)
    if method is None:
        return False
    try:
        from distributed.diagnostics.plugin import SchedulerPlugin
    except ImportError:
        return True
    return getattr(method, "__func__", method) is not getattr(SchedulerPlugin, hook, None)


def name_of(plugin):
    """As stock names plugins."""
    name = getattr(plugin, "name", None)
    return name or "%s-%d" % (type(plugin).__name__, id(plugin))


class Plugins:
    """The part of the mirror that has the plugins."""

    def __init__(self):
        self._plugins = {}
        # Value of the transition counter when each one came.
        self._seen = {}
        self._wanted = None

    @property
    def plugins(self):
        return PluginTable(self)

    def add_plugin(self, plugin=None, idempotent=False, name=None, **kwargs):
        """Have the hooks of `plugin` called for what happens from now on."""
        if isinstance(plugin, type):
            plugin = plugin(self, **kwargs)
        name = name or name_of(plugin)
        if name in self._plugins:
            if idempotent:
                return
            if self._plugins[name] is not plugin:
                logger.warning("Scheduler already contains a plugin with name %s; overwriting.", name)
        self._plugins[name] = plugin
        self._seen[name] = self._follow()

    def remove_plugin(self, name=None, plugin=None):
        """Take a plugin out."""
        if name is None:
            name = next((n for n, p in self._plugins.items() if p is plugin), None)
        if name not in self._plugins:
            raise ValueError("Could not find plugin %r among the current scheduler plugins" % (name,))
        del self._plugins[name]
        self._seen.pop(name, None)
        self._follow()

    def _has_hook(self, hook):
        return any(has_hook(plugin, hook) for plugin in self._plugins.values())

    def _follow(self):
        """Tell the scheduler which hooks there are; the counter of transitions at that moment."""
        hooks = [hook for hook in HOOKS if self._has_hook(hook)]
        # What workers tell with each result is a lot; progress bars have no use for it.
        detailed = any(
            has_hook(plugin, "transition")
            and not type(plugin).__module__.startswith("distributed.diagnostics.progress")
            for plugin in self._plugins.values()
        )
        wanted = hooks, detailed
        if wanted == self._wanted and "transition" not in hooks:
            return 0
        self._wanted = wanted
        header, frames = self._ask("observe", {"hooks": hooks, "detailed": detailed})
        self._install(header, frames)
        return header["counter"]

    async def _register(self, plugin, name=None, idempotent=False):
        """(name, whether it was added); calls `start`."""
        name = name or name_of(plugin)
        if name in self._plugins and idempotent:
            return name, False
        if hasattr(plugin, "start"):
            result = plugin.start(self)
            if inspect.isawaitable(result):
                await result
        self.add_plugin(plugin, name=name)
        return name, True

    async def _call_all(self, hook):
        """`before_close` and `close`; what they raise is logged."""

        async def call(plugin):
            try:
                result = getattr(plugin, hook)()
                if inspect.isawaitable(result):
                    await result
            except (Exception, SystemExit):
                logger.exception("Plugin call failed during scheduler.close")

        plugins = [plugin for plugin in self._plugins.values() if hasattr(plugin, hook)]
        await asyncio.gather(*map(call, plugins))

    # What the scheduler tells.

    def _told(self, items, frames):
        """Pass hooks on, in order; a generator that yields now and then, so that others may run."""
        self._coming = frozenset(item[3] for item in items if item[0] == "transition")
        for item in items:
            name, count, arguments = item[0], item[1], item[2:]
            encoded, frames = frames[:count], frames[count:]
            try:
                getattr(self, "_told_" + name)(*arguments, frames=encoded)
            except Exception:
                logger.exception("Plugins could not be told of %s", name)
            yield

    def _each(self, hook, *args, **kwargs):
        for name, plugin in list(self._plugins.items()):
            self._one(name, plugin, hook, *args, **kwargs)

    def _one(self, name, plugin, hook, *args, **kwargs):
        if not has_hook(plugin, hook):
            return
        try:
            result = getattr(plugin, hook)(*args, **kwargs)
        except (Exception, SystemExit):
            logger.exception("Plugin %s failed in %s", name, hook)
            return
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(result)
            task.add_done_callback(lambda task: _log_failure(task, name, hook))

    def _told_transition(self, counter, key, start, finish, stimulus_id, worker, frames):
        start, finish = STATES[start], STATES[finish]
        details = {}
        if frames:
            details = decode_message(frames)
            for name in ("op", "key", "stimulus_id"):
                details.pop(name, None)
        if worker is not None:
            details["worker"] = worker
        if finish == "erred" and start == "processing":
            # Without details it must still be there: plugins ask whether there is one.
            details.setdefault("exception", True)
            details.setdefault("traceback", None)
        self._now[key] = finish
        try:
            for name, plugin in list(self._plugins.items()):
                if counter > self._seen.get(name, 0):
                    self._one(name, plugin, "transition", key, start, finish, stimulus_id=stimulus_id, **details)
        finally:
            del self._now[key]

    def _told_add_worker(self, address, row, frames):
        self._arrived[address] = row
        self._cached_light = None
        self._each("add_worker", self, address)

    def _told_remove_worker(self, address, stimulus_id, frames):
        self._arrived.pop(address, None)
        self._cached_light = None
        for name, plugin in list(self._plugins.items()):
            if has_hook(plugin, "remove_worker"):
                # Since 2023.3.2.1 they are told why.
                more = {"stimulus_id": stimulus_id} if _takes(plugin.remove_worker, "stimulus_id") else {}
                self._one(name, plugin, "remove_worker", self, address, **more)

    def _told_add_client(self, client, frames):
        self._each("add_client", self, client)

    def _told_remove_client(self, client, frames):
        self._each("remove_client", self, client)

    def _told_restart(self, frames):
        self._forget()
        self._each("restart", self)

    def _told_log_event(self, topic, frames):
        # By position: older releases named it otherwise.
        self._each("log_event", topic, decode_message(frames))

    def _told_update_graph(self, client, keys, tasks, priorities, annotations, stimulus_id, frames):
        by_name = {}
        for i, packed in annotations:
            for name, value in decode(packed).items():
                by_name.setdefault(name, {})[tasks[i]] = value
        priority = {
            key: tuple(int(p) if p.is_integer() else p for p in map(float, priority))
            for key, priority in zip(tasks, priorities)
            if priority is not None
        }
        self._each(
            "update_graph",
            self,
            client=client,
            keys=set(keys),
            tasks=list(tasks),
            annotations=by_name,
            priority=priority,
            dependencies={},
            stimulus_id=stimulus_id,
        )


class PluginTable(dict):
    """`dask_scheduler.plugins`: a dict by name; a list of plugins in releases up to 2021.11."""

    def __init__(self, scheduler):
        super().__init__(scheduler._plugins)
        self._scheduler = scheduler

    def __contains__(self, plugin):
        if isinstance(plugin, str):
            return dict.__contains__(self, plugin)
        return any(plugin is one for one in self.values())

    def remove(self, plugin):
        """As a list has it."""
        self._scheduler.remove_plugin(plugin=plugin)


def _takes(function, name):
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _log_failure(task, name, hook):
    if not task.cancelled() and task.exception() is not None:
        logger.error("Plugin %s failed in %s", name, hook, exc_info=task.exception())
