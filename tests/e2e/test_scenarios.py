"""Every scenario that needs no more than two stock workers of one thread, with every release.

The scenarios are the functions in `scenarios/` whose first parameter is `client`; they read as the specification.
"""

import ast
import pathlib

import pytest

from harness.releases import RELEASES, version_tuple

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


def scenarios():
    """Yields (module.function, release), without releases older than the module's SINCE says for the function."""
    for module in MODULES:
        tree = ast.parse((SCENARIOS / f"{module}.py").read_text())
        since = {}
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "SINCE":
                since = ast.literal_eval(node.value)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and [arg.arg for arg in node.args.args][:1] == ["client"]:
                for release in RELEASES:
                    if version_tuple(release) >= version_tuple(since.get(node.name, "0")):
                        yield f"{module}.{node.name}", release


@pytest.mark.parametrize(
    ("scenario", "release"),
    [pytest.param(scenario, release, id=f"{scenario}-{release}") for scenario, release in scenarios()],
)
def test_scenario(cluster, scenario):
    cluster.run(scenario)
