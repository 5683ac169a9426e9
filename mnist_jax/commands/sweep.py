"""Compares many settings and seeds of an experiment: grids, searches, early stopping; one report at the end.

python -m mnist_jax sweep --experiment=perceptron --dataset=mnist5k --grid learning_rate=1e-4:1e-1:log:8 --seeds=3

The validation images decide; the winner alone is scored on the test images. Stopped? The same command goes on. On other
machines, the same command with the same --storage joins in. Writes report.html, trials.csv, best.json and sweep.json.
"""

import dataclasses

from mnist_jax import cli
from mnist_jax.errors import ConfigError
from mnist_jax.experiment import Experiment
from mnist_jax.fields import Value, flag_field
from mnist_jax.files import expand_user, make_new_folder, remove_if_empty
from mnist_jax.process import exit_on_signals
from mnist_jax.sweeps.options import SweepOptions


@dataclasses.dataclass(frozen=True)
class Flags(SweepOptions):
    """The flags of the command, beside those of the experiment."""

    experiment: str = flag_field("", "recipe, such as perceptron, or module that defines EXPERIMENT", group="sweep")
    workdir: str = flag_field(
        "", "folder of the sweep; left out: a new one, runs/sweep-EXPERIMENT-DATASET-TIME", group="output"
    )


def main(experiment: Experiment, module: str, flags: Flags, fields: dict[str, Value]) -> None:
    """Runs the command.

    Args:
      experiment: what to run.
      module: that defines it.
      flags: parsed flags.
      fields: of the configuration that were given.

    Raises:
      ConfigError: what can't work, before anything runs.
      DataError: the data are missing or damaged.
    """
    if flags.storage and "://" in flags.storage and not flags.workdir:
        raise ConfigError("workdir=: name a folder, since its name is the study's in the storage")
    from mnist_jax.devices import enable_compilation_cache
    from mnist_jax.sweeps.sweep import sweep
    from mnist_jax.sweeps.table import format_table
    from mnist_jax.sweeps.trainer import Objective

    enable_compilation_cache()
    config = dataclasses.replace(experiment.config, **fields)
    is_new = not flags.workdir
    workdir = (
        expand_user(flags.workdir)
        if flags.workdir
        else make_new_folder(f"sweep-{config.name}-{config.dataset.partition(':')[0]}")
    )

    def cleanup() -> None:
        if is_new:
            remove_if_empty(workdir)

    exit_on_signals(f"; finished runs are kept; to go on, give the same command with --workdir={workdir}", cleanup)
    try:
        result = sweep(experiment, workdir, options=flags, module=module, caches=True, **fields)
    finally:
        cleanup()
    record = result.record
    print(format_table(result.rows, Objective(record["objective"], record["objective"] == "loss")))
    for line in result.advice:
        print(f"note: {line}")
    print(f"Results: {workdir}, with report.html, trials.csv and best.json")
    if result.test:
        name = record["objective"] if record["objective"] in result.test else "loss"
        score = result.test[name]
        spread = f" (standard deviation {score['std']:.2g}, n={score['n']})" if score["std"] is not None else ""
        print(f"Test {name} of the winner: {score['mean']:.5g}{spread}")


if __name__ == "__main__":
    cli.run_experiment_cli(__doc__, Flags(), main)
