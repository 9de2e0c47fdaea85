"""What Rust is told of the Dask configuration."""

import dask
from dask.utils import parse_bytes, parse_timedelta


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
