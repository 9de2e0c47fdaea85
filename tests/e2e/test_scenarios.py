"""Every scenario that needs no more than two workers of one thread, with every release and kind of workers.

The scenarios are the functions in `scenarios/` whose first parameter is `client`; they read as the specification.
"""

import ast
import pathlib

import pytest

from harness.releases import NATIVE, RELEASES, version_tuple

SCENARIOS = pathlib.Path(__file__).parent / "scenarios"
# Modules whose every scenario runs on the shared cluster. Others belong to a test module of the same name.
MODULES = (
    "futures",
    "errors",
    "cancellation",
    "data",
    "collections_delayed",
    "collections_bag",
    "collections_array",
    "collections_dataframe",
    "coordination",
    "running",
    "actors",
    "information",
)


# Releases by kind of workers.
CLUSTERS = [("stock", release) for release in RELEASES]
CLUSTERS += [(workers, release) for workers, releases in NATIVE.items() for release in releases]


def scenarios():
    """Yields (module.function, release, workers), without releases that are older than SINCE of the module says."""
    for module in MODULES:
        tree = ast.parse((SCENARIOS / f"{module}.py").read_text())
        since = {}
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "SINCE":
                since = ast.literal_eval(node.value)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and [arg.arg for arg in node.args.args][:1] == ["client"]:
                for workers, release in CLUSTERS:
                    if version_tuple(release) >= version_tuple(since.get(node.name, "0")):
                        yield f"{module}.{node.name}", release, workers


@pytest.mark.parametrize(
    ("scenario", "release", "workers"),
    [pytest.param(*which, id="-".join(which).removesuffix("-stock")) for which in scenarios()],
)
def test_scenario(cluster, scenario):
    cluster.run(scenario)
