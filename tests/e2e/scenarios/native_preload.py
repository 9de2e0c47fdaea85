"""A preload module of a worker, as users write them."""

import os


def dask_setup(worker):
    worker.greeting = f"set up with {worker.local_directory}"
    worker.startup_information["colour"] = lambda worker: "green"


async def dask_teardown(worker):
    with open(os.environ["TORN_DOWN"], "w") as file:
        file.write(worker.greeting)
