import atexit
import gzip
import os
import pathlib
import shutil
import tempfile

# Most of a test's time is compilation: let XLA not polish what runs once. Commands that tests start have it too.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # commands keep what they compile here, not in the user's cache
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mnist_jax-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import numpy as np
import pytest

from mnist_jax import data

jax.config.update("jax_numpy_rank_promotion", "raise")
# Where the four real MNIST files lie; without it the same tests run on the embedded sample.
REAL = os.environ.get("MNIST_JAX_TEST_DATA")


def idx_bytes(array, dims=None):
    header = bytes([0, 0, 8, array.ndim]) + np.array(dims or array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_folder(folder, arrays, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for part, stem in data.FILES.items():
        content = idx_bytes(arrays[part])
        (folder / f"{stem}{suffix}").write_bytes(gzip.compress(content, 1) if suffix else content)
    return folder


@pytest.fixture(scope="session")
def dataset():
    return data.load_dataset(f"idx:{REAL}" if REAL else "mnist5k")


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
    """Prints the faults that tests of survival injected."""
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
    return (pathlib.Path(__file__).parents[1] / "README.md").read_text()
