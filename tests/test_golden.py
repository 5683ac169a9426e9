"""Losses of the first steps of each result against those that it was earned with, so that no claim goes stale."""

import functools
import importlib
import json
import sys

import jax
import pytest
from conftest import ROOT, mark_slow

sys.path.insert(0, str(ROOT / "results"))
add = importlib.import_module("add")


@functools.cache
def first_losses(config):
    return add.first_losses(json.loads(config))


@functools.cache
def count_parameters(config):
    state = jax.eval_shape(add.build(json.loads(config)).init, jax.random.key(7))
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def encode_training(record):
    """Its configuration but for the images and the seeds, so that what these share is computed once."""
    elsewhere = {"dataset", "resplit", "image_size", "validation_fraction", "validation_rows", "seed", "num_seeds"}
    return json.dumps({field: value for field, value in record["config"].items() if field not in elsewhere})


RECORDS = {path.relative_to(add.FOLDER).as_posix(): json.loads(path.read_text()) for path in add.result_files()}
DEEP = {name for name, record in RECORDS.items() if record["config"]["model"] == "deep_cnn"}


@pytest.mark.parametrize("name", mark_slow(RECORDS, fast=RECORDS.keys() - DEEP | {"deep_cnn.json"}))
def test_todays_code_trains_as_the_one_that_earned_the_result(name):
    record = RECORDS[name]
    losses = first_losses(encode_training(record))
    assert add.agrees(record, losses), (
        f"{name} was earned by other numbers: the recipe, the initializer, the order of the images, a "
        "random draw or an operation was changed. If that is intended, train it again, python results/add.py WORKDIR "
        f"{name.removesuffix('.json')}, python results/table.py, and note it in the changelog. If not, it is a bug."
    )


@pytest.mark.parametrize("name", RECORDS)
def test_todays_network_has_as_many_parameters_as_the_one_that_earned_the_result(name):
    assert count_parameters(encode_training(RECORDS[name])) == RECORDS[name]["parameters"]


def test_results_in_bfloat16_have_a_fingerprint_of_their_own():
    fingerprints = {name: tuple(record[add.FINGERPRINT]) for name, record in RECORDS.items()}
    for name in (name for name in RECORDS if name.startswith("bfloat16/")):
        assert list(fingerprints.values()).count(fingerprints[name]) == 1, name


def test_further_seeds_do_not_join_a_result_that_todays_code_does_not_train(tmp_path, monkeypatch):
    record = RECORDS["softmax.json"]
    stale = record | {add.FINGERPRINT: [1.001 * loss for loss in record[add.FINGERPRINT]]}
    monkeypatch.setattr(add, "FOLDER", tmp_path)
    (tmp_path / "stale.json").write_text(json.dumps(stale))
    with pytest.raises(SystemExit, match="train the published seeds again"):
        add.main(f"{tmp_path}/stale.json", "softmax")
    assert not (tmp_path / "softmax.json").exists()


def test_results_merge_where_they_differ_in_their_seeds_alone():
    whole = RECORDS["deep_cnn.json"] | {"commit": "1" * 40}
    sizes, start = (4, len(whole["runs"]) - 4), 0
    parts = []
    for size in sizes:
        config = whole["config"] | {"seed": whole["config"]["seed"] + start, "num_seeds": size}
        seconds = {name: value[:1] if isinstance(value, list) else 1.0 for name, value in whole["seconds"].items()}
        parts.append(whole | {"config": config, "runs": whole["runs"][start : start + size], "seconds": seconds})
        start += size
    merged = add.merge(parts)
    assert {name: merged[name] for name in ("config", "runs", "summary")} == {
        name: whole[name] for name in ("config", "runs", "summary")
    }
    assert merged["seconds"]["total"] == 2.0 and len(merged["seconds"]["epochs"]) == 2
    parts[1]["commit"] = "0" * 40
    assert add.merge(parts)["commit"] == f"{whole['commit']}, {parts[1]['commit']}"
    parts = [{name: value for name, value in part.items() if name != add.FINGERPRINT} for part in parts]
    with pytest.raises(SystemExit, match=r"commit: \w+ is not 0{40}; merge results of the same code"):
        add.merge(parts)
    parts[1] = parts[1] | {"commit": whole["commit"], "config": parts[1]["config"] | {"dropout": 0.5}}
    with pytest.raises(SystemExit, match="more than their seeds"):
        add.merge(parts)
    with pytest.raises(SystemExit, match="do not follow each other"):
        add.merge([whole, whole])
