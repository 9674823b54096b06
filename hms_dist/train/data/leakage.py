"""Leakage checks: the record of the patients that a run has seen, and the leaks that it rejects before it starts.

No model that a run learns from (pseudo-labels, the loss that filters rows, initial weights) may have trained on a
patient of the run's validation fold. Without a validation fold there is nothing to check.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hms_dist.core.errors import UserError, first_line
from hms_dist.datasets import Dataset, read_dataset
from hms_dist.results.lineage import ModelRecord, check_out_of_fold, check_unseen, named_sources, read_sources
from hms_dist.shards.index import Index, Rows
from hms_dist.stream.rows.row_tables import read_row_table
from hms_dist.train.folder.checkpoint import EMA_NAME, META_NAME, STATE_NAME, product_file, product_name, read_meta
from hms_dist.train.folder.whole_folder import HASHES_NAME, present, recorded_hash
from hms_dist.train.settings import TrainConfig

SEEN_KEY = "seen"
"""Key of the record in the metadata of weights."""


def run_record(config: TrainConfig, index: Index, train_rows: Rows, shards: str) -> ModelRecord:
    """Build the record of a run on `train_rows` [n] of the shard set with fingerprint `shards`; it is stored next to
    the weights."""
    learnt_from = dict.fromkeys(model for _, models in _teachers(config) for model in models)
    overlay = config.overlay
    unrecorded = overlay is not None and overlay.made_by_models and not read_sources(overlay.file)
    return ModelRecord(
        run=str(config.out), weights="", shards=shards, fold=None if config.fold == "none" else config.fold,
        num_folds=config.num_folds, seed=config.seed, learnt_from=tuple(learnt_from),
        patients=frozenset(index.ids("patient_id")[train_rows].tolist()), dataset=index.dataset.name,
        unknown_teacher=str(overlay.file) if overlay is not None and unrecorded else "",
    )  # fmt: skip


def continued(record: ModelRecord, state: dict[str, Any]) -> ModelRecord:
    """Build the record of a run that resumes from a checkpoint's `state`, including what it saw before, possibly on
    another shard set."""
    before = ModelRecord.from_json(state[SEEN_KEY])
    learnt_from = tuple(dict.fromkeys((*before.learnt_from, *record.learnt_from)))
    return replace(
        record, patients=record.patients | before.patients, learnt_from=learnt_from,
        unknown_teacher=record.unknown_teacher or before.unknown_teacher,
    )  # fmt: skip


def stored_record(folder: Path, weights: Literal["ema", "raw"] | None = None) -> ModelRecord:
    """Read the record of the weights that `load_weights` takes from a folder (best/, final/, a checkpoint), with
    digest.

    Raises UserError if the folder has none.
    """
    found = present(folder) or folder
    value = read_meta(found).get(SEEN_KEY)
    if value is None:
        raise UserError(f"{folder}: has no record of the patients that its model has seen; train the run again")
    averaged = weights != "raw" and product_file(found, averaged=True).is_file()
    try:
        return replace(ModelRecord.from_json(value), weights=recorded_hash(found, product_name(averaged=averaged)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: the record of its model is damaged ({first_line(error)}); train it again"
        ) from error


def check_leaks(config: TrainConfig, index: Index, validation_rows: Rows) -> None:
    """Raise UserError if labels, filter or initial weights of a run come from models that have seen its validation
    patients (of `validation_rows` [n]), or if `model_loss` is of rows that its models trained on.

    The message names the file, the run, its fold and the number of patients.
    """
    patients = index.ids("patient_id")
    if config.fold != "none":
        whose = f"of validation fold {config.fold} of {config.num_folds}"
        overlay = config.overlay
        if overlay is not None and overlay.made_by_models:
            named_sources(overlay.file, f"so they may have seen the patients {whose} (overlay.made_by_models)")
        for path in config.filters.predictions:
            named_sources(path, f"so they may have seen the patients {whose}")
        for where, models in _teachers(config):
            check_unseen(str(where), models, patients[validation_rows], whose, dataset=index.dataset.name)
    for path in config.filters.predictions:
        table = read_row_table([path], index, ["fold"])
        folds = table.frame["fold"].to_numpy("int64", na_value=-1)
        sources = named_sources(path, "so they may have trained on its rows")
        check_out_of_fold(path, sources, patients[table.rows], folds)


def _teachers(config: TrainConfig) -> Iterator[tuple[Path, list[ModelRecord]]]:
    """Each file that a run learns from, and the models behind it. Weights that no run made have none."""
    tables = (*config.filters.predictions, *((config.overlay.file,) if config.overlay else ()))
    for path in tables:
        yield path, [source.model for source in read_sources(path)]
    weights = _of_run(config.model.weights)
    if weights is not None:
        yield Path(config.model.weights), [stored_record(weights.parent, "ema" if weights.name == EMA_NAME else "raw")]


def initial_changed(weights: str, trained: Mapping[str, Any]) -> bool:
    """Whether a run's file of initial weights has changed, by the record next to the weights that it trained
    (`trained`). False for files that no run made, and for records without initial weights."""
    found = _of_run(weights)
    if found is None or SEEN_KEY not in trained:
        return False
    now = stored_record(found.parent, "ema" if found.name == EMA_NAME else "raw")
    before = {teacher.weights for teacher in ModelRecord.from_json(trained[SEEN_KEY]).learnt_from}
    return bool(before) and now.weights not in before


def dataset_of_weights(weights: str) -> Dataset | None:
    """The data set of the run that made a file of weights; None for any other file, and for words like `hub`."""
    found = _of_run(weights)
    return None if found is None else read_dataset(found.parent.parent)


def _of_run(weights: str) -> Path | None:
    """A file of weights if a run made it. Links are resolved, so that the run is found."""
    found = Path(weights).resolve()
    notes = [(found.parent / name).is_file() for name in (META_NAME, STATE_NAME)]
    return found if found.is_file() and (found.parent / HASHES_NAME).is_file() and any(notes) else None
