"""Messages to clients, written as stock would write them."""

import traceback

import msgpack
from distributed.core import error_message
from distributed.protocol.serialize import Serialize, Serialized, serialize

try:
    from distributed.protocol.serialize import ToPickle
except ImportError:  # before 2022.04.0
    ToPickle = None


def encode_message(message, serializers=None):
    """A message as frames with inline markers: msgpack, then sub-headers and payloads.

    Releases from 2021.03.1 on write this themselves; for the older ones, which lift objects out by
    path, it is done here, so that the scheduler reads one form.
    """
    from distributed.protocol import dumps

    if ToPickle is not None:
        return list(dumps(message, serializers=serializers, context={"compression": None}))
    frames = [None]
    frames[0] = msgpack.packb(_inline(message, frames, serializers), use_bin_type=True)
    return frames


def _inline(value, frames, serializers):
    if isinstance(value, dict):
        return {k: _inline(v, frames, serializers) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_inline(item, frames, serializers) for item in value]
    if not isinstance(value, (Serialize, Serialized)):
        return value
    if isinstance(value, Serialized):
        header, parts = value.header, value.frames
    else:
        header, parts = serialize(value.data, serializers=serializers)
    header = {k: v for k, v in header.items() if k not in ("count", "lengths")}
    header["num-sub-frames"] = len(parts)
    marker = {"__Serialized__": len(frames)}
    frames.append(msgpack.packb(header, use_bin_type=True))
    frames.extend(parts)
    return marker


def decode_message(frames):
    """The reverse: objects stay serialised."""
    from distributed.protocol import loads

    frames = [bytes(frame) for frame in frames]
    if ToPickle is not None:
        return loads(frames, deserialize=False)

    def bind(item):
        if len(item) == 1 and isinstance(item.get("__Serialized__"), int):
            at = item["__Serialized__"]
            header = msgpack.unpackb(frames[at], raw=False, use_list=False)
            count = header.pop("num-sub-frames")
            return Serialized(header, frames[at + 1 : at + 1 + count])
        return item

    return msgpack.unpackb(
        frames[0],
        raw=False,
        use_list=False,
        strict_map_key=False,
        object_hook=bind,
    )


def failure(error, status="error", serializers=None):
    """(short facts, frames of stock's error message) of the exception being handled."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    facts = {
        "status": status,
        "error": "%s: %s" % (type(error).__name__, error),
        "traceback": text[-10000:],
    }
    message = error_message(error, status=status)
    return facts, encode_message(message, serializers)
