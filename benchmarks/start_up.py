"""The time from process start to result: --help, and the phases of the README's quick start."""

import json
import os
import pathlib
import resource
import subprocess
import sys
import time

from benchmarks.children import run_child
from benchmarks.compare import Record

QUICK_START = ("--dataset=mnist5k",)  # of experiments.perceptron, as in the README


def measure_start_up(folder: pathlib.Path, timeout_s: float) -> Record:
    """Measures how long a user waits.

    Args:
      folder: where the runs are written.
      timeout_s: seconds after which a run is stopped.

    Returns:
      CPU seconds of --help; wall seconds and phases of the quick start, of a second start with cached programs and of
      one with eight seeds; or the failure.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "experiments.perceptron"]
    record: Record = {}
    try:
        run_child([*command, "--help"], timeout_s).check_returncode()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        record["help_cpu_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
        for name, seeds in {"quick_start": 1, "second_start": 1, "eight_seeds": 8}.items():
            start = time.perf_counter()
            argv = [*command, *QUICK_START, f"--num_seeds={seeds}", f"--workdir={folder / name}"]
            run_child(argv, timeout_s, env).check_returncode()
            elapsed = time.perf_counter() - start
            phases = json.loads((folder / name / "result.json").read_text())["seconds"]
            record[f"{name}_seconds"] = elapsed
            record[f"{name}_phases"] = {
                "import_and_exit": elapsed - phases["total"],
                **{phase: phases[phase] for phase in ("load", "compile", "train")},
            }
    except subprocess.CalledProcessError as error:
        record["failure"] = (error.stderr.strip().splitlines() or [str(error)])[-1][:200]
    except subprocess.TimeoutExpired:
        record["failure"] = f"took more than {timeout_s:.0f} s"
    return record
