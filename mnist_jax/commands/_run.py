"""What the commands on a finished run share: the flags that name it, and how it is read."""

import dataclasses
from typing import TYPE_CHECKING

from mnist_jax import cli
from mnist_jax.errors import ConfigError
from mnist_jax.fields import flag_field

if TYPE_CHECKING:  # imported where it is used: --help needs no JAX
    from mnist_jax.loaded_run import LoadedRun


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """The flags that name a run, one of its seeds, and where to compute."""

    workdir: str = flag_field("", "folder of the run", group="run")
    experiment: str = flag_field("", "module that defines EXPERIMENT, where the run has parts of its own", group="run")
    run_seed: int | None = flag_field(None, "which of the run's seeds; left out: its first", group="run")
    ensemble: bool = flag_field(
        False,
        "take all seeds of the run as one network; workdir may name several runs, with commas between them",
        group="run",
    )
    platform: str = flag_field("", "cpu, gpu or tpu; left out: the best that JAX finds", group="run")

    def check_workdir(self) -> None:
        """Refuses flags that name no run.

        Raises:
          ConfigError: no workdir, or a seed of an ensemble.
        """
        if not self.workdir:
            raise ConfigError("workdir=: name the folder of a run")
        if self.ensemble and self.run_seed is not None:
            raise ConfigError(f"run_seed={self.run_seed}: has no effect on an ensemble, which has all seeds")

    def load(self) -> "LoadedRun":
        """Reads the run.

        Returns:
          The run.

        Raises:
          ConfigError: no such platform, experiment or seed.
          DataError: a damaged run.
        """
        from mnist_jax import devices
        from mnist_jax.loaded_run import load_ensemble, load_run

        devices.enable_compilation_cache()
        devices.choose_device(self.platform)
        experiment = cli.load_experiment(self.experiment)
        if self.ensemble:
            return load_ensemble(self.workdir.split(","), experiment)
        try:
            return load_run(self.workdir, experiment, self.run_seed)
        except ConfigError as error:  # its argument is called seed
            raise ConfigError(f"run_{error}") from None
