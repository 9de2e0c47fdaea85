"""Whether processes of one user may read each other's memory here."""

import ctypes
import os
import subprocess
import sys

# Says where its data is, and stays until its standard input ends.
NEIGHBOUR = """
import ctypes, sys
data = ctypes.create_string_buffer(b"here")
print(ctypes.addressof(data), flush=True)
sys.stdin.read()
"""


class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def why_memory_is_not_read():
    """What the system says to it; nothing if it does as it is asked."""
    command = [sys.executable, "-c", NEIGHBOUR]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as neighbour:
        address = int(neighbour.stdout.readline())
        data = ctypes.create_string_buffer(4)
        here, there = Part(ctypes.addressof(data), 4), Part(address, 4)
        read = ctypes.CDLL(None, use_errno=True).process_vm_readv
        read.restype = ctypes.c_ssize_t
        done = read(neighbour.pid, ctypes.byref(here), 1, ctypes.byref(there), 1, ctypes.c_ulong(0))
        error = ctypes.get_errno()
    if done == 4 and data.raw == b"here":
        return None
    return os.strerror(error)
