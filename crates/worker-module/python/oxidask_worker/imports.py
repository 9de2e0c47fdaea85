"""Keeps what the thread of the event loop imports apart from what is imported to unpickle something.

Where two threads import parts of one package and each waits for the other, Python lets one of them go on with modules
that are not complete, and its import fails. Stock unpickles on the event loop's thread; here others do, under a lock.
"""

import builtins
import contextlib
import importlib
import sys
import threading

# Seconds until an import begins nevertheless: what unpickles may itself wait for the event loop.
PATIENCE = 10


def is_complete(name, fromlist):
    """Whether nothing has to be imported for it."""
    module = sys.modules.get(name)
    if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
        return False
    # Of a package, what is missing may be a module.
    return not fromlist or not hasattr(module, "__path__") or vars(module).keys() >= set(fromlist)


def keep_apart(loading):
    """From now on this thread imports only while nobody unpickles."""
    thread, get_ident = threading.get_ident(), threading.get_ident
    import_name, import_module = builtins.__import__, importlib.import_module

    @contextlib.contextmanager
    def alone():
        acquired = loading.acquire(timeout=PATIENCE)
        try:
            yield
        finally:
            if acquired:
                loading.release()

    def name_apart(name, globals=None, locals=None, fromlist=(), level=0):
        if get_ident() != thread or (level == 0 and is_complete(name, fromlist)):
            return import_name(name, globals, locals, fromlist, level)
        with alone():
            return import_name(name, globals, locals, fromlist, level)

    def module_apart(name, package=None):
        if get_ident() != thread or is_complete(name, ()):
            return import_module(name, package)
        with alone():
            return import_module(name, package)

    # It is pickled by name.
    module_apart.__name__ = module_apart.__qualname__ = "import_module"
    module_apart.__module__ = "importlib"
    builtins.__import__, importlib.import_module = name_apart, module_apart
