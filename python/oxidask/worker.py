"""`dask-worker` of this environment."""

import sys

from oxidask import become


def main():
    # First, so that whoever names another interpreter gets it.
    become("worker", "--python", sys.executable, *sys.argv[1:])


if __name__ == "__main__":
    main()
