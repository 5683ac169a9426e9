"""Many devices: each computes its part of a batch, and the numbers are those of one device."""

import collections
import functools
import os
import re

import jax
import numpy as np
import pytest
from conftest import ROOT, command, error_line, mark_slow
from launch import run_python

import mnist_jax as mj
from mnist_jax.checkpoint import restore_state, save_state
from mnist_jax.errors import ConfigError
from mnist_jax.programs import compile_programs
from mnist_jax.sharding import make_placement
from mnist_jax.train import train_epoch

# Without conftest's other flags: one device and eight are rounded alike only by the emitters that users have.
EIGHT = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=8"
SMALL = {"dataset": "mnist5k", "batch_size": 120, "epochs": 18}
NETWORKS = {
    "perceptron": dict(model="perceptron", dropout=0.2, learning_rate=1e-3),
    "cnn": dict(model="cnn", hidden_sizes=(128,), dropout=0.2, microbatch_size=15),
    # Adam moves a weight by the learning rate even where its gradient is only rounding: SGD does not.
    "deep_cnn": dict(
        model="deep_cnn", filters=(8, 16, 16), hidden_sizes=(), norm="batch", dropout=0.3, optimizer="sgd",
        rotation=10.0, zoom=0.1, translation=2.0, loss="categorical_crossentropy", label_smoothing=0.1,
        learning_rate=1e-3,
    ),
}  # fmt: skip
TOLERANCE = {"perceptron": 1e-4, "cnn": 1e-4, "deep_cnn": 1e-3}


def programs_for(network, mesh):
    experiment = mj.Experiment(network, **{**SMALL, **NETWORKS[network]})
    return compile_programs(experiment, make_placement(jax.devices(), mesh, experiment.config.batch_size))


def train(network, mesh):
    programs = programs_for(network, mesh)
    state, per_step = programs.train(programs.init(jax.random.key(7)), 0, programs.steps_per_epoch)
    return jax.device_get((state.params, state.model_state)), jax.device_get(per_step), programs.score("test", state)


def compiled_text(network, mesh):
    """The program that trains a network's epoch, at the moment when its memory is checked."""
    texts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnist_jax.programs.check_memory", lambda program, *_: texts.append(program.as_text()))
        programs_for(network, mesh)
    return texts[0]


def in_eight(function, *args):
    """Calls a function of this file where a CPU stands for eight devices, in a process of its own."""
    code = f"import test_sharding as t; t.{function.__name__}(*{args!r})"
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "XLA_FLAGS": EIGHT}
    done = run_python("-c", code, env=env)
    assert done.returncode == 0, done.stderr[-3000:]


def check_numbers(network, *meshes):
    params, per_step, scores = train(network, "data:1")
    for mesh in meshes:
        other_params, other_per_step, other_scores = train(network, mesh)
        compare = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=TOLERANCE[network])
        jax.tree.map(compare, other_params, params)
        np.testing.assert_array_equal(other_per_step["loss"].count, per_step["loss"].count)
        np.testing.assert_allclose(other_per_step["loss"].total, per_step["loss"].total, rtol=1e-3)
        assert other_scores["count"] == scores["count"] == 1000
        np.testing.assert_allclose(other_scores["loss"], scores["loss"], rtol=1e-3)


@pytest.mark.parametrize("network", mark_slow(NETWORKS, fast=["perceptron"]))
def test_numbers_are_those_of_one_device(network):
    meshes = {"perceptron": ["data:8", "data:4,model:2", "model:2", "data:5"], "cnn": ["data:8", "data:4"]}
    in_eight(check_numbers, network, *meshes.get(network, ["data:8"]))


def check_program(network):
    text = compiled_text(network, "data:8")
    collectives = re.findall(r"= (.*) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\(", text)
    params = programs_for(network, "data:8").state_shapes.params
    largest = max(jax.tree.leaves(params), key=lambda leaf: leaf.size)
    sizes = [
        sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in re.findall(r"f32\[([\d,]*)\]", shapes))
        for shapes, _ in collectives
    ]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(size >= largest.size for size in sizes) == 1  # one moves the gradients
    assert max(sizes) <= 1.1 * count
    # Nothing else of a batch's size is sent around but the images, as bytes, and the indices of its rows.
    assert all(kind in ("all-reduce", "all-gather") for _, kind in collectives)
    assert sum("u8[120,28,28,1]" in shapes for shapes, _ in collectives) == 1
    assert not re.search(r"f32\[120,(784|28,28,1)\]", text) and "f32[15," in text


@pytest.mark.parametrize("network", ["perceptron", "cnn"])
def test_each_device_computes_its_part_of_a_batch(network):
    in_eight(check_program, network)


def test_one_device_has_the_program_without_a_mesh():
    experiment = mj.Experiment("perceptron", **{**SMALL, **NETWORKS["perceptron"]})
    components, splits = experiment.build(), experiment.splits["train"]
    epoch = functools.partial(train_epoch, components.train_step, batch_size=120, num_examples=len(splits[1]))
    lowered = jax.jit(epoch, donate_argnums=0).lower(
        jax.eval_shape(components.init, jax.random.key(7)), *jax.device_put(splits), np.int32(0), np.int32(0)
    )

    def operations(text):
        return collections.Counter(re.findall(r"= (\S+) ([\w-]+)\(", text))

    with_placement, without = operations(compiled_text("perceptron", "")), operations(lowered.compile().as_text())
    assert with_placement == without and len(without) > 100


def check_restore(folder):
    programs = programs_for("perceptron", "data:4,model:2")
    state, _ = programs.train(programs.init(jax.random.key(7)), 0, 2)
    save_state(f"{folder}/state", state)
    one = programs_for("perceptron", "data:1")
    for target in (one, programs):
        restored = restore_state(f"{folder}/state", target.state_shapes)
        assert restored.params["Dense_0"]["kernel"].sharding == target.state_shapes.params["Dense_0"]["kernel"].sharding
        jax.tree.map(np.testing.assert_array_equal, *(jax.device_get(x._replace(key=())) for x in (restored, state)))
        target.train(restored, 2, 3)
    shards = state.params["Dense_0"]["kernel"].addressable_shards
    assert {shard.data.shape for shard in shards} == {(784, 392)}


def test_a_state_is_restored_onto_another_mesh(tmp_path):
    in_eight(check_restore, str(tmp_path))


def test_the_command_for_eight_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", EIGHT)
    flags = ["--dataset=mnist5k", "--epochs=2", f"--workdir={tmp_path / 'run'}"]
    done = command("--mesh=data:4,model:2", *flags)
    assert done.returncode == 0 and "cpu (data:4,model:2 devices)" in done.stderr, done.stderr
    assert '"mesh": "data:4,model:2"' in (tmp_path / "run" / "result.json").read_text()
    done = command("--epochs=3", *flags[:1], flags[2])  # on all eight, from the state of the other mesh
    assert done.returncode == 0 and "resuming from step 36" in done.stderr, done.stderr
    done = command("--mesh=data:16", *flags[:2], f"--workdir={tmp_path / 'other'}")
    assert error_line(done.stderr).startswith("error: --mesh=data:16: needs 16 devices, there are 8")


@pytest.mark.parametrize(
    ("mesh", "batch_size", "message"),
    [
        ("data:2", 8, "needs 2 devices, there is 1"),
        ("rows:2", 8, "'rows' is no axis"),
        ("data", 8, "each axis has one size"),
        ("data:2,data:2", 8, "each axis has one size"),
        ("data:0", 8, "each axis has one size"),
    ],
)
def test_wrong_meshes(mesh, batch_size, message):
    with pytest.raises(ConfigError, match=message):
        make_placement(jax.devices()[:1], mesh, batch_size)


def test_a_batch_that_devices_do_not_divide():
    devices = jax.devices()[:1] * 8
    with pytest.raises(ConfigError, match=r"batch_size=100: can't be divided among 8 devices .* is batch_size=96"):
        make_placement(devices, "data:8", 100)
    assert make_placement(devices, "", 100).num_shards == 5
