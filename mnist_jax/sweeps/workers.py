"""Worker processes, each pinned to a core, that train chunks as an Executor does; and lanes that share chunks out."""

import contextlib
import copy
import dataclasses
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from mnist_jax.config import Config, Hyperparams
from mnist_jax.errors import ConfigError, MnistJaxError, summarize_exception
from mnist_jax.experiment import Experiment
from mnist_jax.sweeps.chunk import Chunk, DataShape, Outcome, Splits
from mnist_jax.sweeps.executor import Executor

_TRIES = 2  # of a chunk whose worker process died


class Lane(Protocol):
    """What trains one chunk at a time: an Executor, or a worker process that has one."""

    def run(self, chunk: Chunk, on_epoch: Callable[[int], None]) -> list[Outcome]: ...

    def seconds_per_epoch(self, config: Config, hparams: Hyperparams, seed: int, budget: float) -> float: ...


def _pin(core: int) -> None:
    """Keeps every thread of this process on one core, those that JAX has started included."""
    with contextlib.suppress(AttributeError, OSError):  # not on macOS
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), [core])


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _serve(conn: Connection) -> None:
    """The main function of a worker process."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        executor = _make_executor(*conn.recv())
        while True:
            _answer(conn, executor)


def _make_executor(
    pickled: bytes, splits: Splits, shape: DataShape, core: int, is_exact: bool, caches: bool
) -> Executor:
    if not is_exact:
        _pin(core)
    from mnist_jax.devices import choose_device, enable_compilation_cache

    if caches:
        enable_compilation_cache()
    device = choose_device("cpu")
    if is_exact:  # as many threads as a run alone has, which decide how sums are split, but all on one core
        _pin(core)
    return Executor(pickle.loads(pickled), splits, shape, device)


def _answer(conn: Connection, executor: Executor) -> None:
    method, args = conn.recv()
    extra = (lambda epoch: conn.send(("epoch", epoch)),) if method == "run" else ()
    try:
        answer = "done", getattr(executor, method)(*args, *extra)
    except MnistJaxError as error:
        answer = "failed", (type(error), str(error))
    except BrokenPipeError:
        raise
    except Exception as error:
        answer = "failed", (RuntimeError, f"{type(error).__name__}: {summarize_exception(error)}")
    conn.send(answer)


class WorkerDiedError(RuntimeError):
    """The worker process ended by itself, or was killed."""


class WorkerProcess:
    """An Executor in a process of its own, started when it is first used."""

    def __init__(self, *arguments: Any):
        """Takes what an Executor takes, beside: the core, whether results must have the bits of a run alone, caches."""
        self.arguments = arguments
        self.process: Any = None
        self.conn: Connection | None = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self.conn, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        resource_tracker.ensure_running()  # which unblocks SIGINT
        # A terminal sends SIGINT to all processes; the parent decides. A new process inherits what its thread blocks.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self.conn.send(self.arguments)  # not as arguments of the process, which prints a traceback if they are cut off
        return self.conn

    def _call(self, method: str, args: tuple[Any, ...], on_epoch: Callable[[int], None]) -> Any:
        try:
            conn = self.conn or self._start()
            conn.send((method, args))
            while True:
                kind, value = conn.recv()
                if kind == "done":
                    return value
                if kind == "failed":
                    raise value[0](value[1])
                on_epoch(value)
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.close()
            how = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with status {code}"
            raise WorkerDiedError(f"the worker process was {how}") from None

    def run(self, chunk: Chunk, on_epoch: Callable[[int], None]) -> list[Outcome]:
        """As Executor.run."""
        return self._call("run", (chunk,), on_epoch)

    def seconds_per_epoch(self, config: Config, hparams: Hyperparams, seed: int, budget: float) -> float:
        """As Executor.seconds_per_epoch."""
        return self._call("seconds_per_epoch", (config, hparams, seed, budget), lambda epoch: None)

    def close(self) -> None:
        """Ends the process; the next call starts another one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.process = self.conn = None


def start_workers(
    experiment: Experiment, splits: Splits, shape: DataShape, count: int, is_exact: bool, caches: bool
) -> list[WorkerProcess]:
    """Prepares worker processes, a core for each.

    Args:
      experiment: must be such that other processes can import its parts.
      splits: as for an Executor.
      shape: as for an Executor.
      count: number of processes.
      is_exact: whether results must have the bits of a run alone, which costs some speed.
      caches: whether compiled programs are kept in the user's cache.

    Returns:
      The workers; their processes start when they are first used.

    Raises:
      ConfigError: the experiment can't be sent to other processes.
    """
    bare = copy.copy(experiment)
    for name in ("dataset", "splits", "_own"):
        bare.__dict__.pop(name, None)
    bare.parts = {name: part for name, part in bare.parts.items() if name != "dataset"}
    try:
        pickled = pickle.dumps(bare)
    except Exception as error:  # whatever a part's own reduction does
        raise ConfigError(
            f"engine=process: the experiment can't be sent to other processes ({summarize_exception(error)}); define "
            "its parts by name at the top of a module, or use engine=vmap"
        ) from None
    arrays = {name: tuple(map(np.asarray, splits[name])) for name in ("train", "validation")}
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return [WorkerProcess(pickled, arrays, shape, cores[i % len(cores)], is_exact, caches) for i in range(count)]


def _halves(chunk: Chunk) -> list[Chunk]:
    """Two chunks of half the runs of one seed."""
    middle = chunk.width // 2
    parts = []
    for part in (slice(0, middle), slice(middle, chunk.width)):
        hparams = {name: values[part] for name, values in chunk.hparams.items()}
        states, records = chunk.states[part], chunk.records[part]
        parts.append(dataclasses.replace(chunk, hparams=hparams, states=states, records=records))
    return parts


def _train(lane: Lane, chunk: Chunk, on_epoch: Callable[[int], None]) -> list[Outcome]:
    """Trains a chunk; one that does not fit into memory in halves. What fails has its reason in the outcome."""
    for attempt in range(_TRIES):
        try:
            return lane.run(chunk, on_epoch)
        except WorkerDiedError as error:
            if attempt + 1 < _TRIES:
                continue
            reason = str(error)
        except Exception as error:
            text = str(error)
            is_memory = "GiB of memory" in text or "out of memory" in text or "RESOURCE_EXHAUSTED" in text
            if is_memory and chunk.width > 1 and len(chunk.seeds) == 1:
                return [outcome for half in _halves(chunk) for outcome in _train(lane, half, on_epoch)]
            known = isinstance(error, MnistJaxError | RuntimeError)
            reason = summarize_exception(error) if known else f"{type(error).__name__}: {summarize_exception(error)}"
        break
    records = chunk.records or [[]] * (chunk.width * len(chunk.seeds))
    seeds = [seed for seed in chunk.seeds for _ in range(chunk.width)]
    return [Outcome(seed, list(one), 0.0, reason, None) for seed, one in zip(seeds, records, strict=True)]


def train_chunks(
    lanes: Sequence[Lane],
    chunks: Iterable[Chunk],
    on_outcomes: Callable[[int, list[Outcome]], None],
    on_epoch: Callable[[int, int], None],
) -> None:
    """Trains chunks, each on the lane that is free first.

    Args:
      lanes: what they are trained on.
      chunks: what to train.
      on_outcomes: called with the number of each chunk and its outcomes, in the calling thread.
      on_epoch: called with the number of a chunk and of each epoch that it has done, in the calling thread.
    """
    waiting = queue.SimpleQueue[tuple[int, Chunk]]()
    events = queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]]()
    count = 0
    for number, chunk in enumerate(chunks):
        waiting.put((number, chunk))
        count += 1

    def work(lane: Lane) -> None:
        while True:
            try:
                number, chunk = waiting.get_nowait()
            except queue.Empty:
                return

            def report(epoch: int, number: int = number) -> None:
                events.put((on_epoch, (number, epoch)))

            events.put((on_outcomes, (number, _train(lane, chunk, report))))

    threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in lanes]
    for thread in threads:
        thread.start()
    while count:
        function, arguments = events.get()
        function(*arguments)
        count -= function is on_outcomes
    for thread in threads:
        thread.join()
