"""The trials of a sweep as several commands share them: claimed, leased, recorded once.

Optuna's own heartbeat works in Study.optimize and data bases only. So each command (a client) renews a lease, a number
in the study that counts up; one that another client has not seen counting for LEASE seconds of its own clock is dead,
and its trials may be taken over. A client that comes back finds its trials again by its name.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mnist_jax.errors import ConfigError
from mnist_jax.types import Record

LEASE = 60.0  # seconds after which a client that gives no sign is dead
_DEFINITION, _POINT, _CLIENT, _LEASE = "definition", "point", "client", "lease:"


class Trial(NamedTuple):
    """A trial as this package sees it."""

    number: int
    id: int
    point: int  # which of the sweep's points: trials of the same one have other seeds, or are duplicates
    state: str  # RUNNING, COMPLETE, PRUNED or FAIL
    params: dict[str, Any]
    attrs: Record  # seeds, scores, history, seconds, reason, ...


def check_same(stored: Record, definition: Record, where: str) -> None:
    """Compares a sweep's definition with the one that is stored.

    Args:
      stored: of JSON's types, section by section.
      definition: likewise.
      where: it is stored, for the message.

    Raises:
      ConfigError: they differ; the message says in what.
    """
    old, new = _flat(stored), _flat(definition)
    changed = [
        f"{name}: was {_short(old.get(name))}, is {_short(new.get(name))}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    if changed:
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ConfigError(f"{'; '.join(changed[:3])}{more}, {where}; choose another workdir")


class SharedStudy:
    """A study, as one client uses it."""

    def __init__(self, study: Any, client: str, lease: float = LEASE):
        self.study, self.client, self.lease = study, client, lease
        self._seen: dict[str, tuple[int, float]] = {}  # client -> its count, and when it was first seen
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._count = 0

    def define(self, definition: Record) -> None:
        """Stores what the sweep is, or compares it with what is stored.

        Args:
          definition: of JSON's types, section by section.

        Raises:
          ConfigError: it differs; the message says in what.
        """
        stored = self.study.user_attrs.get(_DEFINITION)
        if stored is None:
            self.study.set_user_attr(_DEFINITION, definition)
        else:
            check_same(stored, definition, f"in the study {self.study.study_name!r}")

    def renew(self) -> None:
        """Counts this client's lease up."""
        self._count += 1
        self.study.set_user_attr(_LEASE + self.client, [self._count, time.time()])

    def __enter__(self) -> "SharedStudy":
        self._count = self.study.user_attrs.get(_LEASE + self.client, [0])[0]
        self.renew()

        def keep() -> None:
            while not self._stop.wait(self.lease / 4):
                with contextlib.suppress(Exception):  # a storage that does not answer now may do so later
                    self.renew()

        self._thread = threading.Thread(target=keep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _is_dead(self, client: str, attrs: Record, now: float) -> bool:
        count = attrs.get(_LEASE + client, [0])[0]
        if self._seen.get(client, (None,))[0] != count:
            self._seen[client] = count, now
        return now - self._seen[client][1] > self.lease

    def trials(self) -> list[Trial]:
        """Lists all trials but duplicates, in their order."""
        found = []
        for frozen in self.study.get_trials(deepcopy=False):
            attrs = frozen.user_attrs
            if _POINT not in attrs or attrs.get("reason") == "duplicate":
                continue
            found.append(Trial(frozen.number, frozen._trial_id, attrs[_POINT], frozen.state.name, frozen.params, attrs))
        return found

    def _mine(self) -> list[Trial]:
        """This client's running trials; of those that another trial of the same runs precedes, the claim is undone."""
        import optuna

        first: dict[Any, Trial] = {}
        mine = []
        for trial in self.trials():
            key = trial.point, tuple(trial.attrs["seeds"])
            is_mine = trial.state == "RUNNING" and trial.attrs.get(_CLIENT) == self.client
            if is_mine and key in first:
                self.set_attr(trial, "reason", "duplicate")
                self._tell(trial, None, optuna.trial.TrialState.FAIL)
            elif is_mine:
                mine.append(trial)
            first.setdefault(key, trial)
        return mine

    def held(self) -> list[Trial]:
        """Returns this client's running trials, and takes over those of dead clients, which it returns the next time.

        Of two clients that take over the same trial, the last one to write has it.
        """
        now, attrs = time.monotonic(), self.study.user_attrs
        mine = self._mine()
        for trial in self.trials():
            owner = trial.attrs.get(_CLIENT)
            if (
                trial.state == "RUNNING"
                and owner != self.client
                and (owner is None or self._is_dead(owner, attrs, now))
            ):
                self.set_attr(trial, _CLIENT, self.client)
        return mine

    def claim(self, points: Sequence[tuple[int, dict[str, Any], dict[str, Any], Record, Record]]) -> list[Trial]:
        """Adds running trials of points that no one had; of two clients that do so at once, the first one has them.

        Args:
          points: for each its number, params, distributions, attributes, and the sampler's attributes.

        Returns:
          The trials that are this client's.
        """
        import optuna

        for point, params, distributions, attrs, system_attrs in points:
            running = optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING,
                params=params,
                distributions=distributions,
                user_attrs={_POINT: point, _CLIENT: self.client, **attrs},
                system_attrs=system_attrs,
            )
            self.study.add_trial(running)
        wanted = {(point, tuple(attrs["seeds"])) for point, _, _, attrs, _ in points}
        return [trial for trial in self._mine() if (trial.point, tuple(trial.attrs["seeds"])) in wanted]

    def set_attr(self, trial: Trial, name: str, value: Any) -> None:
        """Stores an attribute of a running trial; of one that another client has finished, nothing.

        Args:
          trial: a running one.
          name: of the attribute.
          value: of JSON's types.
        """
        import optuna

        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.study._storage.set_trial_user_attr(trial.id, name, value)

    def report(self, trial: Trial, step: int, value: float, system_attrs: Record) -> None:
        """Stores the score at a rung, and what the pruner remembers of it.

        Args:
          trial: a running one.
          step: epochs that it has trained.
          value: of the objective, the mean over seeds.
          system_attrs: the pruner's.
        """
        import optuna

        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.study._storage.set_trial_intermediate_value(trial.id, step, value)
            for name, attr in system_attrs.items():
                self.study._storage.set_trial_system_attr(trial.id, name, attr)

    def tell(self, trial: Trial, state: str, value: float | None, attrs: Record) -> None:
        """Finishes a trial; one that another client has finished meanwhile, with the same numbers, is left alone.

        Args:
          trial: a running one.
          state: COMPLETE, PRUNED or FAIL.
          value: of the objective, where it is complete.
          attrs: what to store with it.
        """
        import optuna

        for name, attr in attrs.items():
            self.set_attr(trial, name, attr)
        self._tell(trial, value if state == "COMPLETE" else None, getattr(optuna.trial.TrialState, state))

    def _tell(self, trial: Trial, value: float | None, state: Any) -> None:
        import optuna

        values = None if value is None else [value]
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.study._storage.set_trial_state_values(trial.id, state=state, values=values)

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns a value of the study, computed by whoever asks first.

        Args:
          name: of the value.
          compute: returns it, of JSON's types.
        """
        stored = self.study.user_attrs.get(name)
        if stored is None:
            stored = compute()
            self.study.set_user_attr(name, stored)
        return stored


def _flat(record: Record) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _short(value: Any) -> str:
    return "not set" if value is None else str(value)[:60]
