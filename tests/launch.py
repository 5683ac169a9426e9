"""Starts Python as a command line does, but forked from a process that holds the libraries: half of a short run's time.

Our own package is not among them, so each process imports it from where its own path says.
"""

import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
# What macOS loads does not survive a fork.
_CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
_CONTEXT.set_forkserver_preload(
    [
        *("jax", "flax.linen", "flax.nnx", "optax", "orbax.checkpoint", "optuna"),
        *("matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image", "scipy.stats", "sklearn.metrics"),
    ]
)


def _become(argv, cwd, env, stdout, stderr):
    """In the forked process: does what the interpreter does with these arguments."""
    for path, descriptor in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    libraries = [path for path in sys.path if "site-packages" in path or not path.startswith(str(ROOT))]
    sys.path[:] = [str(cwd), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *libraries]
    what, *rest = argv
    if what == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = argv
        runpy.run_path(what, run_name="__main__")


class Python:
    """A process that runs `python ARGUMENTS`, with the methods of subprocess.Popen; its output goes into two files."""

    def __init__(self, *argv, cwd=ROOT, env=None, stdout=os.devnull, stderr=os.devnull):
        argv, env = [*map(str, argv)], dict(os.environ) if env is None else env
        self.stderr = stderr
        for path in (stdout, stderr):  # so that they can be read from now on
            pathlib.Path(path).touch()
        self._process = _CONTEXT.Process(target=_become, args=(argv, cwd, env, stdout, stderr))
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python", timeout)
        return self._process.exitcode

    def wait_until_it_writes(self, text):
        """Waits for a text on stderr, which must be a file."""
        while text not in self.stderr.read_text():
            assert self.poll() is None, self.stderr.read_text()
            time.sleep(0.02)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run_python(*argv, **options):
    """As subprocess.run(["python", *argv], capture_output=True, text=True)."""
    with tempfile.TemporaryDirectory() as folder:
        streams = {name: pathlib.Path(folder, name) for name in ("stdout", "stderr")}
        status = Python(*argv, **options, **streams).wait()
        return subprocess.CompletedProcess(argv, status, **{name: path.read_text() for name, path in streams.items()})
