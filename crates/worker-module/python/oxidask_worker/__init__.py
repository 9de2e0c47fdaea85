"""The part of the native worker that is written in Python. It travels inside the extension module.

`main` starts it; `tasks` runs what the threads are given; `data` turns frames into objects and back; `requests` answers
what needs Python; `worker` is the object that `get_worker()` returns. Everything else (connections, state, transfers,
heartbeats) is in Rust and does not need the interpreter.
"""
