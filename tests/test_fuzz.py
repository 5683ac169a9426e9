"""Fuzzing: whatever a file holds, reading it returns a value or raises the library's own error, of one line."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT, idx_bytes, update_manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mnist_jax.checkpoint import FORMAT, MANIFEST, read_metadata
from mnist_jax.config import Config, config_from_dict
from mnist_jax.datasets import load_dataset
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.experiment import Experiment
from mnist_jax.files import read_json
from mnist_jax.idx import read_idx
from mnist_jax.lecture.neuron import read_points
from mnist_jax.loaded_run import load_run
from mnist_jax.loop import best_step, should_stop, start_seed
from mnist_jax.pictures.reading import read_pictures
from mnist_jax.plots import learning_curves
from mnist_jax.processes import Processes
from mnist_jax.programs import compile_programs
from mnist_jax.resume import fingerprint, restore_latest
from mnist_jax.runner import run
from mnist_jax.sharding import make_placement

FUZZ = settings(deadline=2000, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
EMPTY_MANIFEST = json.dumps({"format": FORMAT, "metadata": {}, "files": {}, "keys": [], "sha256": ""}).encode()
SIZES = st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 6), min_size=1, max_size=3)


PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


def picture_bytes(format):
    content = io.BytesIO()
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(content, format)
    return content.getvalue()


@st.composite
def damaged(draw, *valid):
    """A valid file with some of its bytes changed, removed or inserted."""
    content = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 4))):
        at, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        content[at : draw(st.sampled_from([at, at + 1, end]))] = draw(st.binary(max_size=4))
    return bytes(content)


@FUZZ
@given(sizes=SIZES, content=st.binary(max_size=300), is_gzip=st.booleans(), magic=st.sampled_from([1, 2, 3, 255]))
def test_idx_headers(tmp_path, sizes, content, is_gzip, magic):
    file = bytes([0, 0, 8, magic]) + np.array(sizes, ">u4").tobytes() + content
    path = tmp_path / "some"
    path.write_bytes(gzip.compress(file, 1) if is_gzip else file)
    for read in (read_idx, lambda path: read_pictures(path, (28, 28))):
        try:
            read(path)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)


@FUZZ
@given(content=damaged(*map(picture_bytes, PICTURES), gzip.compress(idx_bytes(np.eye(28)[None]))))
def test_pictures(tmp_path, content):
    path = tmp_path / "some"
    path.write_bytes(content)
    try:
        assert read_pictures(path, (28, 28))[0].image.shape == (28, 28)
    except DataError as error:
        assert "\n" not in str(error)


def parquet_bytes():
    content = io.BytesIO()
    cells = [{"bytes": picture_bytes("PNG"), "path": None}] * 6
    pyarrow.parquet.write_table(pyarrow.table({"image": cells, "label": [0, 1, 2] * 2}), content)
    return content.getvalue()


def npz_bytes(save):
    content = io.BytesIO()
    images, labels = np.zeros((6, 4, 4), np.uint8), np.arange(6)
    save(content, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return content.getvalue()


CSV = b"label,a,b,c,d\n" + b"0,1,2,3,4\n1,0,9,9,0\n" * 3
DATA = {
    "npz": [npz_bytes(np.savez), npz_bytes(np.savez_compressed)],
    "csv": [CSV, CSV[14:]],
    "parquet": [parquet_bytes()],
}


@pytest.mark.parametrize("format", DATA)
def test_data_sets(tmp_path_factory, format):
    folder = tmp_path_factory.mktemp(format)

    @FUZZ
    @given(content=damaged(*DATA[format]))
    def check(content):
        (folder / f"some.{format}").write_bytes(content)
        try:
            assert len(load_dataset(f"{format}:{folder}/some.{format}").train_labels)
        except DataError as error:
            assert "\n" not in str(error)

    check()


@FUZZ
@given(content=st.binary(max_size=80) | damaged(b"x,y,class\n1,2,0\n3,4.5,1\n"))
def test_points(tmp_path, content):
    path = tmp_path / "points.csv"
    path.write_bytes(content)
    try:
        points = read_points(path)
        assert np.isfinite(points.inputs).all()
    except DataError:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@FUZZ
@given(
    values=st.dictionaries(
        st.sampled_from([*Config.__dataclass_fields__]) | st.text(max_size=5),
        JSON | st.sampled_from([10**400, -(10**400), [10**400], "../../x"]),
        max_size=4,
    )
)
def test_configurations(values):
    try:
        config_from_dict(values)
    except ConfigError as error:
        assert "\n" not in str(error)


@FUZZ
@given(content=JSON.map(json.dumps).map(str.encode) | damaged(EMPTY_MANIFEST))
def test_manifests(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(DataError, match=r"damaged checkpoint|another version"):
        read_metadata(tmp_path)


@pytest.fixture(scope="module")
def result(tmp_path_factory, folder):
    workdir = tmp_path_factory.mktemp("result")
    run(Experiment(dataset=f"idx:{folder}", hidden_sizes=(4,), epochs=0), workdir, quiet=True)
    return workdir


def paths_in(value, path=()):
    """The path to each value inside a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from paths_in(inner, (*path, key))


@st.composite
def changed_json(draw, valid):
    """A JSON value in which one of the values inside is replaced."""
    changed = json.loads(json.dumps(valid))
    *path, last = draw(st.sampled_from(list(paths_in(changed))))
    inner = changed
    for key in path:
        inner = inner[key]
    inner[last] = draw(JSON | st.sampled_from([2_000_000, 10**400, "../../x", [100_000] * 3, [28, 28], -1]))
    return changed


@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_results(result, data):
    before = (result / "result.json").read_text()
    try:
        (result / "result.json").write_text(json.dumps(data.draw(changed_json(json.loads(before)))))
        load_run(result)
    except (ConfigError, DataError) as error:
        assert "\n" not in str(error)
    finally:
        (result / "result.json").write_text(before)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory, folder):
    """Workdir, configuration, programs and fingerprint of a run that has one checkpoint, inside its second epoch."""
    workdir = tmp_path_factory.mktemp("unfinished")
    experiment = Experiment(dataset=f"idx:{folder}", hidden_sizes=(4,), epochs=2, batch_size=100)
    run(experiment, workdir, quiet=True, checkpoint_every=10)
    for path in (workdir / "state", *workdir.glob("checkpoints/seed-7/[!1]*"), *workdir.glob("checkpoints/seed-7/14")):
        shutil.rmtree(path)
    programs = compile_programs(experiment, make_placement(jax.devices()[:1], "", experiment.config.batch_size))
    return workdir, experiment.config, programs, fingerprint(experiment)


@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_checkpoint_metadata(unfinished, data):
    """A manifest with the right digest, whose metadata no run has written."""
    workdir, config, programs, expected = unfinished
    (checkpoint,) = workdir.glob("checkpoints/seed-7/*")
    before = (checkpoint / MANIFEST).read_text()
    try:
        update_manifest(checkpoint, metadata=data.draw(changed_json(json.loads(before)["metadata"])))
        restored = restore_latest(workdir, 7, programs, expected, Processes())
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        records = start_seed(7, programs, restored).records
        should_stop(config, records)
        best_step(records)
        learning_curves(records)
    finally:
        (checkpoint / MANIFEST).write_text(before)


def test_json_that_is_deep_or_large(tmp_path, monkeypatch):
    (tmp_path / "deep").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting value"):
        read_json(tmp_path / "deep")
    monkeypatch.setattr("mnist_jax.files.MAX_TEXT_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        read_json(tmp_path / "deep")


def test_a_header_that_states_terabytes_and_a_gzip_bomb_take_no_memory(tmp_path):
    (tmp_path / "terabyte").write_bytes(idx_bytes(np.zeros((1, 1, 1)), (2**20, 2**10, 2**10)))
    with gzip.open(tmp_path / "bomb", "wb") as file:
        file.write(idx_bytes(np.zeros((1, 1, 1)), (1, 28, 28)) + bytes(50_000_000))
    for name in ("terabyte", "bomb"):
        with pytest.raises(DataError, match="header states"):
            read_idx(tmp_path / name)


def test_a_symbolic_link_out_of_a_checkpoint_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "d").symlink_to(tmp_path / "secret")
    (tmp_path / "state" / MANIFEST).write_bytes(EMPTY_MANIFEST)
    with pytest.raises(DataError, match="damaged checkpoint"):
        read_metadata(tmp_path / "state")


READERS = {  # from kinds of files to what reads one
    "idx": "idx.read_idx(path)",
    "picture": "reading.read_pictures(path, (28, 28))",
    "npz": "npz.read_npz(path)",
    "csv": "csv.read_csv(path)",
    "parquet": "parquet.read_parquet(path, 0)",
    "points": "neuron.read_points(path)",
    "manifest": "checkpoint.read_metadata(path.parent)",
    "config": "cli._read_config(path, config.Config())",
}
IDX = idx_bytes(np.eye(28)[None])
SEEDS = [*map(picture_bytes, PICTURES), IDX, gzip.compress(IDX), *DATA["npz"], *DATA["csv"], *DATA["parquet"]]
SEEDS += [b"x,y,class\n1,2,0\n3,4.5,1\n", b'{"hidden_sizes": [3], "l1": 0.5}', EMPTY_MANIFEST]


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_coverage_guided_fuzzing(tmp_path, record_property, reader):
    """Half a minute of atheris for each reader, where it is installed (pip install '.[fuzz]')."""
    pytest.importorskip("atheris")
    script = f"""
import pathlib, sys
import atheris
with atheris.instrument_imports(include=["mnist_jax"]):
    from mnist_jax import checkpoint, cli, config, idx
    from mnist_jax.readers import csv, npz, parquet
    from mnist_jax.pictures import reading
    from mnist_jax.lecture import neuron
    from mnist_jax.errors import MnistJaxError
path = pathlib.Path(sys.argv[1])
def read(content):
    path.write_bytes(content)
    try:
        {READERS[reader]}
    except MnistJaxError as error:
        assert "\\n" not in str(error)
limits = ["-max_total_time=30", "-timeout=10", "-rss_limit_mb=3000", "-max_len=4096"]
atheris.Setup([sys.argv[0], *limits, sys.argv[2]], read)
atheris.Fuzz()
"""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "read").mkdir()
    for number, content in enumerate(SEEDS):
        (tmp_path / "corpus" / str(number)).write_bytes(content)
    argv = [sys.executable, "-c", script, tmp_path / "read" / MANIFEST, tmp_path / "corpus"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=env)
    runs = re.search(r"Done (\d+) runs", process.stderr)
    record_property("fault", (f"{reader}: files by atheris", int(runs[1]) if runs else 1, int(runs[1]) if runs else 0))
    assert process.returncode == 0 and runs, process.stderr[-3000:]
