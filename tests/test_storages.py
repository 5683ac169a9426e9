"""Several commands work on one study, in a journal file, SQLite and PostgreSQL; some of them are killed."""

import csv
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import psutil
import pytest
from conftest import ROOT, command, mark_slow
from launch import Python

FLAGS = ("--epochs=1", "--engine=serial", "--test_seeds=0", "--space=learning_rate=1e-4:1e-1:log", "--trials=48")


def table(workdir):
    with (workdir / "trials.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "trial")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """The trials of a sweep by one command."""
    workdir = tmp_path_factory.mktemp("alone") / "study"
    done = command(
        "--experiment=softmax", f"--dataset=idx:{folder}", *FLAGS, f"--workdir={workdir}", experiment="sweep"
    )
    assert done.returncode == 0, done.stderr
    return table(workdir)


@pytest.fixture(scope="module")
def postgresql():
    """The address of a server that listens on a socket in a temporary folder."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = shutil.which("initdb") or next(map(str, pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if not found:
        pytest.skip("PostgreSQL is not installed")
    programs = pathlib.Path(found).resolve().parent
    user = {"user": "postgres"} if os.getuid() == 0 else {}  # the server refuses to be run by root
    place = pathlib.Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path must be short
    if user:
        shutil.chown(place, "postgres")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": place, **user}
    subprocess.run([programs / "initdb", "-D", place / "data", "-U", "me", "--auth=trust", "-N"], check=True, **quiet)
    server = subprocess.Popen(
        [programs / "postgres", "-D", place / "data", "-k", place, "-c", "listen_addresses="], **quiet
    )
    drain = threading.Thread(target=server.stderr.read, daemon=True)
    drain.start()
    try:
        ready = [programs / "pg_isready", "-q", "-h", place, "-U", "me", "-d", "postgres"]
        deadline = time.monotonic() + 30
        while subprocess.run(ready).returncode:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield f"postgresql+psycopg://me@/postgres?host={place}"
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown
        server.wait(timeout=30)
        drain.join()
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("kind", mark_slow(["journal", "sqlite", "postgresql"], fast=["journal"]))
def test_four_commands_of_which_two_are_killed_lose_nothing(folder, tmp_path, alone, kind, request):
    workdir = tmp_path / "study"
    storage = {"journal": "", "sqlite": f"sqlite:///{tmp_path}/study.db"}.get(kind)
    if storage is None:
        storage = request.getfixturevalue("postgresql")
    line = ["-m", "mnist_jax", "sweep", "--experiment=softmax", f"--dataset=idx:{folder}", *FLAGS]
    line += [f"--workdir={workdir}", f"--storage={storage}"]

    def start(number):
        return Python(*line, stderr=tmp_path / f"{number}.err")

    clients = [start(number) for number in range(4)]
    clients[0].wait_until_it_writes("\ntrial")
    for client in clients[:2]:
        client.kill()
        client.wait()
    for client in (*clients[2:], start(4), start(5)):
        assert client.wait(timeout=240) == 0, client.stderr.read_text()
    assert table(workdir) == alone and len(alone) == 48


@pytest.mark.long
def test_memory_stays_flat_over_two_thousand_trials(folder, tmp_path):
    line = [sys.executable, "-m", "mnist_jax", "sweep", "--experiment=softmax", f"--dataset=idx:{folder}", *FLAGS]
    line += ["--trials=2000", "--engine=vmap", f"--workdir={tmp_path}/study"]
    sizes = []
    with subprocess.Popen(
        line, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    ) as process:
        for text in process.stderr:
            if text.startswith("trial ") and text.split()[1] in ("200", "1990"):
                sizes.append(psutil.Process(process.pid).memory_info().rss)
    assert process.returncode == 0 and len(table(tmp_path / "study")) == 2000
    assert sizes[1] < 1.2 * sizes[0]
