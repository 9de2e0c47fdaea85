"""What is known of the named parts of a client's work (`distributed.span`), seen by functions on the scheduler.

Called by test_spans.py.
"""

import time

from distributed import wait


def inc(x):
    return x + 1


def spans_tell_what_was_done_under_a_name(client):
    from distributed import span

    with span("outer"):
        with span("inner") as inner:
            wait(client.map(inc, range(10), key="inc"))
    default = client.submit(inc, 1, key="default-1")
    wait(default)

    def look(dask_scheduler):
        extension = dask_scheduler.extensions["spans"]
        span = extension.spans[inner]
        return {
            "names": sorted(span.name for span in extension.spans.values()),
            "parent": span.parent.name,
            "done": span.done,
            "forgotten": span.states["forgotten"],
            "order": 0 < span.enqueued <= span.start <= span.stop,
            "bytes": span.nbytes_total,
            "metadata": [collection["type"] for collection in span.metadata["collections"]],
            "threads": span.nthreads_intervals[0][2],
            "found": [span.name for span in extension.find_by_tags("inner", "outer")],
            "live": dask_scheduler.tasks["default-1"].group in extension.spans_search_by_name["default",][-1].groups,
            "others": extension.spans[dask_scheduler.tasks["default-1"].group.span_id].name,
        }

    # The futures are gone, and with them the tasks.
    deadline = time.time() + 20
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) > 1:
        assert time.time() < deadline
        time.sleep(0.05)
    seen = client.run_on_scheduler(look)
    assert seen == {
        "names": [("default",), ("outer",), ("outer", "inner")],
        "parent": ("outer",),
        "done": True,
        "forgotten": 10,
        "order": True,
        "bytes": 280,
        "metadata": ["Future"],
        "threads": sum(client.ncores().values()),
        "found": [("outer",)],
        "live": True,
        "others": ("default",),
    }, seen


def spans_have_what_workers_measured(client):
    """It comes with heartbeats."""
    from distributed import span

    with span("measured"):
        assert client.submit(inc, 1, key="inc-1").result() == 2

    def look(dask_scheduler):
        return dict(dask_scheduler.extensions["spans"].merge_by_tags("measured").cumulative_worker_metrics)

    deadline = time.time() + 30
    while ("execute", "inc", "thread-cpu", "seconds") not in (seen := client.run_on_scheduler(look)):
        assert time.time() < deadline, seen
        time.sleep(0.1)
    assert seen["execute", "inc", "thread-cpu", "seconds"] >= 0
    assert seen["execute", "N/A", "idle or other spans", "seconds"] >= 0


def older_releases_have_none(client):
    assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.extensions["spans"]) is None
