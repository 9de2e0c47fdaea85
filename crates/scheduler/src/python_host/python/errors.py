"""What went wrong, in the form stock's `error_message` gives it."""

import traceback

from distributed.core import error_message
from distributed.protocol import dumps


def encode_message(message, serializers=None):
    """A message as the frames that a stock server of this release would write."""
    return list(
        dumps(message, serializers=serializers, context={"compression": None})
    )


def failure(error, status="error", serializers=None):
    """(short facts, frames of stock's error message) of the exception being handled."""
    text = "".join(
        traceback.format_exception(type(error), error, error.__traceback__)
    )
    facts = {
        "status": status,
        "error": "%s: %s" % (type(error).__name__, error),
        "traceback": text[-10000:],
    }
    return facts, encode_message(error_message(error, status=status), serializers)
