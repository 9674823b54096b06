"""Studies in a journal file shared by many jobs, and the assignment of trials to jobs.

Each batch is a separate study, because the choices of an Optuna study cannot change. A trial belongs to the job that
holds the lease in its folder; if that job dies, the trial is taken over with its parameters.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hms_dist.config.load import to_dict
from hms_dist.core import limits
from hms_dist.core.errors import UserError, first_line
from hms_dist.core.files import parse_json, read_bytes
from hms_dist.core.keyed import keyed_hash
from hms_dist.core.logging import LOG
from hms_dist.jobs.lease import LeaseHeld, acquire
from hms_dist.search.space import Parameter, Values, narrowed

JOURNAL_NAME = "journal.log"
TRIALS = "trials"
LEASE_NAME = ".claim"
_SPACE = "space"


class Store:
    """The studies of one search folder."""

    def __init__(self, folder: Path) -> None:
        """Open the journal, or create it. Raises UserError without Optuna, and for a damaged journal."""
        try:
            import optuna
        except ImportError as error:
            raise UserError("search: needs Optuna; pip install 'hms-dist[search]'") from error
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL_NAME
        lock = JournalFileOpenLock(str(path))
        self._optuna, self._folder = optuna, folder
        if path.exists():
            lock.acquire()
            try:
                _truncate_incomplete_line(path)
            finally:
                lock.release()
        try:
            self._storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        except Exception as error:  # Optuna executes the journal's lines unchecked
            raise UserError(
                f"{path}: not the journal of a search ({first_line(error)}); restore it from a copy, or choose another "
                "--out"
            ) from error

    def batch(self, number: int) -> Any:
        """The study of a batch, created if missing."""
        return self._optuna.create_study(
            study_name=f"batch-{number}", storage=self._storage, direction="minimize", load_if_exists=True
        )

    def batches(self) -> list[Any]:
        """The studies of all batches begun so far, in order."""
        return [self.batch(number) for number in range(len(self._storage.get_all_studies()))]

    def folder_of(self, batch: int, number: int) -> Path:
        """Folder of a trial."""
        return self._folder / TRIALS / f"{batch}-{number:03d}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the search's own lock for a moment; wait for other holders."""
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(acquire(self._folder / LEASE_NAME))
                    break
                except LeaseHeld:
                    time.sleep(0.1)
            yield

    def space_of(self, batch: int, space: Mapping[str, Parameter], factor: float) -> dict[str, Parameter]:
        """Space of a batch, fixed when it begins: `space`, narrowed once for each earlier batch."""
        with self.locked():
            study = self.batch(batch)
            if _SPACE not in study.user_attrs:
                now = dict(space)
                if batch:
                    before = parameters(self.batch(batch - 1).user_attrs[_SPACE])
                    now = narrowed(before, self.finished(batch - 1), factor)
                study.set_user_attr(_SPACE, to_dict(now))
            return parameters(study.user_attrs[_SPACE])

    def finished(self, batch: int) -> list[tuple[float, Values]]:
        """(mean best KL, parameters) of each finished trial of a batch, in order."""
        complete = self._optuna.trial.TrialState.COMPLETE
        return [(t.value, t.params) for t in self.batch(batch).get_trials(states=(complete,))]

    def num_running(self, batch: int) -> int:
        """Trials of a batch that are running, or were when their job died."""
        return len(self.batch(batch).get_trials(states=(self._optuna.trial.TrialState.RUNNING,)))

    @contextmanager
    def next_trial(self, batch: int, num_trials: int, num_startup: int, seed: int) -> Iterator[Any]:
        """Yield a trial of a batch, leased for this process: one whose job died, or a new one.

        Yields None if there are `num_trials` and the unfinished ones are held by other jobs. The sampler's draws depend
        only on `seed`, the batch, the trial's number and the trials before it.
        """
        with ExitStack() as stack:
            with self.locked():
                trial = self._take_over(batch, stack) or self._begin(batch, num_trials, stack)
            if trial is not None:
                key = int(keyed_hash(seed, batch, trial.number)) % 2**32
                trial.study.sampler = self._optuna.samplers.TPESampler(seed=key, n_startup_trials=num_startup)
            yield trial

    def _take_over(self, batch: int, stack: ExitStack) -> Any:
        study, running = self.batch(batch), self._optuna.trial.TrialState.RUNNING
        for frozen in study.get_trials(states=(running,)):
            with ExitStack() as held:
                try:
                    self._lease(batch, frozen.number, held)
                except LeaseHeld:
                    continue
                if study.get_trials()[frozen.number].state == running:  # it may have finished in the meantime
                    stack.push(held.pop_all())
                    return self._optuna.trial.Trial(study, frozen._trial_id)
        return None

    def _begin(self, batch: int, num_trials: int, stack: ExitStack) -> Any:
        study = self.batch(batch)
        if len(study.get_trials(deepcopy=False)) >= num_trials:
            return None
        trial = study.ask()
        self._lease(batch, trial.number, stack)
        return trial

    def _lease(self, batch: int, number: int, stack: ExitStack) -> None:
        folder = self.folder_of(batch, number)
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(acquire(folder / LEASE_NAME))


def suggested(trial: Any, space: Mapping[str, Parameter]) -> dict[str, Any]:
    """Parameters of a trial: existing ones, and new draws for the others."""
    return {
        name: trial.suggest_categorical(name, part.choices)
        if part.choices
        else trial.suggest_float(name, part.low, part.high, log=part.log)
        for name, part in space.items()
    }


def _truncate_incomplete_line(path: Path) -> None:
    """Remove an incomplete last line after a kill or a full disk: lines appended to it could not be read.

    Raises UserError naming any other damaged line.
    """
    content = read_bytes(path, limits.LOG_BYTES)
    whole = content.rfind(b"\n") + 1
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            parse_json(line)
        except ValueError as error:
            raise UserError(
                f"{path}: line {number} is damaged ({error}); restore the journal from a copy, or choose another --out"
            ) from error
    if whole < len(content):
        LOG.warning("%s: its last line was cut short and is dropped", path)
        os.truncate(path, whole)


def parameters(values: Mapping[str, Any]) -> dict[str, Parameter]:
    """Build a space from its plain values. Raises UserError if they are not a space."""
    try:
        return {name: Parameter(**{**part, "choices": tuple(part["choices"])}) for name, part in values.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{JOURNAL_NAME}: not the space of a search ({first_line(error)}); restore it") from error
