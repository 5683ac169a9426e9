"""How the runs of a sweep are computed: in turn, many in one program, or in worker processes; what is fastest here."""

import concurrent.futures
import dataclasses
import hashlib
import logging
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError
from mnist_jax.experiment import Experiment
from mnist_jax.fields import flags_of
from mnist_jax.files import DEFAULT_DATA_DIR, expand_user, has_home, read_json, write_json
from mnist_jax.report import versions
from mnist_jax.sweeps.chunk import DataShape, Splits
from mnist_jax.sweeps.executor import Executor
from mnist_jax.sweeps.workers import Lane, WorkerProcess, start_workers

logger = logging.getLogger("mnist_jax")

# A traced value of these gives the bits of a constant, unless it is 0, which leaves out what it controls.
_EXACT = ("learning_rate", "momentum", "weight_decay", "rotation", "zoom", "translation", "grad_clip_norm")
_MAX_WIDTH = 32
_MAX_WIDTH_GPU = 256
_MAX_PROCESSES = 16
_MIN_SECONDS = 30.0  # of work, below which it is not worth to measure or start more
_START = 6.0  # seconds until a worker process trains
_SMALL = 200_000  # parameters of a network of which several fit into a core's caches
_WIDE = 8  # runs in one program, to begin with
_BUDGET = 0.8  # seconds per measurement
_MIN_GAIN = 1.05  # over runs in turn, whose bits are those of a run alone


class Plan(NamedTuple):
    """How runs are computed."""

    name: str  # of the engine that was chosen
    processes: int  # 0: in this process
    seconds: dict[int, float]  # width -> of an epoch, which are all about 1 where nothing was measured
    reason: str

    @property
    def widths(self) -> list[int]:
        """How many runs a chunk may have."""
        return sorted(self.seconds)

    def divide(self, num_runs: int, num_seeds: int) -> list[tuple[int, int]]:
        """Divides a group of runs into chunks so that the lanes are done soonest.

        Args:
          num_runs: runs of one program and seed.
          num_seeds: seeds, each with that many runs.

        Returns:
          Pairs of a number of seeds and the width of their chunks; seeds that would leave lanes idle at the end may
          have chunks of another width.
        """
        even = num_seeds // self.num_lanes * self.num_lanes
        return [(n, self._width(num_runs, n)) for n in (even, num_seeds - even) if n]

    @property
    def num_lanes(self) -> int:
        """Chunks that are trained at the same time, on a CPU."""
        return max(1, self.processes)

    def _seconds(self, width: int, num_runs: int, num_seeds: int) -> float:
        chunks = num_seeds * math.ceil(num_runs / width)
        return math.ceil(chunks / self.num_lanes) * self.seconds[width]

    def _width(self, num_runs: int, num_seeds: int) -> int:
        return min(self.widths, key=lambda width: (self._seconds(width, num_runs, num_seeds), width))

    def epoch(self, num_runs: int, num_seeds: int) -> float:
        """Estimates the seconds of one epoch of all runs; arguments as for divide."""
        return sum(self._seconds(width, num_runs, n) for n, width in self.divide(num_runs, num_seeds))


def split_hparams(config: Config, names: Sequence[str], plan_name: str) -> list[str]:
    """Chooses which of the fields that vary are traced; the others are constants of a program.

    Args:
      config: of one trial.
      names: of the fields that vary.
      plan_name: the engine. In turn and in processes, a run must have the bits of the same run alone.

    Returns:
      Names of traced fields.
    """
    flags = flags_of(type(config))
    traced = [name for name in names if flags[name].traced]
    if plan_name == "vmap":
        return traced
    return [name for name in traced if name in _EXACT and getattr(config, name)]


class Computer:
    """Everything that trains the runs of a sweep on this machine: the lanes, and the plan that says how."""

    def __init__(
        self, experiment: Experiment, splits: Splits, shape: DataShape, devices: Sequence[jax.Device], caches: bool
    ):
        """Starts nothing yet.

        Args:
          experiment: what to run.
          splits: "train" and "validation".
          shape: of the data.
          devices: those that share the chunks.
          caches: whether to keep compiled programs and measurements in the user's cache.
        """
        self.experiment, self.splits, self.shape, self.caches = experiment, splits, shape, caches
        self.devices = devices
        self._executors: list[Executor] = []
        self._workers: list[WorkerProcess] = []
        self.plan = Plan("", 0, {1: 1.0}, "")  # nothing is to be computed

    @property
    def executors(self) -> list[Executor]:
        """An executor for each device."""
        if not self._executors:
            self._executors = [Executor(self.experiment, self.splits, self.shape, one) for one in self.devices]
        return self._executors

    @property
    def lanes(self) -> Sequence[Lane]:
        """What trains chunks, as the plan says."""
        return self._workers or self.executors

    def close(self) -> None:
        """Ends the worker processes."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    def _start(self, count: int, is_exact: bool) -> list[WorkerProcess]:
        self.close()
        arguments = (self.experiment, self.splits, self.shape)
        self._workers = start_workers(*arguments, count, is_exact, self.caches)
        return self._workers

    def choose(self, engine: str, example: Config, names: Sequence[str], num_points: int, num_seeds: int) -> None:
        """Chooses how to compute, and prepares it.

        Args:
          engine: one of options.ENGINES.
          example: configuration of a trial.
          names: of the fields that vary.
          num_points: trials.
          num_seeds: runs of each trial.

        Raises:
          ConfigError: the engine can't be used here.
        """
        processes = min(os.cpu_count() or 1, _MAX_PROCESSES, num_points * num_seeds)
        on_cpu = self.devices[0].platform == "cpu" and len(self.devices) == 1
        traced = split_hparams(example, names, "vmap")
        most = _MAX_WIDTH if on_cpu else _MAX_WIDTH_GPU
        can_map = bool(traced) and not example.patience
        widths = [w for w in (2**i for i in range(9)) if w <= most and w < 2 * num_points] if can_map else [1]
        if engine == "process":
            if not on_cpu:
                raise ConfigError("engine=process: is for one CPU; use vmap or auto on other devices")
            self._start(processes, is_exact=True)
            self.plan = Plan("process", processes, {1: 1.0}, "")
        elif engine == "serial":
            self.plan = Plan("serial", 0, {1: 1.0}, "")
        elif engine == "vmap" or not on_cpu:
            self.plan = Plan("vmap", 0, {width: 1.0 + width / 1000 for width in widths}, "")
        else:
            self._choose_fastest(example, traced, widths, processes, num_points, num_seeds)
        logger.info("computing by %s%s", self.describe(), f" ({self.plan.reason})" if self.plan.reason else "")

    def describe(self) -> str:
        """Says in words how runs are computed."""
        widest = max(self.plan.widths)
        how = f"{self.plan.processes} processes of one core each" if self.plan.processes else "one process"
        many = f"up to {widest} runs in one program" if widest > 1 else "runs in turn"
        return f"{self.plan.name}, {how}, {many}"

    def _choose_fastest(
        self,
        example: Config,
        traced: Sequence[str],
        widths: Sequence[int],
        processes: int,
        num_points: int,
        num_seeds: int,
    ) -> None:
        """Compares the very programs on this machine, as far as there is something to gain."""
        known = self._read(example, traced)
        here, there = ({int(w): s for w, s in known.get(name, {}).items()} for name in ("here", "there"))
        if 1 not in here:
            here[1] = self._measure([self.executors[0]], example, traced, 1)
        serial = Plan("serial", 0, {1: here[1]}, "")

        def seconds(plan: Plan) -> float:
            started = not plan.processes or bool(self._workers)
            return example.epochs * plan.epoch(num_points, num_seeds) + (0.0 if started else _START)

        wide = min(_WIDE, widths[-1]) if self._num_parameters(example) < _SMALL else 1
        work = seconds(serial)
        if work < _MIN_SECONDS:
            few = {width: 1.0 + width / 1000 for width in widths if width <= wide}
            reason = f"about {work:.0f} s of work: too little to measure more"
            self.plan = Plan("vmap" if wide > 1 else "serial", 0, few, reason)
            return
        if wide not in here:
            try:
                here[wide] = self._measure([self.executors[0]], example, traced, wide)
            except (ConfigError, RuntimeError) as error:  # it does not fit into memory
                logger.info("%s", error)
                wide = 1
        plans = [serial, Plan("vmap", 0, {w: s for w, s in here.items() if w in widths}, "")]
        if processes > 1 and min(map(seconds, plans)) > _MIN_SECONDS:
            if wide not in there:
                there = self._measure_processes(example, traced, widths, wide, processes)
            if there:
                plans.append(Plan("vmap", processes, {w: s for w, s in there.items() if w in widths}, ""))
        self._write(example, traced, {"here": here, "there": there})
        best = min(plans, key=lambda plan: seconds(plan) * (1 if plan is serial else _MIN_GAIN))
        gain = work / seconds(best)
        reason = "nothing is faster than in turn" if best is serial else f"{gain:.1f} times as fast as in turn"
        self.plan = best._replace(reason=f"measured: {reason}")
        if not best.processes:
            self.close()
        elif not self._workers:
            self._start(processes, is_exact=False)

    def _measure(self, lanes: Sequence[Lane], config: Config, traced: Sequence[str], width: int) -> float:
        """Seconds of an epoch of `width` runs, the mean of lanes that are all measured at the same time."""
        hparams = {name: (float(getattr(config, name)),) * width for name in traced}
        with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:

            def measure(budget: float) -> list[float]:
                return [*pool.map(lambda lane: lane.seconds_per_epoch(config, hparams, config.seed, budget), lanes)]

            if len(lanes) > 1:
                measure(0.0)  # so that all have compiled
            return statistics.fmean(measure(_BUDGET))

    def _measure_processes(
        self, config: Config, traced: Sequence[str], widths: Sequence[int], wide: int, processes: int
    ) -> dict[int, float]:
        """Measures `wide`, and where that is many runs its neighbours, for as long as they gain."""
        measured: dict[int, float] = {}
        try:
            workers = self._start(processes, is_exact=False)
            measured[wide] = self._measure(workers, config, traced, wide)
            for direction in (widths[::-1], widths) if wide > 1 else ():
                for width in direction[direction.index(wide) + 1 :]:
                    best = min(seconds / w for w, seconds in measured.items())
                    measured[width] = self._measure(workers, config, traced, width)
                    if measured[width] / width * _MIN_GAIN > best:
                        break
        except (ConfigError, RuntimeError) as error:  # it can't be sent to others, or does not fit into memory
            logger.info("%s", error)
        return measured

    def _num_parameters(self, config: Config) -> int:
        executor = self.executors[0]
        state = jax.eval_shape(executor.programs(config, 1, 1)["init"], jax.random.key(0), {})
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))

    def _key(self, config: Config, traced: Sequence[str]) -> str:
        fields = {**dataclasses.asdict(config), "epochs": 0, "seed": 0, "name": "", "dataset": "", "data_dir": ""}
        fields |= {name: 0 for name in traced}
        parts = [fields, self.shape, self.experiment.own_parts, versions(), platform.processor(), os.cpu_count()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def _read(self, config: Config, traced: Sequence[str]) -> Mapping[str, Any]:
        try:
            return read_json(_cache_path())[self._key(config, traced)] if self.caches and has_home() else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _write(self, config: Config, traced: Sequence[str], measured: Mapping[str, Any]) -> None:
        if not self.caches or not has_home() or self.experiment.own_parts:
            return
        try:
            known = read_json(_cache_path())
        except (OSError, ValueError):
            known = {}
        try:
            write_json(_cache_path(), {**known, self._key(config, traced): measured})
        except OSError:
            logger.info("measurements can't be kept in %s", _cache_path())


def _cache_path() -> Any:
    return expand_user(DEFAULT_DATA_DIR) / "engines.json"
