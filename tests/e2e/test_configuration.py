"""Settings of the scheduler, by environment, file and command line, and what they change."""

import pytest


@pytest.mark.parametrize("stealing", ["True", "False"])
def test_work_stealing_is_switched(new_cluster, release, stealing):
    cluster = new_cluster(release, environment={"DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": stealing})
    # Without stealing the second worker gets some by placement as soon as the first one is busy; both ways work.
    assert cluster.run("configuration.holders") >= 1


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_worker_saturation(new_cluster, release):
    """Root tasks queue on the scheduler (default 1.1: two on a worker of one thread), or all go out at once."""
    cluster = new_cluster(release)
    assert cluster.run("configuration.longest_queue_on_workers") <= 2
    cluster = new_cluster(release, environment={"DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf"})
    assert cluster.run("configuration.longest_queue_on_workers") > 10


@pytest.mark.parametrize("compression", ["lz4", "zlib", "snappy", "zstd", "None"])
@pytest.mark.parametrize("release", ["2026.8.0"])
def test_compression(new_cluster, release, compression):
    """Both sides are told the same setting."""
    setting = {"DASK_DISTRIBUTED__COMM__COMPRESSION": compression}
    cluster = new_cluster(release, workers=1, environment=setting, **setting)
    cluster.run("futures.large_arguments_and_results")
    cluster.run("data.large_arrays_by_the_scheduler")


def test_a_yaml_file_is_read(new_cluster, release, tmp_path):
    config = tmp_path / "config"
    config.mkdir()
    (config / "some.yaml").write_text("distributed:\n  scheduler:\n    blocked-handlers: [run_function]\n")
    cluster = new_cluster(release, workers=1, environment={"DASK_CONFIG": str(config)})
    cluster.run("configuration.blocked_operations_are_refused")


def test_a_scheduler_file_leads_clients_and_workers(new_cluster, release, tmp_path):
    path = tmp_path / "scheduler.json"
    cluster = new_cluster(release, workers=0, options=["--scheduler-file", str(path)])
    worker = cluster.add_worker(options=["--scheduler-file", str(path)])
    worker.wait_until_registered()
    cluster.peer().run("configuration.of_the_file", None, str(path))


def test_tasks_run_with_little_data_in_flight(new_cluster, release):
    """A tiny limit of frames per message does not stop anything."""
    cluster = new_cluster(release, workers=1, environment={"DASK_DISTRIBUTED__COMM__SHARD": "'100kiB'"})
    cluster.run("futures.large_arguments_and_results")
