"""How many trials a second a sweep's data base takes: what limits how many workers share a study.

python -m benchmarks.storage --storage=postgresql+psycopg://USER@HOST/NAME

Each worker claims a point, reports nine epochs and tells the result, as a sweep of ten epochs does, with no training in
between. Writes storage.json.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import time
import uuid

from mnist_jax.sweeps.storage import open_study
from mnist_jax.sweeps.study import SharedStudy

EPOCHS = 10


def work(storage: str, name: str, worker: int, trials: int, ready: object, seconds: object) -> None:
    """Runs trials that take no time."""
    study = SharedStudy(open_study(storage, name, "maximize"), f"worker-{worker}")
    ready.wait()  # type: ignore[attr-defined]
    start = time.perf_counter()
    for number in range(trials):
        [trial] = study.claim([(worker * trials + number, {}, {}, {"seeds": [7]}, {})])
        for epoch in range(1, EPOCHS):
            study.report(trial, epoch, 0.5, {})
        study.tell(trial, "COMPLETE", 0.5, {})
    seconds.put(time.perf_counter() - start)  # type: ignore[attr-defined]


def measure(storage: str, workers: int, trials: int) -> float:
    """Returns the trials a second of some workers together."""
    context, name = multiprocessing.get_context("spawn"), f"benchmark-{uuid.uuid4().hex[:8]}"
    open_study(storage, name, "maximize")
    ready, seconds = context.Barrier(workers), context.Queue()
    arguments = [(storage, name, worker, trials, ready, seconds) for worker in range(workers)]
    children = [context.Process(target=work, args=one) for one in arguments]
    for child in children:
        child.start()
    slowest = max(seconds.get() for _ in children)
    return workers * trials / slowest


def main() -> None:
    """Measures several numbers of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("."))
    flags = parser.parse_args()
    rows = []
    for workers, trials in ((1, 10), (1, 40), (2, 20), (4, 10), (8, 10)):
        rows.append({"workers": workers, "trials": trials, "per_second": measure(flags.storage, workers, trials)})
        print(rows[-1], flush=True)
    record = {"storage": flags.storage.partition(":")[0], "cpu_count": os.cpu_count(), "epochs": EPOCHS, "rows": rows}
    (flags.output / "storage.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
