"""Resuming and extending runs: what decides the bits of a seed is compared, nothing else."""

import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import update_manifest, write_folder
from test_reliability import assert_same_run, checkpoints, flip_bit

from mnist_jax import runner
from mnist_jax.checkpoint import MANIFEST, read_metadata
from mnist_jax.config import Config
from mnist_jax.errors import ConfigError
from mnist_jax.experiment import Experiment
from mnist_jax.files import write_json
from mnist_jax.loaded_run import load_run
from mnist_jax.loop import best_step, should_stop
from mnist_jax.resume import fingerprint
from mnist_jax.runner import run
from mnist_jax.types import Mean

STEPS = 7  # per epoch


@pytest.fixture(scope="module")
def experiment(folder):
    return Experiment(dataset=f"idx:{folder}", hidden_sizes=(8,), epochs=3, batch_size=100)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, experiment):
    """Finished runs by their fields, each made once, and not to be written."""
    made = {}

    def get(**fields):
        key = tuple(sorted(fields.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("run")
            run(experiment, made[key], quiet=True, **fields)
        return made[key]

    return get


@pytest.fixture
def finished(tmp_path, runs):
    return lambda **fields: shutil.copytree(runs(**fields), tmp_path / "finished")


@pytest.fixture
def unfinished(tmp_path, runs):
    """Two of three epochs."""
    workdir = shutil.copytree(runs(), tmp_path / "unfinished")
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "state")
    shutil.rmtree(workdir / "checkpoints" / "seed-7" / "21")
    return workdir


class Killed(BaseException):
    """As a kill, nothing in the library handles it."""


def kill_at(seed, epoch):
    def hook(one):
        if (one.seed, one.step) == (seed, epoch * STEPS):
            raise Killed

    return hook


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"num_seeds": 2}, {"num_seeds": 4}),
        ({"seed": 8}, {"seed": 7, "num_seeds": 2}),
        ({"num_seeds": 2}, {"num_seeds": 2, "epochs": 5}),
        ({"epochs": 0}, {"num_seeds": 2, "epochs": 1}),
    ],
    ids=str,
)
def test_a_finished_run_is_extended(experiment, runs, finished, before, after):
    workdir = finished(**before)
    states, lines = files(workdir / "state"), (workdir / "metrics.jsonl").read_text()
    result = json.loads((workdir / "result.json").read_text())
    run(experiment, workdir, quiet=True, **after)
    assert_same_run(workdir, runs(**after))
    if "epochs" not in after:
        assert files(workdir / "state").items() >= states.items() and lines in (workdir / "metrics.jsonl").read_text()
        assert all(one in json.loads((workdir / "result.json").read_text())["runs"] for one in result["runs"])


def test_a_result_outlives_a_kill_while_it_is_extended(experiment, runs, finished, caplog):
    workdir = finished(num_seeds=2)
    result = (workdir / "result.json").read_bytes()
    states = files(workdir / "state")
    with pytest.raises(Killed):
        run(experiment, workdir, quiet=True, num_seeds=3, epochs=5, hooks=[kill_at(8, 5)])
    assert (workdir / "result.json").read_bytes() == result and files(workdir / "state") == states
    assert int(load_run(workdir, seed=8).state.step) == 3 * STEPS
    other = shutil.copytree(workdir, workdir.with_name("other"))
    caplog.set_level(logging.INFO, "mnist_jax")
    run(experiment, workdir, quiet=True, num_seeds=3, epochs=5)
    assert [message for message in caplog.messages if "resuming" in message] == ["seed 8: resuming from step 28"]
    assert_same_run(workdir, runs(num_seeds=3, epochs=5))
    run(experiment, other, quiet=True, num_seeds=4)  # of the three epochs that are finished
    assert_same_run(other, runs(num_seeds=4))


def test_a_kill_in_the_last_moment_leaves_the_old_result(experiment, runs, finished, monkeypatch):
    workdir = finished()

    def write(path, *values):
        if path.name == "result.json":
            raise Killed
        write_json(path, *values)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(runner, "write_json", write)
        run(experiment, workdir, quiet=True, epochs=5)
    assert load_run(workdir).config.epochs == 3
    run(experiment, workdir, quiet=True, epochs=5)
    assert_same_run(workdir, runs(epochs=5))


@pytest.mark.parametrize(
    "change",
    [{}, {"eval_every_epochs": 2}, {"num_seeds": 1}, {"num_seeds": 3, "epochs": 2}, {"seed": 8, "num_seeds": 2}],
    ids=str,
)
def test_a_finished_run_is_not_overwritten(experiment, finished, change):
    workdir = finished(num_seeds=2)
    before = files(workdir)
    message = (
        "already holds a result of num_seeds=2 and epochs=3, which more seeds or epochs would extend; choose another"
    )
    for options in ({}, {"resume": "required"}, {"resume": "never"}):
        with pytest.raises(ConfigError, match="already holds a result" if "resume" in options else message):
            run(experiment, workdir, quiet=True, **{"num_seeds": 2} | change | options)
    assert files(workdir) == before


def test_from_scratch_a_finished_run_is_not_extended_but_overwritten(experiment, runs, finished):
    workdir = finished()
    with pytest.raises(ConfigError, match=r"already holds a result of num_seeds=1 and epochs=3; choose another"):
        run(experiment, workdir, quiet=True, num_seeds=2, resume="never")
    with pytest.raises(
        ConfigError, match=r"l2: was 0\.0, is 0\.1, in .*seed-7; .*overwrite=True to start from scratch"
    ):
        run(experiment, workdir, quiet=True, num_seeds=2, l2=0.1)
    run(experiment, workdir, quiet=True, num_seeds=2, overwrite=True)
    assert_same_run(workdir, runs(num_seeds=2))


def test_a_result_that_appears_meanwhile_is_not_overwritten(experiment, runs, monkeypatch):
    before = (runs() / "result.json").read_bytes()
    monkeypatch.setattr(runner, "check_workdir", lambda *_: None)  # it was not there at the start
    with pytest.raises(ConfigError, match="already holds a result"):
        run(experiment, runs(), quiet=True)
    assert (runs() / "result.json").read_bytes() == before


@pytest.mark.parametrize("change", [{"num_seeds": 2}, {"epochs": 5}, {"epochs": 2}], ids=str)
def test_an_unfinished_run_resumes_with_other_seeds_and_epochs(experiment, runs, unfinished, caplog, change):
    caplog.set_level(logging.INFO, "mnist_jax")
    run(experiment, unfinished, quiet=True, **change)
    resumed = [message for message in caplog.messages if message.startswith("seed")]
    assert resumed == ([] if change == {"epochs": 2} else ["seed 7: resuming from step 14"])
    assert_same_run(unfinished, runs(**change))


def test_an_unfinished_run_resumes_with_fewer_seeds(tmp_path, experiment, runs):
    with pytest.raises(Killed):
        run(experiment, tmp_path, quiet=True, num_seeds=3, hooks=[kill_at(9, 2)])
    run(experiment, tmp_path, quiet=True, num_seeds=2)
    assert_same_run(tmp_path, runs(num_seeds=2))


@pytest.mark.parametrize("epochs", [0, 1])
def test_fewer_epochs_than_trained_are_refused(experiment, unfinished, epochs):
    before = files(unfinished)
    with pytest.raises(
        ConfigError, match=rf"^epochs={epochs}: seed 7 is already trained for 2 in .*; ask for at least"
    ):
        run(experiment, unfinished, quiet=True, epochs=epochs)
    assert files(unfinished) == before


def test_a_checkpoint_inside_the_epoch_after_the_last_one_is_refused(tmp_path, experiment):
    with pytest.raises(Killed):
        run(experiment, tmp_path, quiet=True, checkpoint_every=5, hooks=[kill_at(7, 3)])
    with pytest.raises(ConfigError, match="epochs=2: seed 7 is already trained for 3"):
        run(experiment, tmp_path, quiet=True, epochs=2)


def test_epochs_decide_where_the_schedule_depends_on_them(tmp_path, experiment, runs):
    fields = {"schedule": "one_cycle", "quiet": True}
    run(experiment, tmp_path, **fields)
    with pytest.raises(
        ConfigError, match=r"^epochs: was 3, is 5, and the one_cycle schedule depends on it, in .*seed-7;"
    ):
        run(experiment, tmp_path, **fields, epochs=5)
    with pytest.raises(ConfigError, match=r"^schedule: was one_cycle, is constant, in "):
        run(experiment, tmp_path, quiet=True, epochs=5)
    with pytest.raises(ConfigError, match=r"^schedule: was constant, is linear, in "):
        run(experiment, shutil.copytree(runs(), tmp_path / "constant"), quiet=True, schedule="linear", epochs=5)


def test_a_warm_up_does_not_depend_on_the_number_of_epochs(experiment, runs, finished):
    workdir = finished(warmup_epochs=1.4)
    run(experiment, workdir, quiet=True, warmup_epochs=1.4, epochs=5)
    assert_same_run(workdir, runs(warmup_epochs=1.4, epochs=5))


def test_epochs_with_parts_of_ones_own(tmp_path, folder):
    config = Config(dataset=f"idx:{folder}", hidden_sizes=(8,), epochs=1, batch_size=100)
    run(Experiment(config=config, optimizer=optax.sgd(0.1)), tmp_path / "object", quiet=True)
    run(Experiment(config=config, optimizer=optax.sgd(0.1)), tmp_path / "object", quiet=True, epochs=2)
    made = Experiment(config=config, parts=lambda config: {"optimizer": optax.sgd(0.1 / config.epochs)})
    run(made, tmp_path / "made", quiet=True)
    with pytest.raises(ConfigError, match="epochs: was 1, is 2, and the experiment's own parts may depend on it"):
        run(made, tmp_path / "made", quiet=True, epochs=2)


def test_patience_ends_an_extended_run_as_it_ends_another(experiment, runs, finished):
    fields = {"patience": 1, "learning_rate": 0.0}  # the second validation is not lower
    workdir = finished(**fields)
    assert json.loads((workdir / "result.json").read_text())["runs"][0]["steps"] == 2 * STEPS
    with pytest.raises(ConfigError, match="patience: was 1, is 2, in"):
        run(experiment, workdir, quiet=True, **fields | {"patience": 2, "epochs": 5})
    with pytest.raises(ConfigError, match="patience: was 1, is 0, in"):
        run(experiment, workdir, quiet=True, **fields | {"patience": 0, "epochs": 5})
    run(experiment, workdir, quiet=True, **fields, epochs=5)
    assert_same_run(workdir, runs(**fields, epochs=5))


def test_another_run_is_not_resumed(tmp_path, experiment, small, unfinished):
    before = (unfinished / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"learning_rate: was 0\.001, is 0\.01, in .*14; .*resume=never to start"):
        run(experiment, unfinished, quiet=True, learning_rate=0.01)
    changed = small | {"test_labels": small["test_labels"][::-1]}
    folder = write_folder(tmp_path / "changed", changed)
    with pytest.raises(ConfigError, match=r"dataset: was \w{64}, is \w{64}, in .*14; choose another workdir"):
        run(experiment, unfinished, quiet=True, dataset=f"idx:{folder}")
    several = {"activation": "tanh", "dropout": 0.5, "learning_rate": 0.01, "l2": 0.1}
    message = r"^activation: was relu, is tanh; dropout: was 0\.0, is 0\.5; l2: was 0\.0, is 0\.1; and 1 more, in "
    with pytest.raises(ConfigError, match=message):
        run(experiment, unfinished, quiet=True, **several)
    assert (unfinished / "metrics.jsonl").read_bytes() == before
    run(experiment, unfinished, quiet=True, learning_rate=0.01, resume="never")


def test_fields_that_only_the_checkpoint_has(experiment, runs, unfinished):
    step = unfinished / "checkpoints" / "seed-7" / "14"
    metadata = read_metadata(step)
    for name, message in (("width", "^width: was 5, is not set, in "), ("deterministic", "^deterministic: was 5, is")):
        update_manifest(step, metadata=metadata | {"config": metadata["config"] | {name: 5}})
        with pytest.raises(ConfigError, match=message):
            run(experiment, unfinished, quiet=True)
    update_manifest(step, metadata=metadata | {"config": metadata["config"] | {"epochs": 5}})  # which decides nothing
    run(experiment, unfinished, quiet=True)
    assert_same_run(unfinished, runs())


def test_places_and_validations_do_not_matter(tmp_path, experiment, small):
    workdir, folder = tmp_path / "run", write_folder(tmp_path / "digits", small)
    with pytest.raises(Killed):
        run(experiment, workdir, quiet=True, dataset=f"idx:{folder}", hooks=[kill_at(7, 3)])
    workdir, folder = workdir.rename(tmp_path / "renamed"), folder.rename(tmp_path / "moved")
    fields = {"quiet": True, "dataset": f"idx:{folder}"}
    moved = run(experiment, workdir, **fields, eval_every_epochs=3, deterministic=True, resume="required")
    complete = run(experiment, tmp_path / "complete", **fields)
    for one, other in ((moved, complete), (load_run(workdir), load_run(tmp_path / "complete"))):
        states = [result.states[0] if hasattr(result, "states") else result.state for result in (one, other)]
        jax.tree.map(np.testing.assert_array_equal, *(state._replace(key=()) for state in states))
    assert moved.record["runs"] == complete.record["runs"]
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert ["validation" in line for line in lines] == [True, True, True]
    run(experiment, workdir, **fields, eval_every_epochs=2, epochs=6)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert ["validation" in line for line in lines] == [True, True, True, True, False, True]


def test_deterministic_kernels_are_compiled_recorded_and_compared(tmp_path, experiment, monkeypatch):
    jitted, jit = [], jax.jit
    monkeypatch.setattr(
        jax,
        "jit",
        lambda function, **options: jitted.append(options.get("compiler_options")) or jit(function, **options),
    )
    for deterministic in (False, True):
        result = run(experiment, tmp_path / str(deterministic), quiet=True, deterministic=deterministic, epochs=0)
        assert result.record["deterministic"] is deterministic
        assert sum(map(bool, jitted)) == 6 * deterministic  # init, train, predict and the scores of three splits
    assert fingerprint(experiment, deterministic=True) != fingerprint(experiment)


def test_resume_required_needs_a_run(tmp_path, experiment, unfinished):
    with pytest.raises(ConfigError, match="holds no unfinished run"):
        run(experiment, tmp_path / "new", quiet=True, resume="required")
    assert not (tmp_path / "new").exists()
    run(experiment, unfinished, quiet=True, resume="required")
    with pytest.raises(ConfigError, match="holds no unfinished run"):
        run(experiment, unfinished, quiet=True, resume="required", overwrite=True)
    run(experiment, unfinished, quiet=True, resume="required", epochs=4)


def test_resume_required_needs_an_undamaged_checkpoint(experiment, unfinished):
    for step in checkpoints(unfinished):
        flip_bit(step / MANIFEST)
    with pytest.raises(ConfigError, match="holds no unfinished run"):
        run(experiment, unfinished, quiet=True, resume="required")


def test_another_seed_does_not_take_over_an_unfinished_run(experiment, unfinished):
    before = (unfinished / "config.json").read_bytes()
    for seed in (6, 8):
        with pytest.raises(ConfigError, match=rf"seed={seed}: .*seed-7 is of another run; .*resume=never"):
            run(experiment, unfinished, quiet=True, seed=seed)
    assert (unfinished / "config.json").read_bytes() == before


@pytest.fixture(scope="module")
def inside_an_epoch(tmp_path_factory, experiment):
    """One of three epochs, and three steps."""
    workdir = tmp_path_factory.mktemp("inside")
    with pytest.raises(Killed):
        run(experiment, workdir, quiet=True, checkpoint_every=10, hooks=[kill_at(7, 2)])
    return workdir


INVALID_METADATA = {
    "nothing": lambda metadata: metadata.clear(),
    "no records": lambda metadata: metadata.pop("records"),
    "records that are a number": lambda metadata: metadata.update(records=5),
    "too few records": lambda metadata: metadata.update(records=[]),
    "records without steps": lambda metadata: metadata.update(records=[{}]),
    "a loss that is null": lambda metadata: metadata["records"][0]["train"].update(loss=None),
    "metrics that are strings": lambda metadata: metadata["per_step"].update(loss=[["x"] * 3] * 2),
    "metrics of too many steps": lambda metadata: metadata["per_step"].update(loss=[[1.0] * 99, [1] * 99]),
    "a total that float32 can't hold": lambda metadata: metadata["per_step"]["loss"][0].__setitem__(0, 3.5e38),
    "a count that int32 can't hold": lambda metadata: metadata["per_step"]["loss"][1].__setitem__(0, 2**40),
    "no metrics": lambda metadata: metadata.update(per_step={}),
    "a configuration that is a list": lambda metadata: metadata.update(config=[]),
}


@pytest.mark.parametrize("name", INVALID_METADATA)
def test_a_checkpoint_with_invalid_metadata_is_skipped(tmp_path, experiment, runs, inside_an_epoch, caplog, name):
    workdir = shutil.copytree(inside_an_epoch, tmp_path / "run")
    step = workdir / "checkpoints" / "seed-7" / "10"
    metadata = read_metadata(step)
    INVALID_METADATA[name](metadata)
    update_manifest(step, metadata=metadata)
    run(experiment, workdir, quiet=True)
    assert "10: no checkpoint of a run: skipped" in caplog.text
    assert_same_run(workdir, runs())


def odd_metrics():
    """Metrics that are not finite, and of types that JSON does not tell apart."""

    def of(dtype, value):
        return lambda logits, batch: Mean(jnp.asarray(value, dtype), jnp.asarray(len(logits), jnp.uint32))

    return {
        "inf": of(jnp.float32, jnp.inf),
        "nan": of(jnp.float32, jnp.nan),
        "bfloat16": of(jnp.bfloat16, 1),
        "unsigned": of(jnp.uint32, 1),
        "nothing_counted": lambda logits, batch: Mean(jnp.float32(0), jnp.int32(0)),
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"metrics": odd_metrics()},
        {"optimizer": "sgd", "learning_rate": 1e30, "on_nan": "skip"},
        {"optimizer": "sgd", "learning_rate": 1e30, "on_nan": "skip", "patience": 2},
    ],
    ids=["metrics", "on_nan", "patience"],
)
def test_numbers_that_are_not_finite_resume(tmp_path, folder, caplog, fields):
    experiment = Experiment(dataset=f"idx:{folder}", hidden_sizes=(8,), epochs=4, batch_size=100, **fields)
    options = {"quiet": True, "checkpoint_every": 5}
    run(experiment, tmp_path / "complete", **options)
    text = (tmp_path / "complete" / "metrics.jsonl").read_text()
    assert '"loss": null' in text or '"inf": null' in text
    for step in (2 * STEPS, 3 * STEPS):  # the newest checkpoint is at 10, then at 20
        stop = {"hooks": [lambda one, step=step: step == one.step and kill_at(7, step // STEPS)(one)]}
        with pytest.raises(Killed):
            run(experiment, tmp_path / "killed", **options, **stop)
    caplog.clear()
    caplog.set_level(logging.INFO, "mnist_jax")
    run(experiment, tmp_path / "killed", **options)
    assert "seed 7: resuming from step" in caplog.text and "skipped" not in caplog.text
    assert_same_run(tmp_path / "killed", tmp_path / "complete", experiment=experiment)


@pytest.mark.parametrize("loss", [float("inf"), float("nan")])
def test_a_validation_loss_that_is_not_finite_is_the_worst(loss):
    records = [{"step": step, "validation": {"loss": each}} for step, each in enumerate((loss, 0.5, loss, 0.6))]
    config = Config(epochs=9, patience=2)
    assert [should_stop(config, records[:n]) for n in range(5)] == [False, False, False, False, True]
    assert best_step(records) == 1 and best_step(records[:1]) is None
    assert should_stop(config, [records[0]] * 3)
