"""The loop of a Python host process that answers one request after the other (graphs)."""

import os
import sys
import threading
import time

from .frames import take_over_stdio


def hello():
    """What this Python has, found without importing any of it."""
    return {
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "pid": os.getpid(),
        "distributed": release_of("distributed"),
        "dask": release_of("dask"),
    }


def release_of(package):
    """Version of an installed distribution, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def die_with_parent(parent):
    """End when the scheduler does, however it dies; also while user code hangs."""
    try:
        import ctypes
        import signal

        ctypes.CDLL(None, use_errno=True).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    except Exception:
        # Not Linux: the thread below notices unless the interpreter is stuck in foreign code.
        pass

    def watch():
        while True:
            if os.getppid() != parent:
                os._exit(1)
            time.sleep(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def find_uploads():
    """Make what clients uploaded to the scheduler importable."""
    folder = os.environ.get("OXIDASK_PYTHON_HOST_DIRECTORY")
    if not folder or folder in sys.path or not os.path.isdir(folder):
        return
    archives = [name for name in os.listdir(folder) if name.endswith((".zip", ".egg", ".pyz"))]
    sys.path[:0] = [folder] + [os.path.join(folder, name) for name in archives]


def answer(request, frames):
    """(header, frames) of the answer to one request that needs no view of the scheduler."""
    try:
        if request["op"] == "hello":
            return hello(), []
        if request["op"] == "warm-up":
            import distributed.scheduler  # noqa: F401

            return {"status": "OK"}, []
        if request["op"] == "expand":
            from .expand import expand

            find_uploads()
            return expand(request, frames)
        raise ValueError("unknown request %r" % (request["op"],))
    except Exception as error:
        return refusal(error)


def refusal(error):
    """The answer to a request that raised."""
    try:
        from .errors import failure

        return failure(error)
    except Exception as second:
        # No usable distributed here: plain facts must do.
        return {
            "status": "error",
            "error": "%s: %s" % (type(error).__name__, error),
            "traceback": "while reporting it: %s: %s" % (type(second).__name__, second),
        }, []


def serve(channel):
    """Answer until the scheduler closes the pipe."""
    while True:
        try:
            request, frames = channel.read()
        except EOFError:
            return
        header, reply = answer(request, frames)
        del frames
        header["id"] = request["id"]
        channel.write(header, reply)
        # A graph may be large; do not hold it until the next request comes.
        del request, reply, header


def main(parent):
    """Entry point of a process that expands graphs."""
    channel = take_over_stdio()
    die_with_parent(parent)
    serve(channel)
