"""The part of the native worker that is written in Python. It travels inside the extension module.

`main` starts it; `tasks` runs what the threads are given, `executors` has the threads, `actors` the objects that stay;
`data` turns frames into objects and back; `requests` answers what needs Python. `worker` is the object that
`get_worker()` returns, `state`, `plugins` and `introspection` are parts of it; `context` is what makes it be found.
`postponed` comes first and imports the environment.
Everything else (connections, state machine, transfers, heartbeats) is in Rust and does not need the interpreter.
"""
