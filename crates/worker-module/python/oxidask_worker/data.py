"""Data of the store as frames and back, by the environment's own serialisers."""

from distributed import protocol
from distributed.protocol import to_serialize

from oxidask_worker.tasks import described, failure, loading, safe_sizeof


def load(frames, keys):
    """Objects of an answer to `get_data`: what can be used, and what not."""
    try:
        with loading:
            data = protocol.loads(frames)["data"]
    except Exception as exception:
        # Which of them it was is not known.
        error = failure(exception)
        return [], [(key, error) for key in keys]
    good, bad = [], []
    for key, value in data.items():
        try:
            good.append((key, value, int(safe_sizeof(value)), *described(value)))
        except Exception as exception:
            bad.append((key, failure(exception)))
    return good, bad


def dump(data, serializers):
    """Frames of the answer to `get_data`. What can not be serialised becomes an error at the caller."""
    message = {"status": "OK", "data": {key: to_serialize(value) for key, value in data.items()}}
    return _dumped(message, serializers)


def frames_of(message, serializers=None):
    """Frames of a message as bytes."""
    return [frame if isinstance(frame, bytes) else bytes(frame) for frame in _dumped(message, serializers)]


def _dumped(message, serializers):
    context = {"compression": None, "pickle-protocol": 5}
    return protocol.dumps(message, serializers=serializers, on_error="message", context=context)
