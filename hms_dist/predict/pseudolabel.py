"""`hms-dist pseudolabel`: label rows with few votes by the mean of models' predictions (the 16th place's stage 2)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.labels.table import FOLD_COUNTS
from hms_dist.predict.members import Members, joined_sources, read_members
from hms_dist.predict.submissions import StatedModels
from hms_dist.results.lineage import ModelRecord
from hms_dist.results.predictions import check_no_input, check_rows, prediction_table, write_predictions
from hms_dist.shards.index import Index, Rows, fold_column, open_set

OTHER = "other"
"""Class of `max_other`."""
MAX_VOTES = 7
"""Default of `max_votes`: the 16th place's low-vote rows."""


@dataclass(frozen=True, kw_only=True)
class PseudoLabel:
    """Label the rows with few votes by the mean of models' predictions; print counts as JSON. For independent
    yes/no classes: the rows with an unknown class; their known classes stay as they are.

    The table is an `overlay.file`. It records its models, and a run whose validation patients any of them has seen
    rejects it: for a run with fold K give the predictions of runs with fold K; with fold none, of any.
    """

    predictions: tuple[Path, ...]
    """Tables of the models, .parquet, of the same rows, at least all those with few votes. Submissions (.csv) too, if
    `submissions` describes their models: with a column eeg_sub_id, unless each EEG has one row."""
    shards: str
    """Folder of the shard set whose rows are labelled, or its URL."""
    out: Path
    """Table to write, .parquet: key, ids and a probability per class."""
    max_votes: int | None = None
    """Rows with at most this many votes are labelled. None: 7 (the 16th place's low-vote rows)."""
    max_other: float | None = 0.8
    """Leave out an EEG if the mean share of `other` in any of its labelled rows is at least this (the 16th place).
    None: keep all, as in a data set without that class."""
    vote_share: float = 0.0
    """Weight of a row's own votes in its label, 0 to 1; the rest is the models'."""
    submissions: StatedModels | None = None
    """Models behind the .csv tables, which name none. None: all tables are .parquet."""

    def __post_init__(self) -> None:
        if not self.predictions:
            raise ValueError("predictions: name at least one table")
        tables = [path for path in self.predictions if path.suffix == ".csv"]
        if tables and self.submissions is None:
            raise ValueError(
                f"predictions: {tables[0]} does not record which models made it; state them with --submissions.name "
                "and, if they held out a fold, --submissions.fold"
            )
        if self.submissions is not None and not tables:
            raise ValueError("submissions: states what .csv tables are, and predictions names none; leave it out")
        if self.out.suffix != ".parquet":
            raise ValueError(f"out: expected a name ending in .parquet, found {self.out.name}")
        if self.max_votes is not None and self.max_votes < 1:
            raise ValueError(f"max_votes: expected at least 1, found {self.max_votes}")
        if self.max_other is not None and not 0 < self.max_other <= 1:
            raise ValueError(f"max_other: expected a share in (0, 1], or null, found {self.max_other}")
        if not 0 <= self.vote_share <= 1:
            raise ValueError(f"vote_share: expected 0 to 1, found {self.vote_share}")


def run(command: PseudoLabel) -> None:
    """Run the command `pseudolabel`."""
    print(json.dumps(pseudolabel(command), indent=1))


def pseudolabel(command: PseudoLabel) -> dict[str, Any]:
    """Write the table; return the counts that `run` prints.

    Raises UserError for keys that are not in the shard set, low-vote rows that the tables lack, and if no label is
    left.
    """
    check_no_input(command.out, command.predictions)
    manifest, index = open_set(command.shards)
    members = read_members(command.predictions, index=index)
    if command.submissions is not None:
        members = _with_stated(members, command.submissions, index, manifest.fingerprint)
    dataset = index.dataset
    low = _unsure_rows(index, command)
    means = members.probabilities.mean(axis=0)[_places(members.ids["key"].tolist(), index, low, command)]
    if dataset.target == "yes_no":
        dropped, rows, labels = np.zeros(len(low), bool), low, completed(index.targets[low], means)
    else:
        others = means[:, dataset.classes.index(OTHER)] if OTHER in dataset.classes else None
        dropped = unsure_eegs(index.ids("eeg_id")[low], others, command.max_other)
        rows, labels = low[~dropped], blended(means[~dropped], index.targets[low[~dropped]], command.vote_share)
    if not len(rows):
        raise UserError(f"max_other: {command.max_other} leaves none of {len(low)} rows with few votes; raise it")
    sources = joined_sources(members)
    known = bool(sources) and not any(source.model.unknown for source in sources)
    check_rows(command.out, index.ids("eeg_id")[rows])
    write_predictions(command.out, prediction_table(index.frame.iloc[rows], None, labels, dataset), sources, dataset)
    unseen = unseen_folds(index, [source.model for source in sources]) if known else None
    if dataset.target == "yes_no":
        return {
            "num_models": len(command.predictions),
            "num_labelled_rows": len(rows),
            "num_labelled_cells": int(np.isnan(index.targets[rows]).sum()),
            "validation_folds_unseen": unseen,
        }
    return {
        "num_models": len(command.predictions),
        "num_low_vote_rows": len(low),
        "num_dropped_rows": int(dropped.sum()),
        "num_dropped_eegs": len(np.unique(index.ids("eeg_id")[low[dropped]])),
        "num_labelled_rows": len(rows),
        "validation_folds_unseen": unseen,
    }


def _unsure_rows(index: Index, command: PseudoLabel) -> Rows:
    """The rows to label. Raises UserError for options that count votes for independent yes/no classes, or if none is
    left."""
    if index.dataset.target == "shares":
        return np.flatnonzero(index.num_voters <= (command.max_votes or MAX_VOTES))
    for name, is_set in {"max_votes": command.max_votes is not None, "vote_share": command.vote_share > 0}.items():
        if is_set:
            raise UserError(
                f"{name}: counts votes, and the classes of data set {index.dataset.name} are independent "
                "(target yes_no); leave it out"
            )
    rows = np.flatnonzero(np.isnan(index.targets).any(axis=1))
    if not len(rows):
        raise UserError(f"{command.shards}: every class is known in every row, so there is nothing to label")
    return rows


def completed(targets: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Targets with the models' means in the unknown cells [rows, classes]."""
    return np.where(np.isnan(targets), means, targets)


def unsure_eegs(
    eeg_ids: NDArray[np.int64], others: NDArray[np.float64] | None, max_other: float | None
) -> NDArray[np.bool_]:
    """Mask [rows] of the rows of every EEG (`eeg_ids` [rows]) in which any row's mean for class `other` (`others`
    [rows]) is at least `max_other`; the 16th place's `pl_other_vote_threshold`."""
    if max_other is None or others is None:
        return np.zeros(len(eeg_ids), bool)
    return np.isin(eeg_ids, eeg_ids[others >= max_other])


def blended(means: NDArray[np.float64], votes: NDArray[np.float64], vote_share: float) -> NDArray[np.float64]:
    """Blend (1 - `vote_share`) of the models' means and `vote_share` of the votes' shares [rows, classes], sums 1."""
    labels = (1 - vote_share) * means + vote_share * votes
    return np.asarray(labels / labels.sum(axis=1, keepdims=True))


def unseen_folds(index: Index, models: Iterable[ModelRecord]) -> dict[str, list[int]]:
    """For each number of folds that the models used, the validation folds without a patient that any has seen."""
    known = list(models)
    seen = np.isin(index.ids("patient_id"), list(frozenset().union(*(model.seen for model in known))))
    counts = {model.num_folds for model in known} & {*FOLD_COUNTS}
    found = {}
    for num_folds in sorted(count for count in counts if not index.frame[fold_column(count)].isna().any()):
        found[str(num_folds)] = sorted({*range(num_folds)} - {*index.folds(num_folds)[seen].tolist()})
    return found


def _with_stated(members: Members, stated: StatedModels, index: Index, shards: str) -> Members:
    """Add the stated models behind the tables that are submissions to `members`."""
    sources = [
        (stated.source(path, index, shards),) if path.suffix == ".csv" else known
        for path, known in zip(members.paths, members.sources, strict=True)
    ]
    return replace(members, sources=tuple(sources))


def _places(keys: list[str], index: Index, low: Rows, command: PseudoLabel) -> NDArray[np.int64]:
    """Positions of all low-vote rows in the tables."""
    place_of = {key: place for place, key in enumerate(keys)}
    known = set(index.frame["key"])
    foreign = [key for key in keys if key not in known]
    if foreign:
        raise UserError(
            f"{command.predictions[0]}: key {foreign[0]}: not a sample of {command.shards} ({len(foreign)} such rows "
            f"of {len(keys)}); is it the table of another set?"
        )
    wanted = index.frame["key"].iloc[low].tolist()
    absent = [key for key in wanted if key not in place_of]
    if absent:
        few = f"at most {command.max_votes or MAX_VOTES} votes"
        which = few if index.dataset.target == "shares" else "an unknown class"
        raise UserError(
            f"{command.predictions[0]}: lacks {len(absent)} of {len(low)} rows with {which}, like {absent[0]}; "
            "predict the whole shard set"
        )
    return np.array([place_of[key] for key in wanted], np.int64)
