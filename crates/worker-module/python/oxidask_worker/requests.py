"""Requests and operations of the scheduler's stream that need Python: user code, plugins, the objects themselves."""

import inspect
import logging

from distributed import protocol
from distributed.core import error_message

from oxidask_worker.data import frames_of

logger = logging.getLogger("distributed.core")


class Requests:
    """Runs handlers on the event loop, like stock's server."""

    def __init__(self, worker):
        self.worker = worker

    def begin(self, number, frames):
        """Called on any thread; the answer goes to `Native.answer`."""
        loop = self.worker.asyncio_loop
        loop.call_soon_threadsafe(lambda: loop.create_task(self._answer(number, frames)))

    async def _answer(self, number, frames):
        serializers = None
        try:
            message = protocol.loads(frames)
            serializers = message.get("serializers")
            result = await self._handle(message)
        except Exception as exception:
            logger.warning("Exception while handling a request", exc_info=True)
            result = error_message(exception, status="uncaught-error")
        try:
            answer = frames_of(result, serializers)
        except Exception as exception:
            answer = frames_of(error_message(exception, status="uncaught-error"))
        self.worker.native.answer(number, answer)

    async def _handle(self, message):
        name = message.pop("op")
        message.pop("reply", None)
        message.pop("close", None)
        if name in self.worker.blocked_handlers:
            raise ValueError(
                f"The {name!r} handler has been explicitly disallowed in Worker, possibly due to security concerns."
            )
        handler = self.worker.handlers.get(name)
        if handler is None:
            logger.warning("No handler %s found in %s", name, type(self.worker).__name__)
            return None
        parameters = inspect.signature(handler).parameters
        if "serializers" not in parameters:
            message.pop("serializers", None)
        if "comm" in parameters:
            message["comm"] = None
        result = handler(**message)
        if inspect.isawaitable(result):
            result = await result
        return result

    def stream(self, frames):
        """An operation of the scheduler's stream that is not the state machine's."""
        self.worker.asyncio_loop.call_soon_threadsafe(self._stream, frames)

    def _stream(self, frames):
        message = protocol.loads(frames)
        name = message.pop("op")
        handler = self.worker.stream_handlers.get(name)
        if handler is None:
            logger.error("the scheduler sent %r, which the native worker does not know", name)
            return
        try:
            result = handler(**message)
            if inspect.isawaitable(result):
                self.worker.asyncio_loop.create_task(_logged(result, name))
        except Exception:
            logger.exception("Exception in the handler of %s", name)


async def _logged(awaitable, name):
    try:
        await awaitable
    except Exception:
        logger.exception("Exception in the handler of %s", name)
