"""A network learns from finished runs, and is read back without them."""

import os
import shutil

import numpy as np
import pytest
from conftest import command, error_line, write_folder

from mnist_jax import DistilledConfig, Experiment, distill, load_ensemble, load_run, run

FLAGS = ("--epochs=1", "--filters=4,8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small):
    return write_folder(tmp_path_factory.mktemp("data"), small)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, folder):
    workdir = tmp_path_factory.mktemp("teacher") / "run"
    run(Experiment(hidden_sizes=(32,), dataset=f"idx:{folder}", epochs=8), workdir, quiet=True, num_seeds=2)
    return workdir


def test_a_student_comes_to_agree_with_its_teacher_whatever_the_labels(tmp_path, teacher, small):
    labels = np.random.RandomState(0).permutation(small["train_labels"])
    experiment = Experiment(
        "student",
        dataset=f"idx:{write_folder(tmp_path / 'shuffled', small | {'train_labels': labels})}",
        hidden_sizes=(32,),
        loss="categorical_crossentropy",
        batch_size=50,
        epochs=12,
        parts=distill,
        config=DistilledConfig(teacher=(str(teacher),)),
    )
    run(experiment, tmp_path / "student", quiet=True)
    images = small["test_images"][..., None]
    agreement = load_run(tmp_path / "student", experiment).logits(images).argmax(-1)
    assert np.mean(agreement == load_ensemble([teacher]).logits(images).argmax(-1)) > 0.8


@pytest.mark.slow
def test_a_student_is_trained_on_several_devices_and_read_back_without_its_teacher(
    tmp_path, folder, teacher, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2")
    shutil.copytree(teacher, tmp_path / "teacher")
    flags = (*FLAGS, f"--dataset=idx:{folder}", f"--workdir={tmp_path / 'student'}")
    taught = command(*flags, "--mesh=data:2", f"--teacher={tmp_path / 'teacher'}", experiment="deep_cnn_distilled")
    assert taught.returncode == 0, taught.stderr
    shutil.rmtree(tmp_path / "teacher")
    read = command(
        f"--workdir={tmp_path / 'student'}",
        "--experiment=deep_cnn_distilled",
        f"--dataset=idx:{folder}",
        experiment="evaluate",
    )
    assert read.returncode == 0 and "accuracy" in read.stdout, read.stderr


def test_a_teacher_that_cannot_teach_is_one_line(tmp_path, folder, teacher):
    run(Experiment(dataset="digits", hidden_sizes=(8,), epochs=0), tmp_path / "digits", quiet=True)
    for flag, message in (
        ("--quiet", "--teacher=: name the workdirs of finished runs"),
        (f"--teacher={tmp_path / 'none'}", f"--teacher={tmp_path / 'none'}: no such folder"),
        (f"--teacher={tmp_path / 'digits'}", "reads images (8, 8, 1), these are (28, 28, 1)"),
        (f"--teacher={teacher},{tmp_path / 'digits'}", "differs from"),
        (f"--teacher={teacher} --loss=sparse_categorical_crossentropy", "use --loss=categorical_crossentropy"),
    ):
        flags = (*FLAGS, f"--dataset=idx:{folder}", f"--workdir={tmp_path / 'student'}", *flag.split())
        process = command(*flags, experiment="deep_cnn_distilled")
        assert process.returncode != 0 and message in error_line(process.stderr), process.stderr
        assert not (tmp_path / "student").exists()
