"""The message format between the scheduler and its Python host, and the pipe it travels through.

A message is: count of frames (u32), their lengths (u64 each), the frames; all little-endian. Frame 0
is a msgpack map. Nothing here knows what the messages mean.
"""

import os
import struct
import threading

import msgpack

MAX_FRAMES = 1 << 24

# What stands before the first message of a host process: Python start-up hooks of the environment
# may have printed something by then.
GREETING = b"\nOXIDASK-PYTHON-HOST\n"


class ChannelError(Exception):
    """The other side sent something that is no message."""


def pack(header, frames=()):
    """One message as one list of buffers, ready to be written in order."""
    buffers = [msgpack.packb(header, use_bin_type=True)]
    buffers.extend(memoryview(frame).cast("B") for frame in frames)
    lengths = [len(buffer) for buffer in buffers]
    prefix = struct.pack("<I%dQ" % len(lengths), len(lengths), *lengths)
    return [prefix] + buffers


def unpack(data):
    """The frames of a message that lies in memory as a whole; frame 0 is decoded."""
    view = memoryview(data)
    (count,) = struct.unpack_from("<I", view, 0)
    lengths = struct.unpack_from("<%dQ" % count, view, 4)
    at = 4 + 8 * count
    frames = []
    for length in lengths:
        if at + length > len(view):
            raise ChannelError("message is cut off")
        frames.append(view[at : at + length])
        at += length
    return decode(frames[0]), frames[1:]


def decode(data):
    """Plain msgpack; arrays become tuples, so that task keys can be map keys and set members."""
    return msgpack.unpackb(
        data,
        raw=False,
        use_list=False,
        strict_map_key=False,
        max_str_len=2**32 - 1,
        max_bin_len=2**32 - 1,
        max_array_len=2**32 - 1,
        max_map_len=2**32 - 1,
    )


def encode(value):
    """Plain msgpack."""
    return msgpack.packb(value, use_bin_type=True)


class Channel:
    """Both directions of the pipe to the scheduler. Writing is safe from any thread."""

    def __init__(self, read_fd, write_fd):
        self._reader = open(read_fd, "rb", buffering=1 << 20)
        self._writer = open(write_fd, "wb", buffering=1 << 20)
        self._lock = threading.Lock()

    def read(self):
        """The next message as (header, frames). Raises EOFError when the scheduler is gone."""
        (count,) = struct.unpack("<I", self._exactly(4))
        if not 0 < count <= MAX_FRAMES:
            raise ChannelError("%d frames" % count)
        lengths = struct.unpack("<%dQ" % count, self._exactly(8 * count))
        frames = [self._exactly(length) for length in lengths]
        return decode(frames[0]), frames[1:]

    def write(self, header, frames=()):
        """Send one message."""
        buffers = pack(header, frames)
        with self._lock:
            for buffer in buffers:
                self._writer.write(buffer)
            self._writer.flush()

    def _exactly(self, length):
        # A bytearray, so that arrays which are unpickled from it are writeable as in the client.
        data = bytearray(length)
        view = memoryview(data)
        at = 0
        while at < length:
            got = self._reader.readinto(view[at:])
            if not got:
                raise EOFError
            at += got
        return data


def take_over_stdio():
    """A channel over the file descriptors 0 and 1, which are then out of reach of user code.

    What user code prints goes to stderr from now on; what it reads is empty.
    """
    read_fd, write_fd = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    os.write(write_fd, GREETING)
    return Channel(read_fd, write_fd)
