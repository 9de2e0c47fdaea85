"""What stock's scheduler is besides its state: a Python program with packages, a profile, and a current
directory. Called by name (`server.rs`), like functions of clients; what is returned is msgpack, which
releases do not wrap differently.
"""

import threading

import msgpack

_history = None


def start_sampling():
    """Have the calling thread's stacks sampled from now on, if profiling is configured. Idempotent."""
    global _history
    if _history is not None:
        return
    import dask

    _history = ()
    if not dask.config.get("distributed.worker.profile.enabled", True):
        return
    from distributed import profile

    _history = profile.watch(
        thread_id=threading.get_ident(),
        omit=("profile.py", "selectors.py"),
        interval=dask.config.get("distributed.worker.profile.interval", "10ms"),
        cycle=dask.config.get("distributed.worker.profile.cycle", "1000ms"),
    )


def profile(start, stop):
    """Where this process spent its time between two points in time (seconds since 1970, or None)."""
    from distributed.profile import get_profile

    return _pack(get_profile(_history or (), start=start, stop=stop))


def versions(packages):
    """Versions as stock's scheduler would tell them if it ran here."""
    from distributed.versions import get_versions

    return _pack(get_versions(packages))


def write_file(url, data, options):
    """Write to a path, or to a URL that fsspec knows."""
    if "://" not in url:
        with open(url, "wb") as file:
            file.write(data)
    else:
        import fsspec

        with fsspec.open(url, mode="wb", **options) as file:
            file.write(data)
    return _pack(None)


def _pack(value):
    return msgpack.packb(value, use_bin_type=True)
