"""Files of byte strings, each behind its length: how the Rust tests and the helpers talk."""

import struct


def dump(path, items):
    with open(path, "wb") as f:
        for item in items:
            item = item.encode() if isinstance(item, str) else bytes(item)
            f.write(struct.pack("<I", len(item)) + item)


def load(path):
    with open(path, "rb") as f:
        data = memoryview(f.read())
    items, at = [], 0
    while at < len(data):
        (n,) = struct.unpack_from("<I", data, at)
        items.append(data[at + 4 : at + 4 + n])
        at += 4 + n
    return items
