"""From process start to result: --help, and the README's quick start by phases."""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

QUICK_START = ("--dataset=mnist5k",)  # of experiments.perceptron, the README's


def start_up(limit: float) -> dict[str, Any]:
    """Measures how long a user waits.

    Args:
      limit: seconds that one run may take.

    Returns:
      Processor seconds of --help; wall seconds of the quick start, and their phases: the first one, one with kept
      programs, and one for eight seeds; or why there are no more.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-m", "experiments.perceptron"]
    told: dict[str, Any] = {}
    try:
        subprocess.run([*program, "--help"], check=True, capture_output=True, text=True, timeout=limit)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        told["help_processor_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        with tempfile.TemporaryDirectory() as folder:
            place = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
            for name, seeds in {"quick_start": 1, "second_start": 1, "eight_seeds": 8}.items():
                start = time.perf_counter()
                words = [*program, *QUICK_START, f"--num_seeds={seeds}", f"--workdir={folder}/{name}"]
                subprocess.run(words, check=True, capture_output=True, text=True, env=place, timeout=limit)
                wall = time.perf_counter() - start
                phases = json.loads(pathlib.Path(folder, name, "result.json").read_text())["seconds"]
                told[f"{name}_seconds"] = wall
                told[f"{name}_phases"] = {
                    "import and exit": wall - phases["total"],
                    **{phase: phases[phase] for phase in ("load", "compile", "train")},
                }
    except subprocess.CalledProcessError as error:
        told["failure"] = (error.stderr.strip().splitlines() or [str(error)])[-1][:200]
    except subprocess.TimeoutExpired:
        told["failure"] = f"took more than {limit:.0f} s"
    return told
