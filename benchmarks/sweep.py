"""Times sweeps: 8 learning rates with several seeds, by the engine that is fastest here, against the same runs in turn.

python -m benchmarks.sweep --dataset=mnist

Both train the same runs in one command, which compiles each program once, and compares nothing on the test images. They
alternate, with nothing else running; a ratio is computed within a round. Writes sweep_benchmark.json.
"""

import dataclasses
import importlib
import logging
import statistics
import subprocess
import sys
import tempfile
import time

import jax

from mnist_jax import cli
from mnist_jax.commands._output import OutputFlags
from mnist_jax.devices import enable_compilation_cache
from mnist_jax.fields import flag_field
from mnist_jax.files import write_json
from mnist_jax.report import git_commit, versions
from mnist_jax.sweeps.sweep import sweep

RATES = "1e-4:1e-1:log:8"
# name -> experiment, its fields, seeds, epochs, and how many times as fast as in turn it should be on two cores
CASES = {
    "softmax": ("softmax", {}, 5, 30, 5.0),
    "perceptron-64": ("perceptron", {"hidden_sizes": (64,)}, 5, 10, 2.5),
    "perceptron-784": ("perceptron", {}, 5, 2, 1.2),
    "cnn": ("cnn", {}, 2, 1, 1.15),
}


@dataclasses.dataclass(frozen=True)
class Flags(OutputFlags):
    """The flags of the benchmark."""

    dataset: str = flag_field("mnist", "data set", group="data")
    rounds: int = flag_field(3, "rounds", minimum=1)
    cases: tuple[str, ...] = flag_field(tuple(CASES), "which of the cases")
    longer: int = flag_field(1, "times as many epochs as on a CPU", minimum=1)
    engines: tuple[str, ...] = flag_field(("serial", "auto"), "engines; the first one is compared with")
    commands: int = flag_field(2, "separate commands to time for each case; 0: none", minimum=0)
    platform: str = flag_field("", "cpu, gpu or tpu")


def _time(case: str, engine: str, flags: Flags) -> dict:
    name, fields, seeds, epochs, _ = CASES[case]
    experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
    experiment = experiment.with_config(dataclasses.replace(experiment.config, dataset=flags.dataset, **fields))
    _ = experiment.splits  # loading is not timed
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = sweep(
            experiment,
            f"{folder}/sweep",
            grid={"learning_rate": RATES},
            seeds=seeds,
            epochs=epochs * flags.longer,
            engine=engine,
            test_seeds=0,
            quiet=True,
            platform=flags.platform,
            caches=True,
        )
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "engine": result.record["engine"], "scores": [row.scores for row in result.rows]}


def _time_command(case: str, flags: Flags) -> float:
    name, fields, _, epochs, _ = CASES[case]
    argv = [
        sys.executable,
        "-m",
        f"experiments.{name}",
        f"--dataset={flags.dataset}",
        f"--epochs={epochs * flags.longer}",
        "--quiet",
    ]
    argv += [f"--{key}={','.join(map(str, value))}" for key, value in fields.items()]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*argv, f"--workdir={folder}/run"], check=True, capture_output=True)
    return time.perf_counter() - start


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the benchmark."""
    cli.reject_positionals(positional)
    flags.check_output("sweep_benchmark.json")
    logging.getLogger("mnist_jax").setLevel(logging.INFO)
    enable_compilation_cache()  # as every command does
    base, record = flags.engines[0], {}
    for case in flags.cases:
        rounds = [{engine: _time(case, engine, flags) for engine in flags.engines} for _ in range(flags.rounds)]
        _, _, seeds, epochs, target = CASES[case]
        one = record[case] = {"runs": 8 * seeds, "epochs": epochs * flags.longer, "target": target, "rounds": rounds}
        for engine in flags.engines[1:]:
            ratios = [r[base]["seconds"] / r[engine]["seconds"] for r in rounds]
            one[f"{engine} over {base}"] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{case}: {engine} {spread}, target {target}")
            if flags.commands:
                each = statistics.median(_time_command(case, flags) for _ in range(flags.commands))
                total = statistics.median(r[engine]["seconds"] for r in rounds)
                one["seconds per command"] = each
                one[f"{engine} over {8 * seeds} commands"] = 8 * seeds * each / total
                print(f"  against {8 * seeds} separate commands: {8 * seeds * each / total:.1f}")
    device = jax.devices()[0]
    folder = flags.make_output("sweep-benchmark")
    about = {"device": device.device_kind, "platform": device.platform, "versions": versions(), "commit": git_commit()}
    write_json(folder / "sweep_benchmark.json", {"cases": record, **about})
    print(f"Results: {folder}")


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
