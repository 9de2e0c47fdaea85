"""Plugins of the worker: set up before the first task, torn down after the last; what they are told of transitions."""

import inspect
import logging
from collections.abc import Mapping

import distributed.worker
from distributed.diagnostics.plugin import WorkerPlugin

logger = logging.getLogger("distributed.worker")


def watches_transitions(plugin):
    """Whether it has more than the method that every plugin inherits."""
    method = getattr(type(plugin), "transition", None)
    return method is not None and method is not getattr(WorkerPlugin, "transition", None)


class Plugins:
    """The part of the worker that knows about plugins."""

    async def plugin_add(self, plugin=None, name=None, catch_errors=True, **_):
        """As the environment's worker does it, which differs from release to release."""
        words = {"plugin": plugin, "name": name, "catch_errors": catch_errors}
        return await self._plugin_call("plugin_add", words)

    async def plugin_remove(self, name=None, **_):
        return await self._plugin_call("plugin_remove", {"name": name})

    async def _plugin_call(self, name, words):
        function = getattr(distributed.worker.Worker, name)
        known = inspect.signature(function).parameters
        result = function(self, **{word: value for word, value in words.items() if word in known})
        try:
            return await result if inspect.isawaitable(result) else result
        finally:
            self.views.observe(any(map(watches_transitions, self.plugins.values())))

    async def set_up_plugins(self, plugins):
        """Those that the scheduler has told of, before the first task."""
        if isinstance(plugins, Mapping):
            pairs = list(plugins.items())
        else:
            pairs = [
                (one.get("name"), one["plugin"]) if isinstance(one, dict) else (None, one) for one in plugins or ()
            ]
        for name, plugin in pairs:
            # A scheduler that came back tells of them again; what they have going on is to go on.
            if name is None or name not in self.plugins:
                await self.plugin_add(name=name, plugin=plugin)

    async def tear_down_plugins(self):
        for name in list(self.plugins):
            if hasattr(distributed.worker.Worker, "plugin_remove"):
                await self.plugin_remove(name=name)
            elif hasattr(self.plugins[name], "teardown"):
                await _awaited(self.plugins[name].teardown(self))
        for extension in dict.values(self.extensions):
            if hasattr(extension, "close"):
                await _awaited(extension.close())

    def notify_of_transitions(self, changes):
        """In the event loop, in the order in which they happened, before what begins next. `worker.state.tasks` shows
        the task as it was then."""
        plugins = [plugin for plugin in self.plugins.values() if watches_transitions(plugin)]
        for key, start, finish, image in changes:
            with self.state.tasks.as_it_was(key, finish, image):
                for plugin in plugins:
                    try:
                        plugin.transition(key, start, finish)
                    except Exception:
                        logger.info("Plugin '%s' failed with exception", type(plugin).__name__, exc_info=True)


async def _awaited(result):
    return await result if inspect.isawaitable(result) else result
