"""How an epoch scales with devices and processes: time, memory, the largest difference of a parameter, collectives.

python -m benchmarks.devices

Each layout runs in processes of its own, one after the other; on a CPU, devices are emulated and share its cores.
Writes devices.json.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from mnist_jax.rendezvous import free_port

Record = dict[str, Any]
NETWORKS = {
    "perceptron": {"model": "perceptron"},
    "cnn": {"model": "cnn", "hidden_sizes": [128], "dropout": 0.2},
    "deep_cnn": {
        "model": "deep_cnn", "filters": [24, 48, 96], "hidden_sizes": [], "norm": "batch", "dropout": 0.3,
        "rotation": 10.0, "zoom": 0.1, "translation": 2.0, "loss": "categorical_crossentropy", "label_smoothing": 0.1,
        "optimizer": "sgd", "momentum": 0.9, "learning_rate": 1e-3,
    },
}  # fmt: skip
LAYOUTS = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4))  # (devices per process, processes)
SIZES = (1, 2**8, 2**12, 2**16, 2**18, 2**20, 2**22)  # floats of an all-reduce
BATCH_SIZE, EPOCHS = 240, 4


def measure(flags: argparse.Namespace) -> None:
    """Measures in this process, as one of several; process 0 writes the record."""
    from mnist_jax.options import RunOptions
    from mnist_jax.processes import join

    several = {"coordinator": flags.coordinator, "num_processes": flags.processes, "process_id": flags.process_id}
    processes = join(RunOptions(**several if flags.processes > 1 else {}))
    with processes.taking_part():
        record = measure_collectives() if flags.network == "collectives" else measure_epochs(flags, processes)
        if processes.is_first:
            (flags.output / "record.json").write_text(json.dumps(record))


def measure_collectives() -> Record:
    """Times an all-reduce of each size, and a matrix product."""
    import jax
    import jax.numpy as jnp

    record: Record = {}
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, everywhere = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    total = jax.jit(lambda x: x.sum(axis=0), out_shardings=everywhere)
    for size in SIZES:
        shape = (jax.device_count(), size)
        array = jax.make_array_from_callback(shape, rows, lambda _, size=size: np.ones((1, size), np.float32))
        record[str(4 * size)] = min(_seconds(lambda array=array: total(array)) for _ in range(20))
    matrix = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    record["gflops"] = 2 * 2048**3 / min(_seconds(lambda: product(matrix, matrix)) for _ in range(5)) / 1e9
    return record


def measure_epochs(flags: argparse.Namespace, processes: Any) -> Record:
    """Times epochs of a network; process 0 writes the parameters after the first one."""
    import jax

    import mnist_jax as mj
    from mnist_jax.programs import compile_programs
    from mnist_jax.sharding import make_placement

    fields = {"dataset": flags.dataset, "batch_size": BATCH_SIZE, **NETWORKS[flags.network]}
    experiment = mj.Experiment(flags.network, **fields)
    programs = compile_programs(experiment, make_placement(jax.devices(), "", BATCH_SIZE))
    state, seconds = programs.init(jax.random.key(7)), []
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(programs.train(state, 0, programs.steps_per_epoch))
        seconds.append(time.perf_counter() - start)
        if not epoch:
            params = programs.fetch(state.params)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if processes.is_first:
        np.savez(flags.output / "params.npz", *jax.tree.leaves(params))
    return {"seconds": statistics.median(seconds[1:]), "peak_memory_bytes": max(processes.gather(peak))}


def _seconds(function: Any) -> float:
    start = time.perf_counter()
    function().block_until_ready()
    return time.perf_counter() - start


def run_layout(network: str, dataset: str, devices: int, processes: int, folder: pathlib.Path, pin: bool) -> Record:
    """Runs a network on some devices of some processes; pin keeps each process on a core of its own."""
    folder.mkdir(parents=True)
    address = f"localhost:{free_port()}"
    argv = [sys.executable, "-m", "benchmarks.devices", f"--network={network}", f"--dataset={dataset}"]
    argv += [f"--coordinator={address}", f"--processes={processes}", f"--output={folder}"]
    env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    children = []
    for index in range(processes):
        prefix = ["taskset", "-c", str(index % (os.cpu_count() or 1))] if pin else []
        children.append(subprocess.Popen([*prefix, *argv, f"--process_id={index}"], env=env))
    if any(child.wait() for child in children):
        raise SystemExit(f"{network} on {devices} devices of {processes} processes failed")
    return {"devices": devices * processes, "processes": processes, **json.loads((folder / "record.json").read_text())}


def main() -> None:
    """Measures all layouts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist5k")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("."))
    for name, kind in (("network", str), ("coordinator", str), ("processes", int), ("process_id", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.network:
        measure(flags)
        return
    record: Record = {"dataset": flags.dataset, "cpu_count": os.cpu_count(), "batch_size": BATCH_SIZE, "networks": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for count in (2, 4):
            where = folder / f"collectives-{count}"
            record[f"collectives of {count}"] = run_layout("collectives", flags.dataset, 1, count, where, pin=True)
        for network in NETWORKS:
            rows = record["networks"][network] = []
            for devices, processes in LAYOUTS:
                where = folder / f"{network}-{devices}-{processes}"
                rows.append(run_layout(network, flags.dataset, devices, processes, where, pin=False))
                one, other = (np.load(path / "params.npz") for path in (folder / f"{network}-1-1", where))
                rows[-1]["difference"] = max(float(np.abs(one[name] - other[name]).max()) for name in one.files)
                print(network, rows[-1], flush=True)
            for count in (1, 2):  # a core each, for the model of docs/scaling.md
                where = folder / f"{network}-pinned-{count}"
                rows.append({"pinned": True, **run_layout(network, flags.dataset, 1, count, where, pin=True)})
                print(network, rows[-1], flush=True)
            (flags.output / "devices.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
