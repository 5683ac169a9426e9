"""Where a study is kept: a journal file, SQLite or PostgreSQL, by Optuna's storages; opened so that nothing hangs."""

import contextlib
import logging
import os
import pathlib
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any

from filelock import FileLock

from mnist_jax.errors import ConfigError, summarize_exception
from mnist_jax.files import expand_user

OPTUNA_MAJOR = 5
_TIMEOUT = 10  # seconds that a data base has to answer


class _FileLock:
    """Optuna's lock on a journal file, released by the system when its process ends, however it ends."""

    def __init__(self, path: pathlib.Path):
        self._lock = FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def quiet_optuna() -> Any:
    """Imports Optuna with its log lines and warnings off the screen.

    Raises:
      ConfigError: it is of another major version, whose trials differ for the same seed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module=r"optuna\..*")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if int(optuna.__version__.partition(".")[0]) != OPTUNA_MAJOR:
        raise ConfigError(
            f"Optuna {optuna.__version__} is installed, but sweeps need {OPTUNA_MAJOR}: trials differ between them"
        )
    return optuna


def repair_journal(path: pathlib.Path) -> int:
    """Cuts a journal file back to its last complete line; Optuna could neither read nor extend one that was torn.

    Args:
      path: the file, whose lock is held.

    Returns:
      The number of bytes that were cut off.
    """
    try:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            end = size
            while end:  # backwards, in blocks
                start = max(0, end - 4096)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end < size:
                file.truncate(end)
            return size - end
    except FileNotFoundError:
        return 0


def describe_storage(storage: str) -> str:
    """Returns a storage's address without its password.

    >>> describe_storage("postgresql+psycopg://me:secret@host/db")
    'postgresql+psycopg://me:***@host/db'
    """
    if "://" not in storage:
        return storage
    import sqlalchemy

    with contextlib.suppress(sqlalchemy.exc.ArgumentError):
        return sqlalchemy.engine.make_url(storage).render_as_string(hide_password=True)
    return storage.partition("://")[0] + "://..."


@contextlib.contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """Turns what a storage raises into one line."""
    shown = describe_storage(storage)
    try:
        yield
    except ConfigError:
        raise
    except ImportError as error:
        name = error.name or "its driver"
        raise ConfigError(
            f"storage={shown}: needs the package {name}; pip install 'mnist_jax[postgresql]', or write "
            "postgresql+psycopg://..."
        ) from None
    except OSError as error:
        raise ConfigError(f"storage={shown}: can't be used: {error.strerror or error}") from None
    except RuntimeError as error:  # Optuna's, of another version's tables
        if "version" not in str(error):
            raise
        raise ConfigError(f"storage={shown}: was written by another version of Optuna; choose another one") from None
    except Exception as error:
        import sqlalchemy

        if isinstance(error, sqlalchemy.exc.ArgumentError):
            raise ConfigError(f"storage={shown}: is neither a file nor an address such as sqlite:///FILE") from None
        cause = error.__cause__ if type(error).__name__ == "StorageInternalError" else error
        if isinstance(cause, sqlalchemy.exc.SQLAlchemyError):
            reason = summarize_exception(getattr(cause, "orig", None) or cause)
            raise ConfigError(f"storage={shown}: does not answer: {reason}") from None
        raise


def _open_storage(storage: str) -> Any:
    optuna = quiet_optuna()
    if "://" not in storage:
        return _open_journal(optuna, expand_user(storage))
    if storage.startswith("sqlite"):
        arguments: dict[str, Any] = {"timeout": 60}  # that a writer waits for another one
    else:
        arguments = {"connect_timeout": _TIMEOUT}
    return optuna.storages.RDBStorage(storage, engine_kwargs={"connect_args": arguments, "pool_pre_ping": True})


def _open_journal(optuna: Any, path: pathlib.Path) -> Any:
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    path.parent.mkdir(parents=True, exist_ok=True)
    if not _is_journal(path):
        raise ConfigError(f"storage={path}: is no journal file of Optuna; choose another file")
    lock = _FileLock(path)
    lock.acquire()
    try:
        if cut := repair_journal(path):
            logging.getLogger("mnist_jax").warning("%s: cut off a torn last line of %d bytes", path, cut)
    finally:
        lock.release()
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]
    except (ValueError, KeyError) as error:
        raise ConfigError(f"storage={path}: is damaged ({summarize_exception(error)}); choose another file") from None


def _is_journal(path: pathlib.Path) -> bool:
    """Whether a file is empty, missing, or begins as a journal does; others are not touched."""
    try:
        with path.open("rb") as file:
            first = file.read(4096)
    except FileNotFoundError:
        return True
    return not first or (first.startswith(b"{") and b'"op_code"' in first) or (b"\n" not in first and first[:1] == b"{")


def open_study(storage: str, name: str, direction: str) -> Any:
    """Opens a study, or starts it.

    Args:
      storage: path of a journal file, or an address such as sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.
      name: of the study.
      direction: maximize or minimize.

    Returns:
      Optuna's study.

    Raises:
      ConfigError: the storage can't be read or written, does not answer within some seconds, or is of another version.
    """
    with storage_errors(storage):
        for seconds in (0.2, 0.5, 1.0, 2.0, None):
            try:
                opened = _open_storage(storage)
                return quiet_optuna().create_study(
                    storage=opened, study_name=name, direction=direction, load_if_exists=True
                )
            except Exception as error:
                if seconds is None or not _is_race(error):
                    raise
                time.sleep(seconds)
    raise AssertionError("unreachable")


def _is_race(error: Exception) -> bool:
    """Whether another command was creating the same tables; Optuna does not lock them."""
    import sqlalchemy

    causes = [error, error.__cause__]
    words = r"already exists|duplicate key|UNIQUE constraint"
    return any(isinstance(one, sqlalchemy.exc.SQLAlchemyError) and re.search(words, str(one)) for one in causes)
