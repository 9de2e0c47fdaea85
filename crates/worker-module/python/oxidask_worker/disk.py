"""Values for the disk and back. Rust compresses, writes and reads; see `worker-host/src/memory`."""

import ctypes
import gc
import traceback

import msgpack
from distributed.protocol.serialize import deserialize, serialize

from oxidask_worker.tasks import failure, loading


def is_writeable(frame):
    return not memoryview(frame).readonly


def pack(value):
    """`(frames, None)`, or `(None, printed traceback)`. Frames may be memory of the value itself."""
    try:
        header, frames = serialize(value, on_error="raise")
        header.setdefault("writeable", tuple(map(is_writeable, frames)))
        header.setdefault("lengths", tuple(memoryview(frame).nbytes for frame in frames))
        head = msgpack.packb(header, use_bin_type=True)
        return [head, *frames], None
    except Exception:
        return None, traceback.format_exc()


def unpack(frames):
    """`(value, None)`, or `(None, failure)`."""
    try:
        header = msgpack.unpackb(frames[0], raw=False, use_list=False, strict_map_key=False)
        with loading:
            return deserialize(header, frames[1:]), None
    except Exception as exception:
        return None, failure(exception)


def _trimmer():
    try:
        # Found in the C library of GNU only; others give memory back on their own.
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return lambda _: None


_trim = _trimmer()


def collect():
    """Collects garbage, and gives back to the system what the C library keeps."""
    gc.collect()
    _trim(0)
