"""Reads one framed message from stdin with the protocol functions of a stock release and holds every
operation against the stock handler, as strictly as a stock peer does. Prints one JSON line per
operation: op, key, and for tasks what they compute. ``argv[1]`` is ``worker`` or ``client``, or ``spec``
to look at nothing but what tasks compute, or raise.
"""

import inspect
import json
import struct
import sys

import distributed
from distributed import protocol
from distributed.client import Client
from distributed.worker import Worker

RELEASE = tuple(int(part) for part in distributed.__version__.split(".")[:3])


def frames_of(data):
    at = 0
    if RELEASE >= (2021, 3):
        (total,) = struct.unpack_from("<Q", data, 0)
        assert total == len(data) - 8, (total, len(data))
        at = 8
    (count,) = struct.unpack_from("<Q", data, at)
    lengths = struct.unpack_from("<%dQ" % count, data, at + 8)
    at += 8 + 8 * count
    for length in lengths:
        yield data[at : at + length]
        at += length
    assert at == len(data)


def call_fits(function, fields):
    inspect.signature(function).bind(None, **fields)


def run(function, args=(), kwargs=None):
    return repr(function(*args, **(kwargs or {})))


def worker_new(op, fields):
    from distributed import worker_state_machine as machine

    events = {
        "compute-task": "ComputeTaskEvent",
        "free-keys": "FreeKeysEvent",
        "remove-replicas": "RemoveReplicasEvent",
        "acquire-replicas": "AcquireReplicasEvent",
        "refresh-who-has": "RefreshWhoHasEvent",
        "steal-request": "StealRequestEvent",
    }
    if op in events:
        event = getattr(machine, events[op])(**fields)
        assert event.stimulus_id, op
        if op != "compute-task":
            return None
        assert isinstance(event.priority, tuple), event.priority
        assert set(event.who_has) == set(event.nbytes)
        if RELEASE >= (2023, 8, 1):
            # What the worker does with a graph node.
            return run(event.run_spec)
        from distributed.worker import _deserialize

        return run(*_deserialize(*event.run_spec))
    if op == "remove-worker":
        call_fits(Worker._handle_remove_worker, fields)
    elif op == "worker-status-change":
        call_fits(Worker.handle_worker_status_change, fields)
        distributed.core.Status.lookup[fields["status"]]
    elif op == "close":
        call_fits(Worker.close, fields)
    else:
        assert op == "close-stream" and not fields, op
    return None


def worker_old(op, fields):
    handlers = {
        "close": Worker.close,
        "compute-task": Worker.add_task,
        "release-task": Worker.release_key,
        "delete-data": Worker.delete_data,
        "steal-request": Worker.steal_request,
    }
    if op not in handlers:
        assert op == "close-stream" and not fields, op
        return None
    call_fits(handlers[op], fields)
    if op != "compute-task":
        return None
    from distributed.worker import _deserialize

    spec = {name: fields[name] for name in ("function", "args", "kwargs", "task") if name in fields}
    return run(*_deserialize(**spec))


def spec(op, fields):
    run_spec = fields["run_spec"]
    call = run_spec if isinstance(run_spec, tuple) else (run_spec,)
    try:
        return run(*call)
    except Exception as error:
        return "%s <- %r" % (type(error).__name__, error.__cause__)


def client(op, fields):
    handlers = {
        "key-in-memory": "_handle_key_in_memory",
        "lost-data": "_handle_lost_data",
        "cancelled-key": "_handle_cancelled_key",
        "cancelled-keys": "_handle_cancelled_keys",
        "task-retried": "_handle_retried_key",
        "task-erred": "_handle_task_erred",
        "restart": "_handle_restart",
        "error": "_handle_error",
        "event": "_handle_event",
        "adjust-heartbeat-interval": "_adjust_heartbeat_intervals",
    }
    if op in ("stream-start", "stream-closed"):
        return None
    call_fits(getattr(Client, handlers[op]), fields)
    if op != "task-erred":
        return None
    # As Client._handle_task_erred does: loads what is bytes, takes what is an object.
    exception = fields["exception"]
    if isinstance(exception, bytes):
        exception = protocol.pickle.loads(exception)
    return "%s: %s" % (type(exception).__name__, exception)


def main():
    data = sys.stdin.buffer.read()
    batch = protocol.loads(list(frames_of(data)), deserialize=True)
    worker = worker_new if RELEASE >= (2022, 6) else worker_old
    check = {"worker": worker, "client": client, "spec": spec}[sys.argv[1]]
    for fields in batch:
        fields = dict(fields)
        op = fields.pop("op")
        line = {"op": op, "result": check(op, fields)}
        if "key" in fields:
            line["key"] = repr(fields["key"])
        print(json.dumps(line))


if __name__ == "__main__":
    main()
