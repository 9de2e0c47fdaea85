"""Makes a package out of the sources that the scheduler sends: nothing needs to be installed.

Runs with `BUNDLE` (JSON: module name -> source) and `NAME` (package name, which carries a digest of
the sources, so that a newer scheduler never meets an older copy) in its globals. Must work on
Python 3.8 and newer.
"""

import json
import linecache
import sys
import types


def load(name, bundle):
    """Create the package `name` with the modules of `bundle` and return it. Idempotent."""
    if name in sys.modules:
        return sys.modules[name]
    sources = json.loads(bundle)
    package = types.ModuleType(name)
    package.__path__ = []
    sys.modules[name] = package
    try:
        # In dependency order: a module imports only what stands before it.
        for short, source in sources:
            full = name + "." + short
            filename = "<%s>" % full
            module = types.ModuleType(full)
            module.__package__ = name
            module.__file__ = filename
            # Lets tracebacks show our lines.
            linecache.cache[filename] = (
                len(source),
                None,
                source.splitlines(True),
                filename,
            )
            sys.modules[full] = module
            exec(compile(source, filename, "exec"), module.__dict__)
            setattr(package, short, module)
    except BaseException:
        for loaded in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            del sys.modules[loaded]
        raise
    return package


package = load(NAME, BUNDLE)  # noqa: F821
