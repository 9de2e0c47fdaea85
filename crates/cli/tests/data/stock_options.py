"""Prints a line per program with the options of this Python's release of distributed.

The answers of 2.30.1, 2022.12.0 and 2026.8.0 are in stock_options.txt.
"""
import distributed
from distributed.cli.dask_scheduler import main as scheduler
from distributed.cli.dask_worker import main as worker

for name, command in (("scheduler", scheduler), ("worker", worker)):
    spellings = [s for p in command.params for s in (*p.opts, *p.secondary_opts) if s.startswith("--")]
    print(distributed.__version__, name, *spellings)
