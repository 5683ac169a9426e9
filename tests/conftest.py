import atexit
import gzip
import importlib.metadata
import json
import os
import shutil
import tempfile

# Most of a test's time is compilation: XLA need not optimize what runs once, and all that it compiles is kept for other
# tests. Commands that tests start inherit this.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # halves compilation; later versions lack the flag
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # commands cache compiled programs here, not in the user's cache
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mnist_jax-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import numpy as np
import pytest
from launch import ROOT, run_python

from mnist_jax.checkpoint import MANIFEST, _manifest_digest
from mnist_jax.datasets import load_dataset
from mnist_jax.idx import IDX_FILES

jax.config.update("jax_numpy_rank_promotion", "raise")


def mark_slow(values, fast):
    """Values of a parameter: the tests of all but the fast ones are slow."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]


# Folder of the four real MNIST files; without it the same tests run on the embedded sample.
REAL = os.environ.get("MNIST_JAX_TEST_DATA")


def idx_bytes(array, dims=None):
    """An IDX file of an array; dims, where given, are what its header states instead of the shape."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(dims or array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def command(*args, experiment="perceptron", cwd=ROOT):
    """Runs a recipe, or a command of the package, as a user does."""
    is_recipe = (ROOT / "experiments" / f"{experiment}.py").exists()
    module = [f"experiments.{experiment}"] if is_recipe else ["mnist_jax", experiment]
    return run_python("-m", *module, *args, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)})


def error_line(stderr):
    """The one line of an error, after those that say what the command was doing."""
    *before, last = stderr.splitlines()
    assert last.startswith("error: ") and all(
        line.split()[0] in ("starting", "loading", "compiling") for line in before
    )
    return last


def write_folder(folder, arrays, suffix=".gz"):
    """Writes the four IDX files of a data set."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, stem in IDX_FILES.items():
        content = idx_bytes(arrays[part])
        (folder / f"{stem}{suffix}").write_bytes(gzip.compress(content, 1) if suffix else content)
    return folder


def update_manifest(folder, **changes):
    """Changes a checkpoint's manifest, and makes its digest fit."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    del manifest["sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": _manifest_digest(manifest)}))


@pytest.fixture(scope="session")
def dataset():
    return load_dataset(f"idx:{REAL}" if REAL else "mnist5k")


@pytest.fixture(scope="session")
def small(dataset):
    """700 training and 130 test digits, as the arrays of four IDX files."""
    train, test = (np.random.RandomState(0).permutation(len(x))[:n] for x, n in ((dataset[0], 700), (dataset[2], 130)))
    return {
        "train_images": dataset.train_images[train, :, :, 0],
        "train_labels": dataset.train_labels[train],
        "test_images": dataset.test_images[test, :, :, 0],
        "test_labels": dataset.test_labels[test],
    }


@pytest.fixture(scope="session")
def folder(tmp_path_factory, small):
    return write_folder(tmp_path_factory.mktemp("digits"), small)


def pytest_terminal_summary(terminalreporter):
    """Prints the table of faults that test_reliability and test_fuzz injected."""
    faults = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "fault" and report.when == "call":
                    row = faults.setdefault(value[0], [0, 0])
                    row[:] = row[0] + value[1], row[1] + value[2]
    if faults and terminalreporter.config.option.markexpr == "long":
        terminalreporter.write_line(f"{'fault':60} injected survived lost")
        for name, (injected, survived) in sorted(faults.items()):
            terminalreporter.write_line(f"{name:60} {injected:8} {survived:8} {injected - survived:4}")


@pytest.fixture(scope="session")
def readme():
    return (ROOT / "README.md").read_text()
