"""How a run is carried out, whatever it computes."""

import dataclasses

from mnist_jax.fields import flag_field, validate_fields


# fmt: off
@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run is carried out: what changes none of its numbers, but for `deterministic` on a GPU."""

    overwrite: bool = flag_field(False, "replace a result that workdir already holds, instead of extending it", group="output")
    quiet: bool = flag_field(False, "report no progress", group="output")
    plots: bool = flag_field(False, "draw learning curves, confusion matrix, mistakes and filters; from the command line on a terminal too", group="output")
    summary: bool = flag_field(False, "print the layers, their shapes and parameter counts first", group="output")
    platform: str = flag_field("", "cpu, gpu or tpu; empty: the best that JAX finds", group="run")
    mesh: str = flag_field("", "how devices are arranged, such as data:8 (each batch split over 8) or data:4,model:2 (wide dense layers split too); empty: all there are, in data", group="run")
    coordinator: str = flag_field("", "for several processes: HOST:PORT of process 0, or auto (found from Slurm, Open MPI, Kubernetes or Cloud TPU)", group="run")
    num_processes: int = flag_field(0, "how many processes; 0: one, or found from the environment", group="run", minimum=0)
    process_id: int = flag_field(-1, "which of them this is, from 0; -1: found from the environment", group="run", minimum=-1)
    join_timeout: float = flag_field(120.0, "seconds to wait for the other processes at the start", group="run", minimum=1)
    stall_timeout: float = flag_field(300.0, "seconds after which processes that do not go on are given up", group="run", minimum=1)
    restarts: int = flag_field(0, "how many times to start again from the last checkpoint where a process was lost", group="run", minimum=0)
    deterministic: bool = flag_field(False, "forbid GPU kernels whose results vary; slower", group="run")
    resume: str = flag_field("auto", "an unfinished run: auto resumes it, required needs one, never starts from scratch", group="run", choices=("auto", "required", "never"))
    checkpoint_every: int = flag_field(0, "steps between checkpoints; 0: at the end of each epoch", group="run", minimum=0)
    max_to_keep: int = flag_field(2, "newest checkpoints of a seed to keep, beside the best on validation", group="run", minimum=1)

    def __post_init__(self) -> None:
        validate_fields(self)
# fmt: on
