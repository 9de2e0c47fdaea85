import os
import sys


def take():
    def read(n):
        data = b""
        while len(data) < n:
            more = os.read(0, n - len(data))
            if not more:
                sys.exit(3)
            data += more
        return data

    return read(int.from_bytes(read(8), "little")).decode()


# The working directory is no place to import from; PYTHONPATH is.
sys.path[:] = [p for p in sys.path if p]
loaded = {"NAME": take(), "BUNDLE": take()}
exec(compile(take(), "<oxidask python host>", "exec"), loaded)
getattr(loaded["package"], sys.argv[1]).main(int(sys.argv[2]))
