"""`dask-scheduler` of this environment."""

import sys

from oxidask import become


def main():
    become("scheduler", "--python", sys.executable, *sys.argv[1:])


if __name__ == "__main__":
    main()
