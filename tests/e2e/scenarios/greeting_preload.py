"""A preload module with an option of its own, as users write them. Loaded by the scheduler in test_python_host.py."""

import click
from distributed.diagnostics.plugin import SchedulerPlugin


class Greeter(SchedulerPlugin):
    name = "greeter"

    def __init__(self):
        self.workers = 0

    def add_worker(self, scheduler, worker):
        self.workers += 1


@click.command()
@click.option("--greeting", default="none")
def dask_setup(scheduler, greeting):
    scheduler.greeting = greeting
    scheduler.add_plugin(Greeter())


def dask_teardown(scheduler):
    with open("torn-down", "w") as file:
        file.write(scheduler.greeting)
