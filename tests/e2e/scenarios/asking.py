"""What scenarios ask a scheduler beside the public methods of a client, and tasks that wait to be looked at."""

import os
import tempfile
import time


def identity(client):
    """The scheduler's own answer, with all workers.

    `Client.scheduler_info` of releases since 2025 returns what was heard last, and every two seconds the client asks
    for that without any worker: between the question and the return, the answer may become that one.
    """
    return client.sync(client.scheduler.identity)


def workers_of(client):
    """All workers by address."""
    return identity(client)["workers"]


class Gate:
    """A task that runs for as long as the `with` block: what is looked at meanwhile is there however long it takes."""

    def __init__(self, client, **options):
        def stay(begun):
            open(begun, "w").close()
            while os.path.exists(begun):
                time.sleep(0.01)

        self._folder = tempfile.TemporaryDirectory()
        self._begun = os.path.join(self._folder.name, "begun")
        self.future = client.submit(stay, self._begun, pure=False, **options)

    @property
    def key(self):
        return self.future.key

    def __enter__(self):
        """Returns once it runs."""
        deadline = time.time() + 30
        while not os.path.exists(self._begun):
            assert time.time() < deadline, self.future
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self._folder.cleanup()
