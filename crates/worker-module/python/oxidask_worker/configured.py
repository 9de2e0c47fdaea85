"""What Rust is told of the Dask configuration."""

import platform

import dask
from dask.utils import parse_bytes, parse_timedelta
from distributed.security import Security


def given(options):
    """What the command line says of TLS, as words for `Security`."""
    words = {name: options[name] for name in ("tls_ca_file", "tls_worker_cert", "tls_worker_key")}
    return {name: str(path) for name, path in words.items() if path}


def tls(words):
    """The worker's part of the environment's `Security`, which knows options and configuration."""
    security = Security(**words)

    def version(name):
        found = getattr(security, name, None)
        return {"TLSv1_2": 1.2, "TLSv1_3": 1.3}.get(getattr(found, "name", None))

    return {
        "ca_file": security.tls_ca_file,
        "cert": security.tls_worker_cert,
        "key": security.tls_worker_key,
        "ciphers": security.tls_ciphers,
        "min_version": version("tls_min_version"),
        "max_version": version("tls_max_version"),
        "required": bool(security.require_encryption),
    }


def leaving():
    """How long a scheduler that went away is waited for, and how long handing over may take."""

    def seconds(name, default):
        return parse_timedelta(dask.config.get("distributed.worker." + name, default), "s")

    return {
        "reconnect_timeout": seconds("reconnect-timeout", "5 minutes"),
        "retire_timeout": seconds("retire-timeout", "20s"),
    }


def near_memory():
    """Whether workers on one machine may read each other's data from memory (`distributed.worker.near-memory`)."""
    return bool(dask.config.get("distributed.worker.near-memory", True))


def http(options):
    """Where HTTP is served, and whether there are pages beside health and metrics."""

    def tls(name):
        return dask.config.get("distributed.scheduler.dashboard.tls." + name, None)

    return {
        "addresses": [list(address) for address in options["dashboard_address"]],
        "pages": options["dashboard"],
        "prefix": options["dashboard_prefix"],
        "cert": tls("cert"),
        "key": tls("key"),
        "namespace": dask.config.get("distributed.dashboard.prometheus.namespace", "dask"),
        **python_info(),
    }


def python_info():
    """Labels that `prometheus_client` gives to the interpreter."""
    parts = dict(zip(("major", "minor", "patchlevel"), platform.python_version_tuple()))
    return {"version": platform.python_version(), "implementation": platform.python_implementation(), **parts}


def memory():
    """`distributed.worker.memory`; what is switched off (False, None, 0) is 0."""

    def get(name, default=None):
        return dask.config.get("distributed.worker.memory." + name, default)

    # Releases before 2023.4 compress what is spilled like messages.
    compression = get("spill-compression", dask.config.get("distributed.comm.compression", "auto"))
    return {
        **{name: get(name) or 0 for name in ("target", "spill", "pause")},
        "transfer": get("transfer", 0.1) or 0,
        "max_spill": parse_bytes(get("max-spill")) if get("max-spill") not in (None, False) else None,
        "compression": str(compression).lower() if compression else "none",
        "interval": parse_timedelta(get("monitor-interval", "100ms"), "s"),
    }
