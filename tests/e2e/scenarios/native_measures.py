"""What workers tell of themselves: heartbeats, metrics over HTTP, task stream."""

import time
import urllib.request

import numpy as np
from asking import workers_of
from distributed import Semaphore, get_task_stream, wait


def until(condition, seconds=20):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "it did not happen in time"
        time.sleep(0.05)


def inc(x):
    return x + 1


def tells_like_stock(client, ours, stock):
    """Every name that stock's worker has in a heartbeat, ours has; and numbers that are none are not told."""
    until(lambda: {ours, stock} <= set(workers_of(client)))
    wait(client.map(inc, range(50), pure=False))
    time.sleep(1.2)
    info = workers_of(client)
    told, expected = info[ours]["metrics"], info[stock]["metrics"]
    # What needs a library or a device that one of them may have.
    optional = {"gil_contention", "gpu", "host_cpu"}
    missing = set(expected) - set(told) - optional
    assert not missing, missing
    for name, value in expected.items():
        if isinstance(value, dict) and name not in ("digests_total_since_heartbeat", "task_counts"):
            assert set(told[name]) >= set(value), (name, told[name], value)
    assert told["memory"] > 10_000_000 and told["cpu"] >= 0
    assert set(info[ours]) >= set(info[stock]), set(info[stock]) - set(info[ours])


def families(info, address, prefix):
    host = address.split("//")[1].rsplit(":", 1)[0]
    port = info["services"]["dashboard"]
    base = "http://{}:{}{}".format(host, port, prefix)
    text = urllib.request.urlopen(base + "/metrics", timeout=10).read().decode()
    return base, {line.split("{")[0].split()[0] for line in text.splitlines() if line and not line.startswith("#")}


# The series of stock's worker of 2026.8.0 without gilknocker and crick, once it has spilled and sent something.
SERIES = """
gc_collection_seconds_total latency_seconds memory_bytes spill_bytes_total spill_count_total spill_time_seconds_total
tasks threads tick_count_total tick_duration_maximum_seconds transfer_incoming_bytes transfer_incoming_count
transfer_incoming_count_total transfer_outgoing_bytes transfer_outgoing_bytes_total transfer_outgoing_count
transfer_outgoing_count_total
""".split()


def serves_metrics(client, ours, stock, prefix):
    """Every series of stock's worker under its own name; health, pages."""
    until(lambda: {ours, stock} <= set(workers_of(client)))
    held = [client.submit(np.ones, 2_000_000, workers=[ours], pure=False) for _ in range(10)]
    wait(held)
    info = workers_of(client)
    assert set(info[ours]["services"]) == set(info[stock]["services"])
    expected = {"dask_worker_" + name for name in SERIES}
    assert client.submit(np.sum, held[0]).result(timeout=30) == 2_000_000
    base, found = families(info[ours], ours, prefix)
    assert not expected - found, expected - found
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total"} <= found

    def get(path):
        return urllib.request.urlopen(base + path, timeout=10).read().decode()

    assert get("/health") == "ok"
    assert "/metrics" in get("/sitemap.json")
    if prefix:
        assert ours in get("/info")
        assert "/info/main/tasks.html" in get("/sitemap.json")
        assert get("/info/main/tasks.html").count("<table>") == 2
        assert '"cores":1' in get("/json/counts.json")
        assert ours in get("/json/identity.json")


def shows_transfers(client, ours, other):
    """A transfer is in the task stream of the task it was made for, in the log, and in the bandwidths."""
    until(lambda: {ours, other} <= set(workers_of(client)))
    with get_task_stream(client) as stream:
        data = client.submit(np.ones, 1_000_000, workers=[other], pure=False)
        total = client.submit(np.sum, data, workers=[ours], pure=False)
        assert total.result(timeout=30) == 1_000_000
    steps = {entry["key"]: entry["startstops"] for entry in stream.data}
    transfers = [step for step in steps[total.key] if step["action"] == "transfer"]
    assert [step["source"] for step in transfers] == [other], steps[total.key]
    log = client.run(lambda dask_worker: list(dask_worker.incoming_transfer_log), workers=[ours])[ours]
    assert log[-1]["who"] == other and log[-1]["keys"] == {data.key: 8_000_000}, log
    data = client.submit(np.ones, 1_000_000, workers=[ours], pure=False)
    assert client.submit(np.sum, data, workers=[other], pure=False).result(timeout=30) == 1_000_000

    def sent(dask_worker):
        total = dask_worker.transfer_outgoing_bytes_total
        return total, dask_worker.transfer_outgoing_bytes, dask_worker.transfer_outgoing_count

    # The client has fetched a number.
    until(lambda: client.run(sent, workers=[ours])[ours] == (8_000_032, 0, 0))
    recent = client.run(lambda dask_worker: dask_worker.get_monitor_info(recent=True), workers=[ours])[ours]
    assert "range_query" in recent


def spends_time(client, ours):
    """Fine performance metrics and spans, as the stock scheduler keeps them."""

    def busy(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    until(lambda: ours in workers_of(client))
    wait(client.map(busy, [0.2, 0.3]))
    wait(client.submit(time.sleep, 0.2))

    def total(dask_scheduler, prefix, activity):
        spans = dask_scheduler.extensions["spans"].spans.values()
        key = ("execute", prefix, activity, "seconds")
        by_span = sum(span.cumulative_worker_metrics.get(key, 0) for span in spans)
        return dask_scheduler.cumulative_worker_metrics.get(key, 0), by_span

    def told(prefix, activity):
        return client.run_on_scheduler(total, prefix=prefix, activity=activity)

    until(lambda: min(told("busy", "thread-cpu")) >= 0.45)
    until(lambda: min(told("sleep", "thread-noncpu")) >= 0.15)
    assert max(told("sleep", "thread-cpu")) < 0.1


def fills_metrics(client, *addresses):
    """Makes every worker do everything once; the ports of their HTTP servers."""
    until(lambda: set(addresses) <= set(workers_of(client)))
    semaphore = Semaphore(max_leases=2, name="leases")
    held = [client.submit(bytes, 20_000_000, workers=[a], pure=False) for a in addresses for _ in range(7)]
    wait(held, timeout=60)

    def look(data):
        with semaphore:
            return len(data)

    # From each worker to the other, from memory and from disk.
    there = addresses[::-1] * 7
    looked = [client.submit(look, data, workers=[a], pure=False) for data, a in zip(held[::7] + held[6::7], there)]
    assert set(client.gather(looked)) == {20_000_000}
    failed = client.submit(lambda: 1 / 0, workers=[addresses[0]], pure=False)
    wait(failed, timeout=30)
    time.sleep(1.2)
    return [workers_of(client)[address]["services"]["dashboard"] for address in addresses]
