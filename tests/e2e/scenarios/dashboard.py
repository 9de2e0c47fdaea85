"""Work to look at. Called by test_dashboard.py."""


def square(x):
    return x * x


def squares(client, count):
    return sum(client.gather(client.map(square, range(count), pure=False)))
