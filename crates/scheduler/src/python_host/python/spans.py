"""`dask_scheduler.extensions["spans"]`: the classes of the release, filled with what the scheduler knows.

Like the rest of the mirror it is fetched when it is first touched and stays as it is until control
returns to the event loop. A span that is held longer is brought up to date when the extension is looked
at again.
"""

import bisect
import collections
import weakref

from .mirror import TaskGroup


class ForgottenGroup(TaskGroup):
    """What came of a group that does not exist any more, or of several of the same name."""

    def __init__(self, scheduler, row):
        super().__init__(scheduler, row["name"])
        self._last = row

    # Others of the name may exist.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _row(self):
        return self._last


class _Tables:
    """The attributes of stock's extension."""

    def __init__(self, scheduler, known):
        history = scheduler.total_nthreads_history
        times = [time for time, _ in history]
        groups = collections.defaultdict(set)
        for group in scheduler.task_groups.values():
            groups[group.span_id].add(group)
        self.spans = {}
        self.root_spans = []
        self.spans_search_by_name = collections.defaultdict(list)
        self.spans_search_by_tag = collections.defaultdict(list)
        for row in scheduler._spans()["spans"]:
            parent = self.spans.get(row["parent"])
            span = known.get(row["id"]) or _new_span()
            past = {ForgottenGroup(scheduler, group) for group in row["past_groups"]}
            _fill(span, row, parent, groups[row["id"]] | past)
            _set(span, "_total_nthreads_history", history)
            offset = bisect.bisect_right(times, span.enqueued) - 1
            _set(span, "_total_nthreads_offset", max(offset, 0))
            self.spans[span.id] = span
            siblings = self.root_spans if parent is None else parent.children
            siblings.append(span)
            self.spans_search_by_name[span.name].append(span)
            for tag in span.name:
                self.spans_search_by_tag[tag].append(span)


def _new_span():
    from distributed.spans import Span

    return Span.__new__(Span)


def _set(span, name, value):
    # Later releases have more attributes.
    if name in type(span).__slots__:
        setattr(span, name, value)


def _fill(span, row, parent, groups):
    span.id = row["id"]
    span.name = tuple(row["name"])
    span.enqueued = row["enqueued"]
    span.children = []
    span.groups = groups
    metrics = collections.defaultdict(int)
    metrics.update((tuple(what), value) for what, value in row["metrics"])
    _set(span, "_parent", None if parent is None else weakref.ref(parent))
    _set(span, "_cumulative_worker_metrics", metrics)
    _set(span, "_code", dict.fromkeys(tuple(code) for code in row["code"]))
    collections_of_graphs = [
        collection for metadata in row["metadata"] for collection in metadata.get("collections", ())
    ]
    metadata = {"collections": collections_of_graphs} if row["metadata"] else None
    _set(span, "_metadata", metadata)


def _table(name):
    return property(lambda self: getattr(self._tables(), name))


def extension(scheduler):
    """The extension of a mirror; None with releases before 2023.6.0, which have none."""
    try:
        from distributed.spans import SpansSchedulerExtension
    except ImportError:
        return None

    class Extension(SpansSchedulerExtension):
        spans = _table("spans")
        root_spans = _table("root_spans")
        spans_search_by_name = _table("spans_search_by_name")
        spans_search_by_tag = _table("spans_search_by_tag")

        def __init__(self):
            self.scheduler = scheduler
            self._made = self._of = None

        def _tables(self):
            rows = scheduler._spans()
            if self._of is not rows:
                # The same objects for the same spans.
                known = {} if self._made is None else self._made.spans
                self._made, self._of = _Tables(scheduler, known), rows
            return self._made

    Extension.__name__ = Extension.__qualname__ = SpansSchedulerExtension.__name__
    return Extension()
