"""The house: imports point down, and looking in costs nothing."""

import ast
import pathlib
import subprocess
import sys

import pytest

LIBRARY = pathlib.Path(__file__).parents[1] / "mnist_jax"
LAYERS = [
    {"errors", "files"},
    {"types", "config", "layers"},
    {"models", "losses", "metrics", "optimizers", "augment", "data", "checkpoint"},
    {"train", "images", "neuron", "plots", "report", "process"},
    {"trainer"},
    {"runner"},
]
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mnist_jax"):
            names = [alias.name for alias in node.names] if node.module == "mnist_jax" else [node.module.split(".")[1]]
            yield from names
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mnist_jax."))


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_imports_point_down(path):
    assert path.stem in LAYER, f"give {path.name} a layer in {__file__}"
    for name in imported(path):
        assert LAYER[name] < LAYER[path.stem], f"{path.name} imports {name}, which is not below it"


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["tensorflow", "tensorflow_datasets", "orbax", "matplotlib", "jax", "flax"]
    code = f"import sys, mnist_jax; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_train_step_needs_no_data_library():
    heavy = ["tensorflow", "tensorflow_datasets", "matplotlib"]
    code = f"import sys, mnist_jax.runner; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
