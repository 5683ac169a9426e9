"""The architecture: imports point down, and importing the package costs nothing."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

LIBRARY = pathlib.Path(__file__).parents[1] / "mnist_jax"
LAYERS = [
    {"errors", "files", "console", "process"},
    {"types", "fields", "idx", "layers", "matmul", "workdir", "channel", "supervisor"},
    {"sharding", "rendezvous"},
    {"config", "flags", "kernels", "options", "batches", "checkpoint", "adapters", "first_layer", "figures"},
    {"models", "losses", "metrics", "optimizers", "augment", "devices", "plots", "report"},
    {"gradients", "lecture", "pictures", "likeness", "processes", "calibration"},
    {"readers"},
    {"train", "evaluation", "parts", "datasets", "ensemble"},
    {"experiment"},
    {"programs", "loaded_run"},
    {"resume", "distillation"},
    {"loop"},
    {"hooks"},
    {"runner"},
    {"sweeps"},
    {"cli"},
    {"commands", "__main__"},
]
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in LIBRARY.rglob("*.py") if path.stem != "__init__")


def room(path):
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mnist_jax"):
            names = [alias.name for alias in node.names] if node.module == "mnist_jax" else [node.module.split(".")[1]]
            yield from names
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mnist_jax."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_point_down(path):
    assert room(path) in LAYER, f"give {path.name} a layer in {__file__}"
    for name in set(imported(path)) - {"__version__"}:
        inside = room(path) == name and path.parent.name == name
        assert inside or LAYER[name] < LAYER[room(path)], f"{path.name} imports {name}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_and_functions_fit_on_a_screen(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 80, node.name


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("mnist_jax", ["tensorflow", "tensorflow_datasets", "orbax", "matplotlib", "jax", "flax"]),
        ("mnist_jax.cli", ["tensorflow", "tensorflow_datasets", "orbax", "matplotlib", "jax", "flax"]),
        ("mnist_jax.datasets", ["tensorflow", "tensorflow_datasets", "matplotlib", "PIL", "scipy.ndimage", "pyarrow"]),
        ("mnist_jax.runner", ["tensorflow", "tensorflow_datasets", "matplotlib", "sklearn"]),
    ],
)
def test_importing_loads_nothing_heavy(module, heavy):
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_public_name_is_there_and_in_the_readme(readme):
    import mnist_jax

    assert all(getattr(mnist_jax, name) is not None for name in mnist_jax.__all__)
    table = readme.partition("### Every public name")[2].partition("\n#")[0]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert listed == set(mnist_jax.__all__)
