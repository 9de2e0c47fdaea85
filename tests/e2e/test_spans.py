"""Named parts of a client's work (since 2023.6.0), as `dask_scheduler.extensions["spans"]` has them."""

import pytest


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_spans(new_cluster, release):
    cluster = new_cluster(release)
    cluster.run("spans.spans_tell_what_was_done_under_a_name")
    cluster.run("spans.spans_have_what_workers_measured")


@pytest.mark.native_only
@pytest.mark.parametrize("release", ["2022.12.0"])
def test_releases_without_spans(new_cluster, release):
    new_cluster(release, workers=1).run("spans.older_releases_have_none")
