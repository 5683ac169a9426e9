"""Files from others: whatever they hold, our own error comes out, or a value; never another exception."""

import gzip
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import idx_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mnist_jax import data, runner
from mnist_jax.checkpoint import MANIFEST, read_about
from mnist_jax.config import Config, config_from_dict
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.files import read_json
from mnist_jax.images import read_pictures
from mnist_jax.neuron import read_points

ROOT = str(pathlib.Path(__file__).parents[1])
FUZZ = settings(deadline=2000, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZES = st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 6), min_size=1, max_size=3)


def picture(kind):
    content = io.BytesIO()
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(content, kind)
    return content.getvalue()


@st.composite
def damaged(draw, *whole):
    """A good file with some of its bytes changed, cut out or put in."""
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 4))):
        at, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        content[at : draw(st.sampled_from([at, at + 1, end]))] = draw(st.binary(max_size=4))
    return bytes(content)


@FUZZ
@given(sizes=SIZES, content=st.binary(max_size=300), zipped=st.booleans(), magic=st.sampled_from([1, 2, 3, 255]))
def test_idx_headers(tmp_path, sizes, content, zipped, magic):
    file = bytes([0, 0, 8, magic]) + np.array(sizes, ">u4").tobytes() + content
    path = tmp_path / "some"
    path.write_bytes(gzip.compress(file, 1) if zipped else file)
    for read in (data.read_idx, lambda path: read_pictures(path, (28, 28))):
        try:
            read(path)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)


@FUZZ
@given(content=damaged(picture("PNG"), picture("JPEG"), gzip.compress(idx_bytes(np.eye(28)[None]))))
def test_pictures(tmp_path, content):
    path = tmp_path / "some"
    path.write_bytes(content)
    try:
        assert read_pictures(path, (28, 28))[0].image.shape == (28, 28)
    except DataError as error:
        assert "\n" not in str(error)


@FUZZ
@given(content=st.binary(max_size=80) | damaged(b"x,y,class\n1,2,0\n3,4.5,1\n"))
def test_points(tmp_path, content):
    path = tmp_path / "points.csv"
    path.write_bytes(content)
    try:
        points = read_points(path)
        assert np.isfinite(points.position).all()
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
@given(content=JSON.map(json.dumps).map(str.encode) | damaged(b'{"format": 2, "about": {}, "files": {}, "sha256": ""}'))
def test_manifests(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(DataError, match=r"damaged checkpoint|another version"):
        read_about(tmp_path)


@pytest.fixture(scope="module")
def result(tmp_path_factory, folder):
    workdir = tmp_path_factory.mktemp("result")
    runner.run(Config(dataset=f"idx:{folder}", hidden=(4,), epochs=0), workdir, quiet=True)
    return workdir


def places(value, path=()):
    """The path to each value inside a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


@settings(FUZZ, max_examples=60)
@given(dice=st.data())
def test_results(result, dice):
    before = (result / "result.json").read_text()
    changed = json.loads(before)
    *path, last = dice.draw(st.sampled_from(list(places(changed))))
    inner = changed
    for key in path:
        inner = inner[key]
    inner[last] = dice.draw(JSON | st.sampled_from([2_000_000, 10**400, "../../x", [100_000] * 3, [28, 28], -1]))
    try:
        (result / "result.json").write_text(json.dumps(changed))
        runner.load_run(result)
    except (ConfigError, DataError) as error:
        assert "\n" not in str(error)
    finally:
        (result / "result.json").write_text(before)


def test_json_that_is_deep_or_large(tmp_path, monkeypatch):
    (tmp_path / "deep").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting value"):
        read_json(tmp_path / "deep")
    monkeypatch.setattr("mnist_jax.files.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        read_json(tmp_path / "deep")


def test_a_header_that_promises_terabytes_and_a_gzip_bomb_take_no_memory(tmp_path):
    (tmp_path / "promise").write_bytes(idx_bytes(np.zeros((1, 1, 1)), (2**20, 2**10, 2**10)))
    with gzip.open(tmp_path / "bomb", "wb") as file:
        file.write(idx_bytes(np.zeros((1, 1, 1)), (1, 28, 28)) + bytes(50_000_000))
    for name in ("promise", "bomb"):
        with pytest.raises(DataError, match="promises"):
            data.read_idx(tmp_path / name)


def test_a_link_out_of_a_checkpoint_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "d").symlink_to(tmp_path / "secret")
    (tmp_path / "state" / MANIFEST).write_text('{"format": 2, "about": {}, "files": {}, "sha256": ""}')
    with pytest.raises(DataError, match="damaged checkpoint"):
        read_about(tmp_path / "state")


READERS = {  # of a file, by the file's path
    "idx": "data.read_idx(path)",
    "picture": "images.read_pictures(path, (28, 28))",
    "points": "neuron.read_points(path)",
    "manifest": "checkpoint.read_about(path.parent)",
    "config": "config.config_from_dict(files.read_json(path))",
}
SEEDS = [picture("PNG"), picture("JPEG"), idx_bytes(np.eye(28)[None]), gzip.compress(idx_bytes(np.eye(28)[None]))]
SEEDS += [b"x,y,class\n1,2,0\n3,4.5,1\n", b'{"hidden": [3], "l1": 0.5}', b'{"format": 2, "about": {}, "files": {}}']


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_guided_by_coverage(tmp_path, record_property, reader):
    """Half a minute of atheris, where it is installed (pip install '.[fuzz]')."""
    pytest.importorskip("atheris")
    script = f"""
import pathlib, sys
import atheris
with atheris.instrument_imports(include=["mnist_jax"]):
    from mnist_jax import checkpoint, config, data, files, images, neuron
    from mnist_jax.errors import MnistJaxError
path = pathlib.Path(sys.argv[1])
def once(content):
    path.write_bytes(content)
    try:
        {READERS[reader]}
    except MnistJaxError as error:
        assert "\\n" not in str(error)
    except {"(ValueError, AttributeError)" if reader == "config" else "()"}:  # no JSON object: the flags refuse it
        pass
limits = ["-max_total_time=30", "-timeout=10", "-rss_limit_mb=3000", "-max_len=4096"]
atheris.Setup([sys.argv[0], *limits, sys.argv[2]], once)
atheris.Fuzz()
"""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "read").mkdir()
    for number, content in enumerate(SEEDS):
        (tmp_path / "corpus" / str(number)).write_bytes(content)
    words = [sys.executable, "-c", script, tmp_path / "read" / MANIFEST, tmp_path / "corpus"]
    told = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ROOT})
    runs = re.search(r"Done (\d+) runs", told.stderr)
    record_property("fault", (f"{reader}: files by atheris", int(runs[1]) if runs else 1, int(runs[1]) if runs else 0))
    assert told.returncode == 0 and runs, told.stderr[-3000:]
