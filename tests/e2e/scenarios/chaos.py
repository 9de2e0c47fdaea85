"""A graph that runs while its workers are killed, stopped and cut off. Called by test_chaos.py."""

from operator import add


def inc(x):
    return x + 1


def sums_up_a_tree(client, width, talk):
    """2 · width - 1 tasks: leaves, and a binary tree of sums over them."""
    row = [("leaf", i) for i in range(width)]
    graph = {key: (inc, key[1]) for key in row}
    level = 0
    while len(row) > 1:
        level += 1
        above = []
        for i in range(0, len(row) - 1, 2):
            key = (f"sum-{level}", i // 2)
            graph[key] = (add, row[i], row[i + 1])
            above.append(key)
        row = above + row[len(row) // 2 * 2 :]
    future = client.get(graph, row[0], sync=False)
    talk.tell(len(graph))
    assert future.result(timeout=780) == width * (width + 1) // 2
