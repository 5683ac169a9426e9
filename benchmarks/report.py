"""The lines that the benchmark prints for its records."""

from benchmarks.cases import MNIST_JAX
from benchmarks.compare import Record


def format_case(case: Record) -> str:
    """Formats a record of `compare.compare`, one line per implementation."""
    lines = [f"\n{case['model']} {case['dtype']} {case['task']}, batch size {case['batch_size']}"]
    for name, summary in case["implementations"].items():
        speedup = summary["speedup"]
        is_baseline = speedup and name != MNIST_JAX
        lines.append(
            f"  {name:20} {summary['images_per_second']:12,.0f} images/s  {summary['fraction_of_peak']:4.0%} of peak  "
            f"compile {summary['compile_seconds']:5.1f} s  {summary['peak_memory_bytes'] / 2**20:6,.0f} MiB  "
            + ("speedup {median:.2f} ({min:.2f} to {max:.2f})".format(**speedup) if is_baseline else "")
        )
    lines += [f"  {name:20} failed: {reason}" for name, reason in case["failures"].items()]
    return "\n".join(lines)


def format_target(record: Record) -> str:
    """Formats a record of `targets.time_to_accuracy` as one line."""
    if "failure" in record:
        return f"time to {record['target']} %: {record['failure']}"
    accuracy = record["test_accuracy"]
    return (
        f"time to {record['target']} %: {record['seconds_per_seed']:.2f} s per seed, {record['process_seconds']:.1f} s "
        f"per process, test accuracy {100 * accuracy['mean']:.2f} % (n={accuracy['n']})"
    )


def format_start_up(record: Record) -> str:
    """Formats a record of `start_up.measure_start_up`, one line per measurement."""
    lines = []
    for name, value in record.items():
        if isinstance(value, dict):
            value = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in value.items())
        lines.append(f"{name}: {value if isinstance(value, str) else format(value, '.2f')}")
    return "\n".join(lines)


def format_goal(record: Record) -> str:
    """Formats a record of `goals.evaluate_goals` as one line."""
    unit = " s" if record["unit"] == "s" else record["unit"]
    measured = "not measured" if record["measured"] is None else f"{record['measured']:.2f}{unit}"
    verdict = {None: "", True: ", met", False: ", not met"}[record["is_met"]]
    return f"goal: {record['goal']}, {record['target']:g}{unit}: {measured}{verdict}"
