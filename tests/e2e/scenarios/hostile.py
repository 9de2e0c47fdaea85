"""Well-framed messages that make no sense. Called by test_hostile.py."""

from distributed import Client


def inc(x):
    return x + 1


def works(address):
    with Client(address, timeout="30s") as client:
        assert client.gather(client.map(inc, range(5), pure=False)) == list(range(1, 6))


def unknown_operations(address):
    """An operation that nobody knows is answered with nil or an error; the connection may be closed."""
    import asyncio

    from distributed.core import connect

    async def ask():
        comm = await connect(address)
        try:
            await comm.write({"op": "no-such-operation", "reply": True})
            return await asyncio.wait_for(comm.read(), 10)
        except OSError:
            return None
        finally:
            comm.abort()

    asyncio.run(ask())
    works(address)


def messages_of_wrong_shape(address):
    import asyncio

    from distributed.core import connect

    messages = [
        None,
        17,
        "text",
        [],
        {},
        {"op": None},
        {"op": 5, "reply": True},
        {"op": "identity", "reply": "maybe"},
        {"op": "identity", "reply": True, "unexpected": 1},
        {"op": "gather", "reply": True},
        {"op": "gather", "reply": True, "keys": 5},
        {"op": "scatter", "reply": True, "data": None},
        {"op": "register-client", "client": 7},
        {"op": "register-worker"},
        {"op": "register-worker", "address": "not an address", "reply": True},
        {"op": "heartbeat_worker", "reply": True, "address": "tcp://127.0.0.1:1"},
        {"op": "who_has", "reply": True, "keys": {"a": 1}},
        {"op": "cancel", "reply": True, "keys": None, "client": None},
        {"op": "retire_workers", "reply": True, "workers": [None, 5]},
    ]

    async def send(message):
        comm = await connect(address)
        try:
            await comm.write(message)
            await asyncio.wait_for(comm.read(), 0.3)
        except Exception:
            # Closed, unanswered or answered with an error: all the same here.
            pass
        finally:
            comm.abort()

    async def send_all():
        for message in messages:
            await send(message)

    asyncio.run(send_all())
    works(address)
