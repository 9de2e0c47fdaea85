"""What scenarios ask a scheduler beside the public methods of a client."""


def identity(client):
    """The scheduler's own answer, with all workers.

    `Client.scheduler_info` of releases since 2025 returns what was heard last, and every two seconds the client asks
    for that without any worker: between the question and the return, the answer may become that one.
    """
    return client.sync(client.scheduler.identity)


def workers_of(client):
    """All workers by address."""
    return identity(client)["workers"]
