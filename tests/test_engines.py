"""Which engine is chosen; worker processes that die; several devices."""

import os
import signal

import jax
import numpy as np
import pytest
from launch import ROOT, run_python

from mnist_jax.errors import ConfigError
from mnist_jax.experiment import Experiment
from mnist_jax.sweeps import engines
from mnist_jax.sweeps.chunk import Chunk, DataShape, Outcome
from mnist_jax.sweeps.engines import Computer, Plan
from mnist_jax.sweeps.executor import Executor
from mnist_jax.sweeps.workers import WorkerDiedError, start_workers, train_chunks


@pytest.fixture(scope="module")
def experiment(folder):
    return Experiment("tiny", hidden_sizes=(12,), dataset=f"idx:{folder}", batch_size=70, epochs=200)


@pytest.fixture(scope="module")
def shape(experiment):
    return DataShape(10, jax.ShapeDtypeStruct(experiment.image_shape, np.uint8))


def test_chunks_are_divided_so_that_no_lane_is_idle_at_the_end():
    plan = Plan("vmap", 2, {4: 0.13, 8: 0.24}, "")
    assert plan.divide(8, 5) == [(4, 8), (1, 4)] and plan.epoch(8, 5) == pytest.approx(2 * 0.24 + 0.13)
    assert Plan("serial", 0, {1: 1.0}, "").divide(8, 5) == [(5, 1)]
    assert Plan("vmap", 0, {1: 1.0, 8: 2.0}, "").divide(3, 1) == [(1, 8)]  # a part of it twice is faster than 3 in turn


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({(1, 1): 0.001}, ("vmap", 0, "too little")),
        ({(1, 1): 1.0, (1, 8): 0.05}, ("vmap", 0, "160.0 times")),
        ({(1, 1): 1.0, (1, 8): 9.0, (2, 8): 9.0, (2, 4): 3.0, (2, 2): 2.0}, ("vmap", 2, "2.7 times")),
        ({(1, 1): 1.0, (2, 1): 1.0}, ("vmap", 2, "2.0 times")),
        ({(1, 1): 1.0, (1, 8): 9.0, (2, 8): 18.0, (2, 4): 9.0}, ("serial", 0, "nothing is faster")),
    ],
    ids=["little work", "one process", "two processes", "too large", "in turn"],
)
def test_auto_weighs_what_it_measures(experiment, shape, monkeypatch, seconds, chosen):
    monkeypatch.setattr(engines.os, "cpu_count", lambda: 2)
    computer = Computer(experiment, experiment.splits, shape, jax.devices()[:1], caches=False)

    def measure(lanes, config, traced, width):
        if (len(lanes), width) not in seconds:
            raise ConfigError("batch_size=70: an epoch needs 900 GiB of memory")
        return seconds[len(lanes), width]

    monkeypatch.setattr(computer, "_measure", measure)
    computer.choose("auto", experiment.config, ["learning_rate"], num_points=8, num_seeds=2)
    name, processes, reason = chosen
    assert (computer.plan.name, computer.plan.processes) == (name, processes) and reason in computer.plan.reason
    assert (len(computer.lanes) == 2) == (processes == 2)


def test_a_worker_process_that_is_killed_is_replaced_and_trains_the_bits_of_a_run_alone(experiment, shape):
    chunk = Chunk(config=experiment.config, seeds=(7,), hparams={"learning_rate": (1e-3,)}, end_epoch=200)
    [worker] = start_workers(experiment, experiment.splits, shape, 1, is_exact=True, caches=False)
    killed, outcomes = [], []

    def kill(number, epoch):
        if epoch == 1 and not killed:
            killed.append(epoch)
            os.kill(worker.process.pid, signal.SIGKILL)

    try:
        train_chunks([worker], [chunk], lambda number, outcome: outcomes.extend(outcome), kill)
    finally:
        worker.close()
    [expected] = Executor(experiment, experiment.splits, shape, jax.devices()[0]).run(chunk)
    assert [one.records for one in outcomes] == [expected.records] and killed and not outcomes[0].error


def test_a_worker_process_whose_parent_has_ended_leaves_quietly(experiment, shape, capfd):
    chunk = Chunk(config=experiment.config, seeds=(7,), hparams={"learning_rate": (1e-3,)}, end_epoch=200)
    [worker] = start_workers(experiment, experiment.splits, shape, 1, is_exact=False, caches=False)
    conn = worker._start()
    conn.send(("run", (chunk,)))
    assert conn.recv() == ("epoch", 1)
    conn.close()
    worker.process.join(timeout=60)
    assert worker.process.exitcode == 0 and capfd.readouterr().err == ""


def test_what_a_lane_raises_is_the_reason_of_its_runs(experiment):
    """A process that dies twice is given up; a chunk that does not fit into memory is trained in halves."""

    class Lane:
        def run(self, chunk, on_epoch):
            if chunk.seeds == (1,):
                raise WorkerDiedError("the worker process was killed by SIGKILL")
            if chunk.width > 1:
                raise ConfigError("batch_size=70: an epoch needs 900 GiB of memory")
            return [Outcome(2, [{"epoch": 1, "rate": chunk.hparams["learning_rate"][0]}], 0.0, "", None)]

    chunks = [
        Chunk(config=experiment.config, seeds=(seed,), hparams={"learning_rate": (0.1, 0.2, 0.3)}, end_epoch=1)
        for seed in (1, 2)
    ]
    found = {}
    train_chunks([Lane()], chunks, found.__setitem__, lambda number, epoch: None)
    assert [one.error for one in found[0]] == ["the worker process was killed by SIGKILL"] * 3
    assert [one.records[0]["rate"] for one in found[1]] == [0.1, 0.2, 0.3]


DEVICES = """
import sys, mnist_jax as mj
from mnist_jax.sweeps.executor import Executor
used, run = set(), Executor.run
def watch(self, *args):
    used.add(self.device.id)
    return run(self, *args)
Executor.run = watch
experiment = mj.Experiment("tiny", hidden_sizes=(12,), dataset=f"idx:{sys.argv[1]}", batch_size=70, epochs=3)
rates = {"learning_rate": [1e-3, 1e-2]}
result = mj.sweep(experiment, sys.argv[2], grid=rates, seeds=2, engine="serial", test_seeds=0, quiet=True)
print(len(used), [row.scores for row in result.rows])
"""


def test_several_devices_divide_the_chunks(folder, tmp_path):
    def start(count):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
        env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
        done = run_python("-c", DEVICES, folder, tmp_path / str(count), env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.split(maxsplit=1)

    (one, expected), (two, scores) = start(1), start(2)
    assert (one, two) == ("1", "2") and scores == expected
