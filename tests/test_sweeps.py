"""Sweeps: runs equal the same runs alone, stopped sweeps end as untouched ones, the test set decides nothing."""

import contextlib
import csv
import io
import re
import time

import jax
import numpy as np
import optuna
import pytest
from conftest import command, error_line
from launch import Python

import mnist_jax as mj
from mnist_jax.errors import ConfigError
from mnist_jax.sweeps import search
from mnist_jax.sweeps.chunk import Chunk, DataShape
from mnist_jax.sweeps.executor import Executor
from mnist_jax.sweeps.live import Live
from mnist_jax.sweeps.options import SweepOptions
from mnist_jax.sweeps.search import prune, rungs
from mnist_jax.sweeps.space import parse_space
from mnist_jax.sweeps.storage import open_study
from mnist_jax.sweeps.study import SharedStudy, Trial
from mnist_jax.sweeps.table import Row, advise, make_rows
from mnist_jax.sweeps.trainer import Objective

QUICK = {"test_seeds": 0, "quiet": True}


@pytest.fixture(scope="module")
def experiment(small):
    images = {name: array[..., None] if "images" in name else array for name, array in small.items()}
    arrays = (images[name] for name in ("train_images", "train_labels", "test_images", "test_labels"))
    data = mj.make_dataset(*arrays, tuple("0123456789"), "small")
    return mj.Experiment("tiny", hidden_sizes=(12,), dropout=0.1, dataset=data, batch_size=70, epochs=3)


def scores(result):
    return {tuple(row.point.values()): row.scores for row in result.rows}


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.params, state.opt_state))]


@pytest.mark.parametrize("rate", [1e-3, 1e-2])
def test_a_run_of_a_chunk_equals_the_run_alone(experiment, tmp_path, rate):
    """Alone in its chunk bit for bit; mapped over three rates, to 1e-4 of the parameters."""
    alone = mj.run(experiment, tmp_path / "run", quiet=True, learning_rate=rate).states[0]
    shape = DataShape(10, jax.ShapeDtypeStruct(experiment.image_shape, np.uint8))
    executor = Executor(experiment, experiment.splits, shape, jax.devices()[0])

    def train(rates):
        hparams = {"learning_rate": rates}
        chunk = Chunk(config=experiment.config, seeds=(7,), hparams=hparams, end_epoch=3, keep_states=True)
        return executor.run(chunk)

    one, mapped = train((rate,))[0], train((3e-4, rate, 3e-2))[1]
    params, _, opt_state, _ = one.state
    for a, b in zip(jax.tree.leaves((params, opt_state)), leaves(alone), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(mapped.state[0]), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    parts = executor.run(
        Chunk(config=experiment.config, seeds=(7,), hparams={"learning_rate": (rate,)}, end_epoch=1, keep_states=True)
    )
    rest = executor.run(
        Chunk(
            config=experiment.config,
            seeds=(7,),
            hparams={"learning_rate": (rate,)},
            end_epoch=3,
            states=[parts[0].state],
            records=[parts[0].records],
        )
    )
    assert rest[0].records == one.records


@pytest.mark.slow
def test_engines_agree_and_a_static_choice_varies_too(experiment, tmp_path):
    grid = {"learning_rate": (1e-3, 1e-2), "hidden_sizes": "8|12"}
    by_engine = {
        engine: scores(mj.sweep(experiment, tmp_path / engine, grid=grid, seeds=2, engine=engine, **QUICK))
        for engine in ("serial", "vmap")
    }
    assert by_engine["serial"].keys() == by_engine["vmap"].keys() and len(by_engine["serial"]) == 4
    for point, expected in by_engine["serial"].items():
        np.testing.assert_allclose(by_engine["vmap"][point], expected, atol=0.03)  # two of 70 images


def test_the_test_images_decide_nothing(experiment, tmp_path):
    data = experiment.dataset
    shuffled = mj.Experiment(
        "tiny", dataset=data._replace(test_labels=(data.test_labels + 3) % 10), config=experiment.config
    )
    first, second = (
        mj.sweep(one, tmp_path / name, grid={"learning_rate": (1e-3, 1e-2, 3e-2)}, quiet=True, test_seeds=2)
        for one, name in ((experiment, "a"), (shuffled, "b"))
    )
    assert scores(first) == scores(second) and first.best == second.best
    assert first.test["accuracy"]["n"] == 2 and first.test["accuracy"] != second.test["accuracy"]
    shape = DataShape(10, jax.ShapeDtypeStruct(experiment.image_shape, np.uint8))
    assert set(Executor(experiment, experiment.splits, shape, jax.devices()[0]).splits) == {"train", "validation"}


def test_seeds_and_trials_are_added_to_a_finished_sweep(experiment, tmp_path):
    space = {"learning_rate": "1e-4:1e-1:log", "dropout": "0:0.5"}
    first = mj.sweep(experiment, tmp_path / "s", space=space, trials=3, engine="serial", **QUICK)
    more = mj.sweep(experiment, tmp_path / "s", space=space, trials=4, seeds=2, engine="serial", **QUICK)
    assert len(first.rows) == 3 and all(len(row.scores) == 2 for row in more.rows)
    assert sorted(row.number for row in more.rows) == [0, 1, 2, 3]
    for point, old in scores(first).items():
        assert scores(more)[point][:1] == old
    for storage in ("", str(tmp_path / "other.journal")):
        with pytest.raises(ConfigError, match="objective: was accuracy, is loss"):
            mj.sweep(experiment, tmp_path / "s", space=space, trials=4, objective="loss", storage=storage, **QUICK)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a run; choose another folder"):
        mj.sweep(experiment, tmp_path / "run", space=space, trials=4, **QUICK)


def test_the_advice_says_where_trials_differ_in_seeds(experiment, tmp_path):
    grid = {"learning_rate": (1e-3, 1e-2)}
    mj.sweep(experiment, tmp_path / "s", grid=grid, seeds=2, engine="serial", **QUICK)
    fewer = mj.sweep(experiment, tmp_path / "s", grid=grid, seeds=1, engine="serial", **QUICK)
    assert [len(row.scores) for row in fewer.rows] == [2, 2]
    assert "Trials have 2 seeds from before; --seeds=1 takes none away." in fewer.advice
    rows = [
        Row(n, {}, experiment.config, "", "COMPLETE", [7], [0.5] * count, [], 1.0, 2) for n, count in enumerate((3, 2))
    ]
    assert any("Trials have 2 to 3 seeds" in line for line in advise(rows, (), Objective("accuracy", False), 3))


def test_a_trial_that_fails_has_its_reason_and_ends_nothing(experiment, tmp_path):
    grid = {"learning_rate": (0.05, 1e30)}
    result = mj.sweep(experiment, tmp_path / "s", grid=grid, optimizer="sgd", engine="vmap", **QUICK)
    assert [row.state for row in result.rows] == ["COMPLETE", "FAIL"] and "the loss became" in result.rows[1].reason
    assert any("failed" in line for line in result.advice)


def test_pruning_saves_epochs_and_leaves_the_survivors_as_they_are(experiment, tmp_path):
    space = {"learning_rate": "1e-5:1e-1:log"}
    options = {"space": space, "trials": 16, "epochs": 10, "engine": "vmap", **QUICK}
    pruned = mj.sweep(experiment, tmp_path / "pruned", pruner="successive_halving", **options)
    complete = scores(mj.sweep(experiment, tmp_path / "complete", **options))
    trained = pruned.record["epochs"]
    assert trained["trained"] < trained["of complete trials"] / 2
    survivors = [row for row in pruned.rows if row.state == "COMPLETE"]
    assert survivors and all(
        np.allclose(row.scores, complete[tuple(row.point.values())], atol=0.03) for row in survivors
    )


def test_all_trials_of_a_batch_are_compared_whatever_their_order(tmp_path):
    study = open_study(str(tmp_path / "a.journal"), "s", "maximize")
    shared = SharedStudy(study, "me")
    shared.claim([(i, {}, {}, {"seeds": [7], "batch": 0}, {}) for i in range(6)])
    for values in (range(6), reversed(range(6))):
        batch = {number: {1: float(value)} for number, value in enumerate(values)}
        stopped = prune("successive_halving", 9, study, batch, {number: {} for number in batch})
        assert {batch[number][1] for number in stopped} <= {0.0, 1.0, 2.0, 3.0} and len(stopped) >= 3
    assert rungs("successive_halving", 9) == [1, 3]


def test_a_dead_clients_trials_are_taken_over_and_a_live_ones_never(tmp_path):
    path = str(tmp_path / "study.journal")
    dead, live, heir = (SharedStudy(open_study(path, "s", "maximize"), name, lease=0.6) for name in ("a", "b", "c"))
    attrs = {"seeds": [7], "batch": 0}
    with live:
        dead.claim([(0, {}, {}, attrs, {})])
        live.claim([(1, {}, {}, attrs, {})])
        heir.held()  # sees both for the first time
        deadline = time.monotonic() + 20
        while not (held := heir.held()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [trial.point for trial in held] == [0] and [trial.point for trial in live.held()] == [1]
    assert dead.claim([(1, {}, {}, attrs, {})]) == []  # a point that somebody has
    late = SharedStudy(open_study(path, "s", "maximize"), "d")
    trial = live.held()[0]
    copied = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING, user_attrs={"point": 1, "client": "d", **attrs}
    )
    late.study.add_trial(copied)  # as of one that was killed before it saw that the point was taken
    assert late.held() == [] and [one.number for one in late.trials() if one.point == 1] == [trial.number]
    dead.tell(held[0], "COMPLETE", 0.5, {})
    heir.tell(held[0], "COMPLETE", 0.5, {})  # recorded already: no error


def test_a_torn_journal_is_cut_back_and_other_files_are_left_alone(tmp_path):
    path = tmp_path / "study.journal"
    SharedStudy(open_study(str(path), "s", "maximize"), "me").define({"a": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "wor')
    assert open_study(str(path), "s", "maximize").user_attrs["definition"] == {"a": 1}
    assert path.read_bytes().startswith(whole + b'{"op_code":0,"worker_id"')
    other = tmp_path / "notes.txt"
    other.write_text("mine, without a last newline")
    with pytest.raises(ConfigError, match="no journal file"):
        open_study(str(other), "s", "maximize")
    assert other.read_text() == "mine, without a last newline"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": ["learning_rat=1,2"]}, "did you mean 'learning_rate'"),
        ({"grid": ["learning_rate=1e-1:1e-3:log:4"]}, "inverted"),
        ({"grid": ["learning_rate=0:1:log:4"]}, "must begin above 0"),
        ({"grid": ["dropout=0.1", "dropout=0.2"]}, "given twice"),
        ({"grid": ["dropout=0.1,0.1"]}, "the same value twice"),
        ({"grid": ["dropout=0.1,1.5"]}, r"dropout=1.5: must be in \[0, 1\)"),
        ({"grid": ["momentum=0.5,0.9"]}, "momentum=0.5 would be refused"),
        ({"grid": ["batch_size=1:2:5"]}, "has only 2 different values"),
        ({"grid": ["learning_rate=nan:1:3"]}, "must be finite"),
        ({"grid": ["=1,2"]}, "must be NAME=VALUES"),
        ({"grid": (("dropout", 0.1),)}, "must be a dict"),
        ({"grid": ["seed=1,2"]}, "use seeds=N"),
        ({"grid": ["batch_size=100,700"]}, "only 630 training images"),
        ({"grid": ["learning_rate=1e-4:1e-1:log:100", "dropout=0:0.9:100"]}, "10,000 points"),
        ({"grid": ["dropout=0.1"], "search": "tpe"}, "search=tpe: takes space"),
        ({}, "give one of them"),
        ({"space": ["dropout=0:0.5"], "trials": 0}, "trials=0: must be at least 1"),
        ({"space": ["norm=none|batch", "batch_size=50:51"], "trials": 5}, "only 4 points; try as many, or use grid"),
        ({"space": ["dropout=0:0.5"], "objective": "acuracy"}, "did you mean 'accuracy'"),
        ({"space": ["dropout=0:0.5"], "storage": "sqlite:////nowhere/a.db"}, "does not answer"),
        ({"space": ["dropout=0:0.5"], "storage": "postgresql+psycopg://me:pw@127.0.0.1:1/x"}, "storage=postgres"),
        ({"space": ["dropout=0:0.5"], "validation_fraction": 0.0}, "hold some out"),
        ({"grid": ["dropout=0.1"], "num_seeds": 3}, "use seeds=3"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_before_anything_runs(experiment, tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        mj.sweep(experiment, tmp_path / "s", **{**QUICK, **arguments})
    assert "\n" not in str(caught.value) and "pw" not in str(caught.value)
    assert not list(tmp_path.glob("s/runs-*"))


def test_values_may_be_a_number_or_an_array():
    for values in ([0.5], 0.5), ([0.1, 0.2], np.array([0.1, 0.2])):
        (dimension,) = parse_space({"dropout": values[1]}, mj.Config(), "grid")
        assert list(dimension.values) == values[0]


def test_a_quasi_random_search_tries_no_point_twice():
    space = {"hidden_sizes": [(8,), (12,), (16,)], "norm": ["none", "batch"], "batch_size": "50:53"}
    dimensions = parse_space(space, mj.Config(), "space")
    points = [point for point, _ in search.propose("qmc", dimensions, None, 7, 0, 24)]
    assert len({tuple(point.values()) for point in points}) == 3 * 2 * 4
    assert [point for point, _ in search.propose("qmc", dimensions, None, 7, 10, 5)] == points[10:15]


def table(folder):
    with (folder / "trials.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_killed_sweep_ends_as_one_that_nobody_touched(folder, tmp_path):
    space = ["--space=learning_rate=1e-4:1e-1:log", "--space=hidden_sizes=8|12", "--search=tpe", "--trials=12"]
    common = [
        f"--dataset=idx:{folder}",
        "--epochs=4",
        "--pruner=hyperband",
        "--engine=serial",
        "--test_seeds=0",
        *space,
    ]
    argv = ["sweep", "--experiment=perceptron", *common]
    untouched = tmp_path / "a" / "study"
    done = command(*argv[1:], f"--workdir={untouched}", experiment="sweep")
    assert done.returncode == 0, done.stderr
    killed = tmp_path / "b" / "study"
    for trials in (2, 9):
        process = Python("-m", "mnist_jax", *argv, f"--workdir={killed}", stderr=tmp_path / f"{trials}.err")
        process.wait_until_it_writes(f"\ntrial {trials}")
        process.kill()
        process.wait()
    assert command(*argv[1:], f"--workdir={killed}", experiment="sweep").returncode == 0
    assert table(untouched) == table(killed) and len(table(killed)) == 12
    report = (killed / "report.html").read_text()
    assert "http://" not in report and "https://" not in report and "data:image/png;base64," in report
    first = table(killed)[0]
    assert first["command"].startswith("python -m experiments.perceptron --dataset=idx:")


def test_a_seed_that_two_commands_trained_counts_once(experiment):
    attrs = [{"seeds": [7, 8], "scores": [0.5, 0.7]}, {"seeds": [8, 9], "scores": [0.7, 0.9]}]
    trials = [Trial(n, n, 0, "COMPLETE", {}, one | {"history": [0.6], "epochs": [1]}) for n, one in enumerate(attrs)]
    [row] = make_rows(trials, [], experiment.config, "", Objective("accuracy", minimize=False))
    assert (row.seeds, row.scores) == ([7, 8, 9], [0.5, 0.7, 0.9]) and row.mean == pytest.approx(0.7)


def test_a_terminal_shows_one_line_of_80_columns(experiment):
    stream = io.StringIO()
    stream.isatty = lambda: True
    states = ["COMPLETE"] * 12 + ["RUNNING"] * 8 + ["PRUNED"] * 20 + ["FAIL"]
    scores = [0.98914, 0.98952]
    rows = [Row(n, {}, experiment.config, "", state, [7, 8], scores, [], 1.0, 2) for n, state in enumerate(states)]
    with contextlib.closing(Live(100, False, stream)) as live:
        live.epochs(50)
        live.trials(rows, 50)
        last = stream.getvalue().split("\r")[-1].rstrip()
    assert re.fullmatch(r"12/50 done, 8 running, 20 pruned, 1 failed, \d\d:\d\d left, best 0.98933 ± 0.00019\W*", last)
    assert len(last) <= 80


def test_the_command_names_its_mistakes_by_flags():
    assert error_line(command(experiment="sweep").stderr).startswith("error: --experiment=: name a recipe")
    unknown = command("--experiment=perceptro", experiment="sweep")
    assert unknown.returncode == 2 and "--experiment=perceptro" in error_line(unknown.stderr)
    refused = command("--experiment=perceptron", "--grid", "dropout=2", experiment="sweep")
    assert error_line(refused.stderr) == "error: --dropout=2.0: must be in [0, 1)"
    assert {"grid", "space"} <= set(SweepOptions.__dataclass_fields__)
