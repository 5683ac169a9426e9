"""How a sweep is carried out."""

import dataclasses

from mnist_jax.fields import flag_field, validate_fields

SEARCHES = ("grid", "qmc", "random", "tpe", "cmaes")
PRUNERS = ("none", "median", "successive_halving", "hyperband")
ENGINES = ("auto", "vmap", "process", "serial")


# fmt: off
@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What a sweep varies, how it searches, and how it computes."""

    grid: tuple[str, ...] = flag_field((), "a field and its values, NAME=A,B,C or NAME=LOW:HIGH:N or NAME=LOW:HIGH:log:N; may be given several times", group="sweep", repeated=True)
    space: tuple[str, ...] = flag_field((), "a field and its range or choices, NAME=LOW:HIGH or NAME=LOW:HIGH:log or NAME=A|B|C; may be given several times", group="sweep", repeated=True)
    search: str = flag_field("", "grid, qmc (quasi-random), random, tpe or cmaes; left out: grid for --grid, qmc for --space", group="sweep", choices=("", *SEARCHES))
    trials: int = flag_field(32, "trials of the whole search, whoever runs them", group="sweep", minimum=1)
    seeds: int = flag_field(1, "runs of each trial, with seeds seed, seed + 1, ...", group="sweep", minimum=1, exclusive_maximum=1001)
    objective: str = flag_field("", "metric of the validation images to compare by: loss is minimized, others are maximized; left out: accuracy", group="sweep")
    pruner: str = flag_field("none", "stop hopeless trials early: none, median, successive_halving or hyperband", group="sweep", choices=PRUNERS)
    test_seeds: int = flag_field(5, "fresh seeds that train the winner again, to be scored on the test images once; 0: leave those alone", group="sweep", minimum=0, exclusive_maximum=1001)
    engine: str = flag_field("auto", "auto (the fastest, by a short measurement), vmap, process or serial", group="run", choices=ENGINES)
    storage: str = flag_field("", "journal file, sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME; left out: study.journal in workdir", group="run")
    platform: str = flag_field("", "cpu, gpu or tpu; empty: the best that JAX finds", group="run")
    yes: bool = flag_field(False, "run a grid of more than 1,000 points", group="run")
    quiet: bool = flag_field(False, "report no progress", group="output")

    def __post_init__(self) -> None:
        validate_fields(self)
# fmt: on
