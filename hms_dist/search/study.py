"""`hms-dist search`: run batches of trials on one study, in any number of jobs."""

import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from hms_dist.config.load import from_stored, load, stored, to_dict
from hms_dist.core.errors import JobError, Stopped, UserError
from hms_dist.core.files import read_json, sealed, unsealed, write_json
from hms_dist.core.logging import LOG
from hms_dist.results.metric_kinds import metric_of
from hms_dist.search.options import Search
from hms_dist.search.results import BEST_NAME, TABLE_NAME, write_best, write_table
from hms_dist.search.space import Parameter, with_values
from hms_dist.search.store import Store, parameters, suggested
from hms_dist.search.trial import Pruned, TrialRuns, is_behind
from hms_dist.shards.manifest import read_manifest
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.folder.run_folder import compared
from hms_dist.train.settings import TrainConfig

IDENTITY_NAME = "search.json"
GIVEN_BY_TRIALS = ("shards", "out", "fold")
"""Options of a training run that are not part of its recipe."""
WAIT_S = 2.0
"""Seconds between two polls of other jobs' trials, at the end of a batch."""


def run(command: Search) -> None:
    """Run the command `search`. Raises UserError for errors found before any trial, JobError if no trial finished."""
    command.launch.command([])  # checked before any work
    config = _recipe(command, command.trial_words)
    fingerprint = _check(command, config)
    store = Store(command.out)
    with store.locked():
        _check_same(command, fingerprint, config)
    for batch in range(command.num_batches):
        space = store.space_of(batch, command.space, command.narrowing)
        while _work(command, store, batch, space, config):
            with store.locked():
                _write_results(command, store)
    with store.locked():
        if not _write_results(command, store):
            raise JobError(f"{command.out}: no trial came to its end; see {TABLE_NAME} and the logs in trials/")


def _work(command: Search, store: Store, batch: int, space: dict[str, Parameter], config: dict[str, Any]) -> bool:
    """Do a trial, or wait briefly for those of other jobs; False if the batch is finished for this job."""
    with store.next_trial(batch, command.num_trials, command.num_startup, command.seed) as trial:
        if trial is None:
            last = batch == command.num_batches - 1
            if last or not store.num_running(batch):
                return False
            time.sleep(WAIT_S)
        else:
            _try(command, store, batch, trial, with_values(config, space, suggested(trial, space)))
    return True


def _try(command: Search, store: Store, batch: int, trial: Any, config: dict[str, Any]) -> None:
    """Run one trial and record its end in the study. A trial that is stopped from outside, or held by another job,
    stays open."""
    folder = store.folder_of(batch, trial.number)
    LOG.info("batch %d trial %d: %s", batch, trial.number, trial.params)
    runs = TrialRuns(folder=folder, config=config, shards=command.shards, folds=command.folds, launch=command.launch)
    try:
        value = runs.train(partial(_report, trial, command.num_startup))
    except Pruned:
        trial.study.tell(trial, state=_state("PRUNED"))
        LOG.info("batch %d trial %d: behind, stopped", batch, trial.number)
    except Stopped:
        raise
    except JobError as error:
        trial.study.tell(trial, state=_state("FAIL"))
        LOG.warning("batch %d trial %d failed: %s", batch, trial.number, error)
    except UserError:
        trial.study.tell(trial, state=_state("FAIL"))
        raise
    else:
        trial.study.tell(trial, value)
        LOG.info("batch %d trial %d: validation value %.4f", batch, trial.number, value)


def _report(trial: Any, num_startup: int, step: int, value: float) -> bool:
    """Record an epoch's value in the study; return whether the trial should continue, given the earlier trials."""
    trials = trial.study.get_trials(states=(_state("COMPLETE"), _state("PRUNED")))
    if step not in trial.study.get_trials()[trial.number].intermediate_values:
        trial.report(value, step)
    others = [t.intermediate_values[step] for t in trials if step in t.intermediate_values]
    return not is_behind(value, others, num_startup)


def _recipe(command: Search, words: list[str]) -> dict[str, Any]:
    """Options of a training run, without those set by each trial, as stored."""
    given = ["--shards", command.shards, "--out", str(command.out), "--fold", str(command.folds[0])]
    options = stored(load(TrainConfig, [*words, *given], prog="hms-dist train"))
    return {name: value for name, value in options.items() if name not in GIVEN_BY_TRIALS}


def _check(command: Search, config: dict[str, Any]) -> str:
    """Check both ends of the space before any trial, as a run would; return the shard set's fingerprint."""
    ends = [
        {
            name: part.choices[end] if part.choices else (part.low, part.high)[end]
            for name, part in command.space.items()
        }
        for end in (0, -1)
    ]
    for values in ends:
        for fold in command.folds:
            given = {"shards": command.shards, "out": str(command.out), "fold": fold}
            found = from_stored(TrainConfig, {**with_values(config, command.space, values), **given}, "space")
    data = open_run_data(found)
    data.close()
    return data.shards.manifest.fingerprint


def _check_same(command: Search, fingerprint: str, config: dict[str, Any]) -> None:
    """Raise UserError if the folder holds another study; otherwise record the identity of this one."""
    path = command.out / IDENTITY_NAME
    space = {name: asdict(part) for name, part in command.space.items()}
    identity = {
        "shards": fingerprint, "config": config, "space": to_dict(space), "folds": list(command.folds),
        "seed": command.seed,
    }  # fmt: skip
    if path.exists():
        before, now = (_meaning(each, command.folds[0]) for each in (_identity_before(path), identity))
        different = [name for name in now if before.get(name) != now[name]]
        if different:
            raise UserError(
                f"{command.out}: holds a study whose {' and '.join(different)} differ; choose another --out, or give "
                "what the study began with"
            )
    write_json(path, sealed(identity))


def _meaning(identity: dict[str, Any], fold: int) -> dict[str, Any]:
    """Identity of a study for comparison, independent of the format version in which it was stored."""
    found = dict(identity)
    with suppress(UserError, KeyError, TypeError, ValueError):  # unreadable: different
        given = {"shards": "", "out": IDENTITY_NAME, "fold": fold}
        found["config"] = compared(from_stored(TrainConfig, {**identity["config"], **given}, IDENTITY_NAME))
        found["space"] = parameters(identity["space"])
    return found


def _identity_before(path: Path) -> dict[str, Any]:
    try:
        before = unsealed(read_json(path), path)
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); restore it, or choose another --out") from error
    return before if isinstance(before, dict) else {}


def _write_results(command: Search, store: Store) -> bool:
    """Write the table and, if a trial finished, the best configuration; return whether one did."""
    studies, metric = store.batches(), metric_of(read_manifest(command.shards).dataset)
    write_table(command.out / TABLE_NAME, studies, metric)
    return write_best(command.out / BEST_NAME, studies, _recipe(command, command.words), command.space, metric)


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]
