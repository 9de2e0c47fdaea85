"""Garbage on the socket: that connection is closed, and a client that works meanwhile notices nothing."""

import os
import random
import socket
import struct

import pytest

from harness.processes import resident_mib
from harness.waiting import wait_for

# A frame count, then 8-byte lengths, then frames: the framing of releases before 2021.
U64 = struct.Struct("<Q")


def framed(*frames):
    return U64.pack(len(frames)) + b"".join(U64.pack(len(frame)) for frame in frames) + b"".join(frames)


def random_bytes(n):
    return random.Random(n).randbytes(n)


GARBAGE = {
    "random": random_bytes(10_000),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10,
    "tls-hello": bytes.fromhex("16030100c2010000be0303") + random_bytes(200),
    "zeros": bytes(100_000),
    "truncated-count": b"\x01\x00\x00",
    "truncated-lengths": U64.pack(3) + U64.pack(10),
    "truncated-frame": U64.pack(1) + U64.pack(1000) + b"x" * 10,
    "absurd-count": U64.pack(2**62) + bytes(64),
    "absurd-length": U64.pack(1) + U64.pack(2**63 - 1) + b"x" * 100,
    "many-absurd-lengths": U64.pack(1000) + U64.pack(2**40) * 1000 + b"x" * 100,
    "sum-overflows": U64.pack(2) + U64.pack(2**64 - 1) + U64.pack(2) + b"x" * 10,
    "no-frames": U64.pack(0) * 100,
    "wrong-msgpack": framed(b"", b"\xc1\xc1\xc1"),
    "deep-msgpack": framed(b"", b"\x91" * 100_000),
    "huge-map": framed(b"", b"\xdf\xff\xff\xff\xff"),
    "huge-string": framed(b"", b"\xdb\xff\xff\xff\xffabc"),
    "newer-framing-absurd": U64.pack(2**50) + U64.pack(1) + U64.pack(8) + b"x" * 8,
    "newer-framing-random": U64.pack(8 + 8 + 50) + U64.pack(1) + U64.pack(50) + random_bytes(50),
}


def send(address, data, linger=0.5):
    """Sends what the peer will take; the peer may close at any moment."""
    host, port = address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(linger)
            while connection.recv(65536):
                pass
        except OSError:
            pass


@pytest.mark.parametrize("release", ["2.30.1", "2026.8.0"])
def test_a_client_works_while_garbage_arrives(new_cluster, release):
    cluster = new_cluster(release)
    cluster.run("workers.computes")
    before = resident_mib(cluster.scheduler.pid)
    call = cluster.start("clients.computes_in_rounds", 0, seconds=8.0)
    assert call.told() == "started"
    for data in GARBAGE.values():
        send(cluster.address, data, linger=0.2)
    assert call.result() > 0
    cluster.check()
    # Announced lengths are not allocated before the bytes are there.
    assert resident_mib(cluster.scheduler.pid) - before < 200


@pytest.mark.parametrize("kind", sorted(GARBAGE))
@pytest.mark.parametrize("release", ["2026.8.0"])
def test_garbage_of_every_kind(cluster, kind):
    for _ in range(3):
        send(cluster.address, GARBAGE[kind], linger=0.1)
    cluster.run("workers.computes", 10)


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_connections_that_say_nothing(cluster):
    """A hundred connections stay open without a word."""
    host, port = cluster.address.removeprefix("tcp://").split(":")
    connections = [socket.create_connection((host, int(port)), timeout=10) for _ in range(100)]
    try:
        cluster.run("workers.computes", 10)
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_connections_do_not_pile_up(cluster):
    """File descriptors of closed connections are given back."""
    folder = f"/proc/{cluster.scheduler.pid}/fd"
    cluster.run("workers.computes", 10)
    before = len(os.listdir(folder))
    for _ in range(100):
        send(cluster.address, GARBAGE["random"][:100], linger=0.05)
    wait_for(lambda: len(os.listdir(folder)) <= before + 5, 20, "the closing of descriptors")


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_an_unknown_operation_gets_nil(cluster):
    cluster.run("hostile.unknown_operations")


@pytest.mark.parametrize("release", ["2.30.1", "2022.12.0", "2026.8.0"])
def test_a_message_that_is_not_a_request(cluster):
    cluster.run("hostile.messages_of_wrong_shape")
