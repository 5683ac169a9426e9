"""Trains chunks of runs on one device: runs of the same program and seed, mapped over their hyperparameters.

Inside a chunk, the map is around the train step and not around the epoch: the batch, its augmentation and the dropout
masks are those of one run, whatever the number of runs.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.batches import num_batches
from mnist_jax.config import Config, Hyperparams
from mnist_jax.devices import check_memory
from mnist_jax.evaluation import evaluate
from mnist_jax.experiment import Components, Experiment
from mnist_jax.loop import should_stop
from mnist_jax.metrics import compute, sum_over_steps
from mnist_jax.sweeps.chunk import Chunk, DataShape, Outcome, Splits, count_runs, why_not_finite
from mnist_jax.train import train_epoch
from mnist_jax.types import Array, Metrics, PyTree, Record, TrainState

# One run's arrays have these axes in a chunk. All runs are at the same step; those of one seed have one key.
_BY_RUN = TrainState(None, 0, 0, 0, None, 0)  # type: ignore[arg-type]
_BY_SEED = TrainState(None, 0, 0, 0, 0, 0)  # type: ignore[arg-type]


def _transpose_kernels(tree: PyTree) -> PyTree:
    """Swaps the axes of matrices: of many kernels [units, inputs], XLA's CPU matmul needs no transposed copy."""
    return jax.tree.map(lambda leaf: leaf.T if leaf.ndim == 2 else leaf, tree)


def _repack(state: TrainState) -> TrainState:
    """Changes between a state's usual layout and that of a chunk; it is its own inverse."""
    params, opt_state, ema_params = map(_transpose_kernels, (state.params, state.opt_state, state.ema_params))
    return state._replace(params=params, opt_state=opt_state, ema_params=ema_params)


def _is_finite(state: TrainState) -> jax.Array:
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]
    return functools.reduce(jnp.logical_and, leaves, jnp.array(True))


class Executor:
    """Trains chunks on one device. Each program is compiled once, for each number of runs that it is used with."""

    def __init__(self, experiment: Experiment, splits: Splits, shape: DataShape, device: jax.Device):
        """Copies the data to the device.

        Args:
          experiment: what to run; only its parts are used, not its data.
          splits: "train" and "validation". There is no other, so that nothing here can see a test image.
          shape: of the data.
          device: where to compute.
        """
        self.experiment, self.shape, self.device = experiment, shape, device
        self.splits = {name: jax.device_put(splits[name], device) for name in ("train", "validation")}
        self._programs: dict[Any, dict[Any, Any]] = {}

    def steps_per_epoch(self, config: Config) -> int:
        """Updates in an epoch."""
        return num_batches(self.splits["train"][1].shape[0], config.batch_size)

    def _parts(self, config: Config, hparams: Hyperparams | None) -> Components:
        experiment = self.experiment.with_config(config)
        steps = config.epochs * self.steps_per_epoch(config)
        return experiment.build(
            hparams or None, steps=steps, num_classes=self.shape.num_classes, image=self.shape.image
        )

    def _functions(self, config: Config, width: int) -> dict[str, Callable[..., Any]]:
        """Init, epoch, score and check of `width` runs of one seed."""
        is_packed = width > 1 and self.device.platform == "cpu"
        repack = _repack if is_packed else lambda state: state

        def over_runs(step: Callable[..., Any], in_axes: Any, out_axes: Any) -> Callable[..., Any]:
            return jax.vmap(step, in_axes=in_axes, out_axes=out_axes) if width > 1 else step

        def init(key: jax.Array, hparams: Hyperparams) -> TrainState:
            return over_runs(lambda h: repack(self._parts(config, h).init(key)), (0,), _BY_RUN)(hparams)

        def epoch(
            state: TrainState, hparams: Hyperparams, images: Array, labels: Array, start: jax.Array, end: jax.Array
        ) -> tuple[TrainState, Metrics]:
            def step(state: TrainState, hparams: Hyperparams, batch: Any) -> tuple[TrainState, Metrics]:
                state, metrics = self._parts(config, hparams).train_step(repack(state), batch)
                return repack(state), metrics

            mapped = over_runs(step, (_BY_RUN, 0, None), (_BY_RUN, 0))
            bound = lambda state, batch: mapped(state, hparams, batch)  # noqa: E731
            return train_epoch(bound, state, images, labels, start, end, batch_size=config.batch_size)

        def score(state: TrainState, hparams: Hyperparams, images: Array, labels: Array) -> Metrics:
            def step(state: TrainState, hparams: Hyperparams, batch: Any) -> Metrics:
                return self._parts(config, hparams).eval_step(repack(state), batch)

            mapped = over_runs(step, (_BY_RUN, 0, None), 0)
            return evaluate(lambda state, batch: mapped(state, hparams, batch), state, images, labels)

        check = over_runs(_is_finite, (_BY_RUN,), 0)
        as_usual = over_runs(repack, (_BY_RUN,), _BY_RUN)
        return {"init": init, "epoch": epoch, "score": score, "check": check, "repack": as_usual}

    def programs(self, config: Config, width: int, num_seeds: int) -> dict[Any, Any]:
        """Returns the compiled functions of a chunk's shape.

        Args:
          config: what the runs have in common.
          width: runs of each seed.
          num_seeds: seeds in one program; more than one maps over their keys too.

        Raises:
          ConfigError: an epoch does not fit into memory; when it is first called.
        """
        key = (config, width, num_seeds)
        if key not in self._programs:
            functions = self._functions(config, width)
            if num_seeds > 1:
                axes = {
                    "init": ((0, None), _BY_SEED),
                    "epoch": ((_BY_SEED, None, None, None, None, None), (_BY_SEED, 0)),
                    "score": ((_BY_SEED, None, None, None), 0),
                    "check": ((_BY_SEED,), 0),
                    "repack": ((_BY_SEED,), _BY_SEED),
                }
                functions = {n: jax.vmap(functions[n], in_axes=i, out_axes=o) for n, (i, o) in axes.items()}
            self._programs[key] = {
                name: jax.jit(function, donate_argnums=0 if name in ("epoch", "repack") else ())
                for name, function in functions.items()
            }
        return self._programs[key]

    def compile_epoch(self, config: Config, hparams: Hyperparams, seeds: Sequence[int]) -> Callable[..., Any]:
        """Compiles the epoch of a chunk, once.

        Args:
          config: what the runs have in common.
          hparams: a value for each run of a seed.
          seeds: of the chunk.

        Returns:
          The compiled epoch.

        Raises:
          ConfigError: it does not fit into memory.
        """
        width = count_runs(hparams)
        programs = self.programs(config, width, len(seeds))
        key = "compiled", *hparams
        if key not in programs:
            values, keys = self._arguments(hparams, seeds)
            state = jax.eval_shape(programs["init"], keys, values)
            lowered = programs["epoch"].lower(state, values, *self.splits["train"], np.int32(0), np.int32(0))
            programs[key] = lowered.compile()
            check_memory(programs[key], self.device, config.batch_size)
        return programs[key]

    def _arguments(self, hparams: Hyperparams, seeds: Sequence[int]) -> tuple[Hyperparams, jax.Array]:
        values = {name: np.asarray(numbers, np.float32) for name, numbers in hparams.items()}
        is_single = all(len(numbers) == 1 for numbers in values.values())
        keys = [jax.random.key(seed) for seed in seeds]
        return (
            {name: numbers[0] for name, numbers in values.items()} if is_single else values,
            keys[0] if len(seeds) == 1 else jnp.stack(keys),
        )

    def _stack(self, chunk: Chunk, keys: jax.Array, step: int) -> TrainState:
        shape = () if len(chunk.seeds) * chunk.width == 1 else (chunk.width,)
        shape = (len(chunk.seeds), *shape) if len(chunk.seeds) > 1 else shape
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves).reshape((*shape, *np.shape(leaves[0]))), *chunk.states)
        params, model_state, opt_state, ema_params = stacked
        return TrainState(jnp.int32(step), params, model_state, opt_state, keys, ema_params)

    def _unstack(self, chunk: Chunk, state: TrainState) -> list[PyTree]:
        count = len(chunk.seeds) * chunk.width
        data = jax.device_get((state.params, state.model_state, state.opt_state, state.ema_params))
        lead = (chunk.width > 1) + (len(chunk.seeds) > 1)
        flat = jax.tree.map(lambda leaf: np.reshape(leaf, (count, *np.shape(leaf)[lead:])), data)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], flat) for i in range(count)]

    def run(self, chunk: Chunk, on_epoch: Callable[[int], None] = lambda epoch: None) -> list[Outcome]:
        """Trains a chunk.

        Args:
          chunk: what to train.
          on_epoch: called with the number of each epoch that is done.

        Returns:
          An outcome for each run, seed by seed.

        Raises:
          ConfigError, ArgumentError: options that do not fit each other or the data, or too little memory.
        """
        start_time = time.perf_counter()
        with jax.default_device(self.device):
            outcomes = self._run(chunk, on_epoch)
        each = (time.perf_counter() - start_time) / len(outcomes)
        return [outcome._replace(seconds=each) for outcome in outcomes]

    def _run(self, chunk: Chunk, on_epoch: Callable[[int], None]) -> list[Outcome]:
        config, count = chunk.config, chunk.width * len(chunk.seeds)
        programs = self.programs(config, chunk.width, len(chunk.seeds))
        train = self.compile_epoch(config, chunk.hparams, chunk.seeds)
        hparams, keys = self._arguments(chunk.hparams, chunk.seeds)
        records = [list(one) for one in chunk.records] or [[] for _ in range(count)]
        size, epoch = self.steps_per_epoch(config), len(records[0])
        state = programs["init"](keys, hparams)
        if chunk.states:
            state = self._stack(chunk, keys, epoch * size)
            state = programs["repack"](state) if chunk.width > 1 else state
        errors = [""] * count
        while epoch < chunk.end_epoch and not all(errors):
            if config.patience and should_stop(config, records[0]):
                break
            epoch += 1
            state, per_step = train(state, hparams, *self.splits["train"], np.int32(0), np.int32(size))
            is_due = config.eval_every_epochs and epoch % config.eval_every_epochs == 0
            scores = None
            if is_due or epoch == chunk.end_epoch:
                scores = jax.device_get(programs["score"](state, hparams, *self.splits["validation"]))
            losses = np.asarray(per_step["loss"].total).reshape(-1, size, chunk.width).swapaxes(1, 2).reshape(count, -1)
            finite = np.ravel(jax.device_get(programs["check"](state)))
            totals = self._totals(per_step, len(chunk.seeds))
            for i, record in enumerate(records):
                if not errors[i] and config.on_nan == "stop":
                    errors[i] = why_not_finite(losses[i], bool(finite[i]), epoch, size)
                if not errors[i]:
                    record.append(self._record(chunk, i, epoch, size, totals, scores))
            on_epoch(epoch)
        states: Sequence[PyTree] = [None] * count
        if chunk.keep_states:
            states = self._unstack(chunk, programs["repack"](state) if chunk.width > 1 else state)
        seeds = [seed for seed in chunk.seeds for _ in range(chunk.width)]
        return [Outcome(*one) for one in zip(seeds, records, [0.0] * count, errors, states, strict=True)]

    def _totals(self, per_step: Metrics, num_seeds: int) -> Metrics:
        summed = jax.vmap(sum_over_steps)(per_step) if num_seeds > 1 else sum_over_steps(per_step)
        return jax.device_get(summed)

    def _record(self, chunk: Chunk, i: int, epoch: int, size: int, totals: Metrics, scores: Metrics | None) -> Record:
        def of_run(metrics: Metrics) -> Metrics:
            return jax.tree.map(lambda leaf: np.ravel(leaf)[i], metrics)

        record: Record = {"seed": chunk.seeds[i // chunk.width], "epoch": epoch, "step": epoch * size}
        record["train"] = compute(of_run(totals))
        if scores is not None:
            record["validation"] = compute(of_run(scores))
        return record

    def seconds_per_epoch(self, config: Config, hparams: Hyperparams, seed: int, budget: float) -> float:
        """Measures the steady state of a chunk's epoch, after compiling it.

        An epoch begins with its permutation, which a part of it pays in full: so the step is the difference of two
        parts, divided by their difference in length.

        Args:
          config: what the runs have in common.
          hparams: a value for each run.
          seed: of all of them.
          budget: seconds to measure for; 0 measures little, but compiles.

        Returns:
          Seconds for one epoch of all runs, from medians.
        """
        size = self.steps_per_epoch(config)
        with jax.default_device(self.device):
            train, programs = (
                self.compile_epoch(config, hparams, (seed,)),
                self.programs(config, count_runs(hparams), 1),
            )
            values, key = self._arguments(hparams, (seed,))
            state = programs["init"](key, values)

            def time_part(steps: int) -> float:
                nonlocal state
                start = time.perf_counter()
                state, _ = train(state, values, *self.splits["train"], np.int32(0), np.int32(steps))
                jax.block_until_ready(state.step)
                return time.perf_counter() - start

            time_part(1)  # the first call is slower
            probe, first = min(size, 20), time_part(1)
            step = max(time_part(probe) - first, 1e-7) / max(1, probe - 1)
            steps = min(size, max(2, int(budget / 4 / step)))
            short: list[float] = []
            long: list[float] = []
            deadline = time.perf_counter() + budget
            while len(long) < 3 or time.perf_counter() < deadline:
                short.append(time_part(1))
                long.append(time_part(steps))
        step = max(0.0, float(np.median(long) - np.median(short))) / max(1, steps - 1)
        return float(np.median(short)) + (size - 1) * step
