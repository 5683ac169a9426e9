"""Flags: what --help lists, and what a wrong flag is answered with."""

import importlib
import re
import subprocess
import sys

import pytest
from conftest import ROOT, command

from mnist_jax.cli import TrainFlags
from mnist_jax.config import Config
from mnist_jax.errors import ConfigError
from mnist_jax.fields import flags_of
from mnist_jax.flags import HEADINGS, _table_names, define_flags, explicit_values, parse_flags
from mnist_jax.models import MODELS

TABLES = {
    name: re.search(r"(mnist_jax\.\w+)\.([A-Z]+)", flag.help).groups()
    for name, flag in flags_of(Config).items()
    if "mnist_jax." in flag.help
}


def test_the_fields_that_take_names_say_of_which_table():
    expected = {"dataset", "model", "activation", "kernel_init", "augmentations", "loss", "metrics", "optimizer"}
    assert TABLES.keys() == expected | {"schedule"}


def test_names_are_read_from_the_source_without_importing_it():
    script = f"""
import sys
from mnist_jax.flags import _table_names
print([_table_names(*table) for table in {[*TABLES.values()]}], "jax" in sys.modules)
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    names = [list(getattr(importlib.import_module(module), table)) for module, table in TABLES.values()]
    assert process.stdout.strip() == f"{names} False", process.stderr
    assert [_table_names(*table) for table in TABLES.values()] == names


@pytest.mark.parametrize("model", MODELS)
def test_a_field_is_hidden_exactly_where_the_model_does_not_read_it(model):
    read = set()

    class Recorder:
        def __getattr__(self, name):
            read.add(name)
            return getattr(Config(model=model), name)

    MODELS[model](Recorder(), 10)
    of_network = {name for name, flag in flags_of(Config).items() if flag.group == "model" and name != "model"}
    assert read == {name for name in of_network if model not in flags_of(Config)[name].unused_by}


def test_help_is_in_groups_fits_the_terminal_and_has_only_what_the_network_uses(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = command("--help").stdout
    headings = re.findall(r"^Flags: (\w+)$", text, re.MULTILINE)
    assert (
        headings == [heading for group, heading in HEADINGS.items() if group != "sweep"]
        and max(map(len, text.splitlines()[6:])) <= 80
    )
    assert "--hidden_sizes: " in text and "--filters: " not in text and "6 flags of other networks" in text
    assert "adamax" in text and "squared_hinge" in text and "one_cycle" in text
    text = command("--model=cnn", "--help").stdout
    assert "--filters: " in text and "--cell: " not in text


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--lr=1", "--lr: there is no such flag; did you mean --learning_rate?"),
        ("--batch-size=3", "did you mean --batch_size?"),
        ("--Epochs=3", "did you mean --epochs?"),
        ("--no-quiet", "did you mean --quiet?"),
        ("--learning_rat=3", "did you mean --learning_rate?"),
        ("--xyzzy=3", r"^--xyzzy: there is no such flag; --help lists the flags$"),
        ("--epochs=1e1", "epochs='1e1': must be a whole number, such as 10"),
        ("--epochs=10.0", "must be a whole number, such as 10"),
        ("--epochs=", "must be a whole number"),
        ("--epochs", "--epochs: needs a value, as in --epochs=10"),
        ("--learning_rate=fast", "learning_rate='fast': must be a number"),
        ("--plots=maybe", "^--plots=maybe: must be true or false"),
        ("--hidden_sizes=12,x", "hidden_sizes=12,x: each item of a list must be a whole number"),
    ],
)
def test_a_wrong_flag_is_one_clear_sentence(monkeypatch, argument, message):
    values, _ = define_flags((Config(), TrainFlags()))
    monkeypatch.setattr(sys, "argv", ["program", argument])
    with pytest.raises(ConfigError, match=message):
        parse_flags(values)
        Config(**explicit_values(values, Config()))


def test_values_keep_their_types(monkeypatch):
    values, _ = define_flags((Config(), TrainFlags()))
    given = ["--hidden_sizes=12, 16,,", "--epochs=3", "--l1=1e-4", "--nofrom_logits", "--metrics=", "--seed=0"]
    monkeypatch.setattr(sys, "argv", ["program", *given, "rest"])
    assert parse_flags(values) == ["rest"]
    expected = dict(hidden_sizes=(12, 16), epochs=3, l1=1e-4, from_logits=False, metrics=(), seed=0)
    assert explicit_values(values, Config()) == expected


@pytest.mark.parametrize(
    ("dataset", "message"),
    [("MNIST", "did you mean 'mnist'"), ("Fashion-MNIST", "did you mean 'fashion_mnist'"), ("tests", "idx:tests")],
)
def test_a_data_set_that_is_meant_is_suggested(dataset, message):
    from mnist_jax.datasets import load_dataset

    with pytest.raises(ConfigError, match=message):
        load_dataset(dataset)
