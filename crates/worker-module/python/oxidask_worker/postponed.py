"""Imports the environment, without what it may never need: such packages come in when something of them is used."""

import contextlib
import importlib
import importlib.util
import sys
import types


class Postponed(types.ModuleType):
    """Stands for a module that is imported when an attribute of it is asked for."""

    def __getattr__(self, attribute):
        name = self.__name__
        if sys.modules.get(name) is self:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)


@contextlib.contextmanager
def postponed(name):
    """Whoever imports the module inside gets what stands for it; whoever does afterwards the module itself."""
    if name in sys.modules or importlib.util.find_spec(name) is None:
        yield
        return
    stand_in = sys.modules[name] = Postponed(name)
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


# It takes nothing but buffers from numpy, which would be a sixth of an idle worker's memory.
with postponed("numpy"):
    import distributed  # noqa: F401
