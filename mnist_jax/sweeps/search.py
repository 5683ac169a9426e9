"""Which points a sweep tries, and which of them it stops early: Optuna's samplers and pruners, on a copy of the study.

Both work on a study in memory that is built from the trials in the storage whenever they are asked. So nothing
of theirs is lost when a process is killed, and what they answer depends on the study's seed and trials alone.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_jax.errors import ConfigError
from mnist_jax.sweeps.space import Dimension, Point, format_value, grid_points

BATCH = 8  # trials that a search which learns, or a pruner, sees at a time: fixed, since results depend on it
_FACTOR = 3  # of one rung to the next


def is_adaptive(search: str) -> bool:
    """Whether points depend on the scores of earlier ones."""
    return search in ("tpe", "cmaes")


def make_distribution(dimension: Dimension) -> Any:
    """Returns Optuna's distribution of a dimension; numbers keep their order, other values are choices."""
    import optuna

    if not dimension.values:
        kind: Any = optuna.distributions.IntDistribution if dimension.is_int else optuna.distributions.FloatDistribution
        return kind(dimension.low, dimension.high, log=dimension.log)
    return optuna.distributions.CategoricalDistribution([to_param(value) for value in dimension.values])


def to_param(value: Any) -> Any:
    """Returns a value as Optuna stores it: a tuple as text."""
    return format_value(value) if isinstance(value, tuple) else value


def from_params(dimensions: Sequence[Dimension], params: dict[str, Any]) -> Point:
    """Returns the point that Optuna's params are.

    Args:
      dimensions: the space.
      params: name -> value, as make_distribution's distributions have it.
    """
    point = {}
    for dimension in dimensions:
        texts = {to_param(value): value for value in dimension.values}
        param = params[dimension.name]
        point[dimension.name] = texts[param] if dimension.values else param
    return point


def copy_study(study: Any, changes: dict[int, dict[str, Any]], sampler: Any = None, end: int | None = None) -> Any:
    """Copies a study into memory; the trials have the same numbers.

    Args:
      study: Optuna's.
      changes: number of a trial -> what is replaced in its copy: state, intermediate_values, system_attrs.
      sampler: of the copy.
      end: number of the first trial that is left out; None for all trials.

    Returns:
      Optuna's study.
    """
    import optuna

    copied = optuna.create_study(study_name=study.study_name, direction=study.direction.name.lower(), sampler=sampler)
    for frozen in study.get_trials(deepcopy=False)[:end]:
        known = {
            "state": frozen.state,
            "values": frozen.values,
            "params": frozen.params,
            "distributions": frozen.distributions,
            "system_attrs": frozen.system_attrs,
            "intermediate_values": frozen.intermediate_values,
        }
        copied.add_trial(optuna.trial.create_trial(**(known | changes.get(frozen.number, {}))))
    return copied


def propose(
    search: str, dimensions: Sequence[Dimension], study: Any, seed: int, start: int, count: int, end: int | None = None
) -> list[tuple[Point, dict[str, Any]]]:
    """Proposes the next points.

    Args:
      search: one of options.SEARCHES.
      dimensions: the space.
      study: Optuna's.
      seed: of the sweep.
      start: number of the first point to propose.
      count: how many; of a grid perhaps fewer.
      end: number of the first trial that the sampler must not see; None: it sees all.

    Returns:
      The points, each with what the sampler must find with its trial later on.
    """
    if search == "grid":
        return [(point, {}) for point in list(grid_points(dimensions))[start : start + count]]
    if search == "qmc":
        return [(point, {}) for point in _sobol(dimensions, seed, start + count)[start:]]
    import optuna

    # The sampler's own state is not stored. A new one for each batch must not repeat the last one's draws.
    batch_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
    samplers = {
        "random": lambda: optuna.samplers.RandomSampler(seed=batch_seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=batch_seed),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=batch_seed),
    }
    copied = copy_study(study, {}, samplers[search](), end)
    distributions = {dimension.name: make_distribution(dimension) for dimension in dimensions}
    proposed = []
    for _ in range(count):
        trial = copied.ask(distributions)
        point = from_params(dimensions, trial.params)
        for dimension in dimensions:
            if not dimension.values:
                point[dimension.name] = dimension.round(point[dimension.name])
        proposed.append((point, dict(trial.storage.get_trial_system_attrs(trial._trial_id))))
    return proposed


def _sobol(dimensions: Sequence[Dimension], seed: int, count: int) -> list[Point]:
    """The first points of a scrambled Sobol sequence; unlike Optuna's sampler it spreads choices evenly too.

    A point that comes again is left out, unless even a sequence of 64 times the length has too few different ones.
    """
    from scipy.stats import qmc

    shortest = math.ceil(math.log2(count)) if count else 0
    for power in range(shortest, shortest + 7):
        sequence = qmc.Sobol(len(dimensions), scramble=True, rng=np.random.default_rng(seed))
        rows = [
            tuple(d.at(float(u)) for d, u in zip(dimensions, row, strict=True)) for row in sequence.random_base2(power)
        ]
        points = [*dict.fromkeys(rows)]
        if len(points) >= count:
            break
    names = [dimension.name for dimension in dimensions]
    return [dict(zip(names, point, strict=True)) for point in [*points, *rows][:count]]


def _count_points(dimensions: Sequence[Dimension]) -> float:
    """How many different points a space has."""
    counts = (len(d.values) or (d.high - d.low + 1 if d.is_int else math.inf) for d in dimensions)
    return math.prod(counts)


def check_search(search: str, dimensions: Sequence[Dimension], trials: int) -> None:
    """Refuses a space that a sampler can't search.

    Args:
      search: one of options.SEARCHES.
      dimensions: the space.
      trials: points to try.

    Raises:
      ConfigError: why not.
    """
    if search == "cmaes" and (len(dimensions) < 2 or any(dimension.values for dimension in dimensions)):
        raise ConfigError("search=cmaes: needs at least two ranges and no choices; use tpe")
    if search == "qmc" and trials > (count := _count_points(dimensions)):
        raise ConfigError(f"trials={trials}: the space has only {count:,.0f} points; try as many, or use grid")


def rungs(pruner: str, epochs: int) -> list[int]:
    """Returns the epochs, before the last one, at which trials are compared.

    Args:
      pruner: one of options.PRUNERS.
      epochs: of a complete trial.

    >>> rungs("hyperband", 10), rungs("median", 3), rungs("none", 10)
    ([1, 3, 9], [1, 2], [])
    """
    if pruner == "none":
        return []
    if pruner == "median":
        return list(range(1, epochs))
    return [_FACTOR**k for k in range(20) if _FACTOR**k < epochs]


def _make_pruner(pruner: str, epochs: int) -> Any:
    import optuna

    if pruner == "median":
        return optuna.pruners.MedianPruner()
    if pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=_FACTOR)
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=_FACTOR)


def prune(
    pruner: str,
    epochs: int,
    study: Any,
    batch: dict[int, dict[int, float]],
    attrs: dict[int, dict[str, Any]],
) -> set[int]:
    """Decides which trials of a batch to stop at a rung, knowing the scores of all of them.

    Args:
      pruner: one of options.PRUNERS.
      epochs: of a complete trial.
      study: Optuna's.
      batch: number of a trial that is still training -> its scores so far, by epoch.
      attrs: number of each unfinished trial of this client -> what the pruner remembers of it; it is updated.

    Returns:
      Numbers of the trials to stop.
    """
    import optuna

    changes: dict[int, dict[str, Any]] = {
        number: {"state": optuna.trial.TrialState.RUNNING, "values": None, "system_attrs": dict(remembered)}
        for number, remembered in attrs.items()
    }
    for number, scores in batch.items():
        changes.setdefault(number, {})["intermediate_values"] = scores
    copied, made = copy_study(study, changes), _make_pruner(pruner, epochs)

    def ask(number: int) -> bool:
        frozen = copied.get_trials(deepcopy=False)[number]
        frozen.system_attrs = dict(attrs[number])  # as before this rung
        return made.prune(copied, frozen)

    for number in batch:  # once, so that each is compared with all others, whatever their order
        ask(number)
    stopped = {number for number in batch if ask(number)}
    for number in batch:
        attrs[number] = dict(copied.get_trials(deepcopy=False)[number].system_attrs)
    return stopped
