"""The stock releases under test and the interpreters that have them.

`cargo xtask test` makes the environments and tells their interpreters by variables; there is no other source.
"""

import os

RELEASES = ("2.30.1", "2022.12.0", "2026.8.0")
# What the two workers of a cluster are, and with which releases tests that know of it use it beside stock's.
KINDS = {"stock": ("stock", "stock"), "native": ("native", "native"), "mixed": ("native", "stock")}
# The extension module of the native worker needs Python 3.9; the oldest release has an environment more with that.
NATIVE = {"native": ("2.30.1-py39", "2022.12.0", "2026.8.0"), "mixed": ("2026.8.0",)}
P2P = ("2022.12.0", "2023.8.0", "2023.10.0", "2024.2.0", "2024.8.0", "2024.12.1", "2026.8.0")
PREFECT = {"0.13.19": "2.30.1", "1.4.1": "2022.12.0"}


def variable(environment):
    return "OXIDASK_PY_" + environment.replace(".", "_").replace("-", "_").upper()


def python_of(environment):
    """Interpreter of an environment: a release, or `prefect-<version>`."""
    name = variable(environment)
    path = os.environ.get(name)
    if not path:
        raise RuntimeError(f"{name} is not set: run the tests with `cargo xtask test`")
    return path


def p2p_environments():
    """Environments by release; those in between are there when `cargo xtask test --only p2p` has made them."""
    names = {release: f"p2p-{release}" for release in P2P} | {RELEASES[-1]: RELEASES[-1]}
    return {release: name for release, name in names.items() if variable(name) in os.environ}


def version_tuple(release):
    return tuple(int(part) for part in release.partition("-")[0].split("."))
