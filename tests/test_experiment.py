"""An experiment of one's own, from a folder outside the checkout, with the package installed from its wheel."""

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import mark_slow
from flax import linen as nn
from launch import ROOT, run_python
from PIL import Image

import mnist_jax as mj
from mnist_jax.errors import ArgumentError, ConfigError, DataError

MAXOUT = '''"""Maxout with a focal loss: my_lab/maxout.py."""
from flax import linen as nn
import jax.numpy as jnp
import optax
import mnist_jax as mj

class Maxout(nn.Module):
    @nn.compact
    def __call__(self, image, train):
        pieces = nn.Dense(32 * 3)(image.reshape(image.shape[0], -1)).reshape(-1, 32, 3)
        return nn.Dense(10)(nn.Dropout(0.2, deterministic=not train)(pieces.max(axis=-1)))

def focal(logits, batch):
    ce = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch.label)
    return ce * (1 - jnp.exp(-ce)) ** 2

def top5(logits, batch):
    return mj.Mean.of((jnp.argsort(logits)[:, -5:] == batch.label[:, None]).any(-1), batch.mask)

EXPERIMENT = mj.Experiment("maxout", model=Maxout(), loss=focal, metrics={"top5": top5}, dataset="mnist5k", epochs=2)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
'''
FLAGS = '''"""A flag of one's own."""
import dataclasses
import mnist_jax as mj

@dataclasses.dataclass(frozen=True)
class Config(mj.Config):
    gamma: float = mj.flag_field(2.0, "focusing parameter", minimum=0, traced=True)

def parts(config):
    def loss(logits, batch):
        ce = mj.make_loss(config)(logits, batch)
        return ce * (1 - mj_exp(-ce)) ** config.gamma
    return {"loss": loss}

from jax.numpy import exp as mj_exp
EXPERIMENT = mj.Experiment("focal", config=Config(), parts=parts, dataset="mnist5k", hidden_sizes=(16,), epochs=1)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
'''

EVERYTHING = '''"""A data set, an augmentation and an optimizer of one's own."""
import jax
import numpy as np
import optax
import mnist_jax as mj

def load():
    data = mj.load_dataset("mnist5k")
    train = data.train_images[::4], data.train_labels[::4]
    return mj.make_dataset(*train, data.test_images, data.test_labels, data.class_names)

def brighten(key, batch):
    return batch._replace(image=batch.image * jax.random.uniform(key, (batch.image.shape[0], 1, 1, 1), minval=0.8))

EXPERIMENT = mj.Experiment("everything", dataset=load, augment=brighten, optimizer=optax.adamw(3e-3))

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with my_lab/ in it, and the unpacked wheel, which comes before the checkout on Python's path."""
    folder = tmp_path_factory.mktemp("elsewhere")
    source = folder / "source"
    shutil.copytree(ROOT / "mnist_jax", source / "mnist_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, source]
    subprocess.run(words, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    (folder / "my_lab").mkdir()
    (folder / "my_lab" / "maxout.py").write_text(MAXOUT)
    (folder / "my_lab" / "flags.py").write_text(FLAGS)
    (folder / "my_lab" / "everything.py").write_text(EVERYTHING)
    readme = (ROOT / "README.md").read_text()
    (folder / "my_lab" / "readme.py").write_text(re.search(r"```py\n(.*?)```", readme, re.DOTALL)[1])
    (folder / "experiments").mkdir()  # a folder of the user's own with our folder's name
    (folder / "experiments" / "__init__.py").write_text("")
    return folder


def python(lab, *words):
    env = os.environ | {"PYTHONPATH": str(lab / "site")}
    return run_python(*words, cwd=lab, env=env)


def test_the_wheel_holds_the_library_alone(lab):
    assert {path.name.partition("-")[0] for path in (lab / "site").iterdir()} == {"mnist_jax"}
    assert (lab / "site" / "mnist_jax" / "py.typed").exists()
    done = python(lab, "-c", "import mnist_jax, os; print(os.path.dirname(mnist_jax.__file__))")
    assert done.stdout.strip() == str(lab / "site" / "mnist_jax")
    listed = python(lab, "-m", "mnist_jax").stdout
    assert "evaluate" in listed and "predict" in listed and "deep_cnn" not in listed


@pytest.fixture(scope="module")
def maxout(lab):
    words = ("-m", "my_lab.maxout", "--learning_rate=3e-3", "--num_seeds=2", "--plots", "--workdir=runs/maxout")
    done = python(lab, *words)
    assert done.returncode == 0, done.stderr
    assert "val_top5" in done.stderr and "epoch 2/2" in done.stderr
    return lab / "runs" / "maxout"


def test_it_gets_results_plots_and_exact_resume(lab, maxout):
    result = json.loads((maxout / "result.json").read_text())
    assert set(result["summary"]["test"]) == {"loss", "top5"} and result["summary"]["test"]["top5"]["n"] == 2
    assert result["parts"] == ["loss", "metrics", "model"] and result["config"]["learning_rate"] == 3e-3
    assert {path.name for path in maxout.glob("*.png")} >= {"learning_curves.png", "confusion.png", "mistakes.png"}
    unfinished = shutil.copytree(maxout, lab / "runs" / "unfinished")
    (unfinished / "result.json").unlink()
    shutil.rmtree(unfinished / "state")
    shutil.rmtree(unfinished / "checkpoints" / "seed-8")
    shutil.rmtree(unfinished / "checkpoints" / "seed-7" / "36")
    words = ("-m", "my_lab.maxout", "--learning_rate=3e-3", "--num_seeds=2", "--workdir=runs/unfinished")
    done = python(lab, *words)
    assert "seed 7: resuming from step 18" in done.stderr, done.stderr
    assert (unfinished / "metrics.jsonl").read_bytes() == (maxout / "metrics.jsonl").read_bytes()
    assert json.loads((unfinished / "result.json").read_text())["runs"] == result["runs"]


def test_commands_find_it_again_by_the_module_that_the_user_names(lab, maxout):
    done = python(
        lab, "-m", "mnist_jax", "evaluate", "--experiment=my_lab.maxout", f"--workdir={maxout}", "--run_seed=8"
    )
    assert done.returncode == 0, done.stderr
    (evaluation,) = lab.glob("runs/evaluate-maxout-mnist5k-test-*/evaluation.json")
    scores = json.loads(evaluation.read_text())
    own = json.loads((maxout / "result.json").read_text())["runs"][1]["test"]
    assert scores["top5"] == own["top5"] and scores["loss"] == pytest.approx(own["loss"])
    digit = mj.load_dataset("mnist5k").test_images[700, :, :, 0]
    Image.fromarray(255 - np.kron(digit, np.ones((8, 8), np.uint8))).save(lab / "seven.png")
    words = ("predict", "--experiment=my_lab.maxout", f"--workdir={maxout}", "--json", lab / "seven.png")
    assert json.loads(python(lab, "-m", "mnist_jax", *words).stdout)["prediction"] == "7"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "parts or fields of its own (loss, metrics, model); name the module that defines it with --experiment="),
        (("--experiment=my_lab.nothing",), "--experiment=my_lab.nothing: there is no such module"),
        (("--experiment=json",), "--experiment=json: defines no EXPERIMENT"),
    ],
)
def test_a_command_that_cannot_find_it_says_so_in_one_line(lab, maxout, words, message):
    done = python(lab, "-m", "mnist_jax", "evaluate", f"--workdir={maxout}", *words)
    assert done.returncode in (1, 2) and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_flags_without_effect_are_refused_and_not_listed(lab):
    done = python(lab, "-m", "my_lab.maxout", "--hidden_sizes=10")
    assert done.returncode == 2 and "hidden_sizes" in done.stderr and len(done.stderr.splitlines()) == 1
    listed = python(lab, "-m", "my_lab.maxout", "--help").stdout
    assert "--learning_rate:" in listed and "--hidden_sizes:" not in listed and "--label_smoothing:" not in listed


def test_a_flag_of_ones_own_reaches_the_parts(lab):
    assert "--gamma: focusing parameter (default: 2.0)" in python(lab, "-m", "my_lab.flags", "--help").stdout
    losses = []
    for gamma in ("0", "3"):
        workdir = f"runs/gamma{gamma}"
        done = python(lab, "-m", "my_lab.flags", f"--gamma={gamma}", "--quiet", f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
        result = json.loads((lab / workdir / "result.json").read_text())
        assert result["config"]["gamma"] == float(gamma)
        losses.append(result["summary"]["test"]["loss"]["mean"])
    assert losses[0] > losses[1]
    done = python(lab, "-m", "my_lab.flags", "--gamma=-1")
    assert done.returncode == 2 and done.stderr == "error: --gamma=-1.0: must be at least 0\n"


def test_a_dataset_an_augmentation_and_an_optimizer_of_ones_own(lab):
    words = ("--batch_size=100", "--epochs=6", "--hidden_sizes=64", "--quiet", "--workdir=runs/everything")
    done = python(lab, "-m", "my_lab.everything", *words)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"Error: ([\d.]+)%", done.stdout)[1]) < 15
    words = ("--experiment=my_lab.everything", "--workdir=runs/everything", "--split=validation")
    done = python(lab, "-m", "mnist_jax", "evaluate", *words)
    assert done.returncode == 0 and "100 images of custom" in done.stdout, done.stderr
    done = python(lab, "-m", "my_lab.everything", "--learning_rate=1")
    assert done.returncode == 2 and "learning_rate" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_readmes_experiment_of_ones_own(lab):
    words = ("--dataset=mnist5k", "--epochs=1", "--quiet", "--summary", "--workdir=runs/readme")
    done = python(lab, "-m", "my_lab.readme", *words)
    assert done.returncode == 0 and "Total Parameters" in done.stdout, done.stderr
    done = python(lab, "-m", "mnist_jax", "evaluate", "--experiment=my_lab.readme", "--workdir=runs/readme")
    assert done.returncode == 0 and "top_3_accuracy 0." in done.stdout, done.stderr
    done = python(lab, "-m", "mnist_jax", "evaluate", "--workdir=runs/readme")
    assert "parts or fields of its own" in done.stderr and len(done.stderr.splitlines()) == 1


def test_from_python_without_flags(tmp_path, folder):
    experiment = mj.Experiment("mine", dataset=f"idx:{folder}", hidden_sizes=(16,), batch_size=90, epochs=1)
    result = mj.run(experiment, tmp_path / "run", num_seeds=2, quiet=True)
    assert result.summary["test"]["accuracy"]["n"] == 2
    run = mj.load_run(tmp_path / "run")
    (first, *_), test_images = run.predict(folder / "t10k-images-idx3-ubyte.gz"), experiment.splits["test"][0]
    assert first.label == str(run.logits(test_images)[0].argmax()) and 0.1 < first.probability <= 1


def test_a_dataset_of_floats_and_soft_labels(tmp_path, small):
    images = {name: small[f"{name}_images"].astype(np.float32) / 255 for name in ("train", "test")}
    labels = {name: np.eye(10, dtype=np.float32)[small[f"{name}_labels"]] for name in ("train", "test")}
    names = tuple("0123456789")
    data = mj.make_dataset(images["train"], labels["train"], images["test"], labels["test"], names, "floats")
    fields = dict(hidden_sizes=(16,), batch_size=90, epochs=2, loss="categorical_crossentropy")
    floats = mj.run(mj.Experiment("floats", dataset=lambda: data, **fields), tmp_path / "a", quiet=True, plots=True)
    ints = mj.make_dataset(**small, class_names=names)
    same = mj.run(mj.Experiment("ints", dataset=ints, **fields), tmp_path / "b", quiet=True)
    accuracies = [result.summary["test"]["accuracy"]["mean"] for result in (floats, same)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.02) and (tmp_path / "a" / "confusion.png").exists()
    with pytest.raises(DataError, match=r"parts or fields of its own \(dataset\)"):
        mj.load_run(tmp_path / "a")
    assert mj.load_run(tmp_path / "a", mj.Experiment("floats", dataset=lambda: data)).logits(images["test"]).shape == (
        130,
        10,
    )


def test_hooks_see_each_epoch(tmp_path, folder):
    seen = []
    experiment = mj.Experiment(dataset=f"idx:{folder}", hidden_sizes=(8,), batch_size=90, epochs=3)
    mj.run(
        experiment, tmp_path, quiet=True, hooks=[lambda run: run.is_epoch_end and seen.append(run.records[-1]["epoch"])]
    )
    assert seen == [1, 2, 3]


def test_the_average_is_trained_scored_saved_and_restored(tmp_path, folder):
    fields = dict(dataset=f"idx:{folder}", hidden_sizes=(16,), batch_size=90, epochs=2, ema_decay=0.9)
    scores = {}
    for use_ema in (True, False):
        result = mj.run(mj.Experiment(**fields, use_ema=use_ema), tmp_path / str(use_ema), quiet=True)
        scores[use_ema] = result.summary["test"]["loss"]["mean"]
    assert scores[True] != scores[False]
    run = mj.load_run(tmp_path / "True")
    averaged = run.components.predict(run.state, run.experiment.splits["test"][0])
    last = run.components.predict(run.state._replace(ema_params=None), run.experiment.splits["test"][0])
    assert float(jnp.abs(averaged - last).max()) > 1e-4


def test_unknown_parts_and_fields_are_refused():
    with pytest.raises(ConfigError, match="'epocks' is no field of the configuration; did you mean 'epochs'"):
        mj.Experiment("mine", epocks=5)
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        mj.run(mj.Experiment(dataset="mnist5k"), "nowhere", epocks=5)
    with pytest.raises(
        ConfigError, match="learning_rate: has no effect, since this experiment brings its own optimizer"
    ):
        mj.Experiment(optimizer=optax.sgd(0.1), learning_rate=0.5)
    with pytest.raises(ConfigError, match="did you mean 'perceptron'"):
        mj.Experiment(model="perceptorn", dataset="mnist5k").build()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"loss": 3}, "loss: must be a function, is a int"),
        ({"augment": "affine"}, "augment: must be a function, is a str"),
        ({"metrics": {"top": 5}}, "metrics: must be a dict from names to functions"),
        ({"optimizer": optax.adam}, "optimizer: must be an optax optimizer"),
        ({"model": 5}, "model: a int is neither a Linen module"),
        ({"parts": lambda config: {"modle": 1}}, "'modle' is no part of an experiment; did you mean 'model'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_part_of_the_wrong_kind_is_named(parts, message):
    with pytest.raises(ArgumentError, match=message):
        mj.Experiment(dataset="mnist5k", **parts).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.full(6, 3)}, "train_labels: must be from 0 to 2, for 3 class names; they are from 3 to 3"),
        ({"test_labels": np.array([0, -1])}, "test_labels: must be from 0"),
        ({"train_images": np.zeros((6, 4, 4), np.int32)}, "train_images: must be .* uint8 or float; got int32"),
        ({"train_images": np.zeros((6, 4), np.uint8)}, r"got uint8 of shape \(6, 4\)"),
        ({"test_images": np.zeros((2, 4, 5), np.uint8)}, "test_images: differ in size"),
        ({"test_labels": np.array([0])}, "test_labels: 1 labels for 2 images"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_arrays_that_make_no_dataset_are_refused(change, message):
    arrays = dict(
        train_images=np.zeros((6, 4, 4), np.uint8),
        train_labels=np.arange(6) % 3,
        test_images=np.zeros((2, 4, 4), np.uint8),
        test_labels=np.array([0, 2]),
    )
    with pytest.raises(ArgumentError, match=message):
        mj.make_dataset(**arrays | change, class_names=("a", "b", "c"))


def test_a_model_with_too_few_outputs_and_a_dataset_of_another_type_are_refused(tmp_path, folder):
    fields = dict(dataset=f"idx:{folder}", batch_size=90, epochs=1)
    with pytest.raises(ArgumentError, match="model: has 5 outputs, but the labels go up to 9"):
        mj.run(
            mj.Experiment(model=nn.Sequential([lambda x: x.reshape(x.shape[0], -1), nn.Dense(5)]), **fields), tmp_path
        )
    with pytest.raises(ArgumentError, match="dataset: must be a Dataset, as make_dataset returns, is a dict"):
        mj.run(mj.Experiment(dataset=lambda: {"train": 1}), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_state_with_keys_of_its_own_is_checkpointed_while_training_goes_on(tmp_path, folder):
    noise = optax.add_noise(0.01, 0.5, key=jax.random.key(3))
    optimizer = optax.chain(noise, optax.sgd(0.1))
    experiment = mj.Experiment(optimizer=optimizer, dataset=f"idx:{folder}", hidden_sizes=(8,), batch_size=90, epochs=1)
    result = mj.run(experiment, tmp_path, quiet=True, checkpoint_every=1)
    assert result.record["parts"] == ["optimizer"]
    with pytest.raises(DataError, match="is a run of 'custom', not of 'other'"):
        mj.load_run(tmp_path, mj.Experiment("other", optimizer=optimizer))
    with pytest.raises(DataError, match="was made with parts of its own"):
        mj.load_run(tmp_path, mj.Experiment())


def test_a_configuration_survives_json():
    config = mj.Experiment("mine", hidden_sizes=(3, 4), optimizer="adam:b1=0.5", metrics=("top_5_accuracy",)).config
    from mnist_jax.config import config_from_dict

    assert config_from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", mark_slow(EXAMPLES, fast=["ema", "per_example_gradients"]))
def test_an_example_runs_and_is_short(tmp_path, name):
    path = ROOT / "examples" / f"{name}.py"
    source = path.read_text()
    assert len(source.splitlines()) <= 40 and ast.get_docstring(ast.parse(source))
    words = [f"--workdir={tmp_path}", "--quiet"] if "mj.main(" in source else []
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = run_python(path, *words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    error = re.search(r"Error: ([\d.]+)%", done.stdout)
    accuracies = [
        float(number)
        for found in re.findall(r"accuracy'?:? ([\d.]+)|top_5'?: ([\d.]+)", done.stdout)
        for number in found
        if number
    ]
    best = 1 - float(error[1]) / 100 if error else max(accuracies)
    assert best > 0.75, done.stdout
