"""Starts the native program of this environment.

    python -m oxidask.scheduler …        python -m oxidask.worker ADDRESS …

are for managers that start modules of Python (`worker_command` of dask-jobqueue, `worker_module` of others).
"""

import os
import sys
import sysconfig

NAME = "oxidask"


def program():
    """Path of the program: beside the interpreter, or where else pip puts scripts."""
    folders = [os.path.dirname(sys.executable), sysconfig.get_path("scripts")]
    if hasattr(sysconfig, "get_preferred_scheme"):
        folders.append(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))
    # pip install --target
    folders.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin"))
    for folder in filter(None, folders):
        path = os.path.join(folder, NAME)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise SystemExit(f"Error: the program {NAME} is in none of {', '.join(filter(None, folders))}")


def become(*words):
    """Replaces this process by the program."""
    sys.stdout.flush()
    sys.stderr.flush()
    path = program()
    os.execv(path, [path, *words])
