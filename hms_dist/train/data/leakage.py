"""What a run has seen: the record that it keeps beside its weights, and the leaks that it refuses to begin with.

The rule: no model that a run learns from (pseudo-labels, the loss that filters rows, first weights) may have trained
on a patient of the run's validation fold. Without a validation fold there is nothing to leak into.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hms_dist.core.errors import UserError, first_line
from hms_dist.results.lineage import ModelRecord, check_out_of_fold, check_unseen, named_sources, read_sources
from hms_dist.shards.index import Index, Rows
from hms_dist.stream.rows.row_tables import read_row_table
from hms_dist.train.folder.checkpoint import EMA_NAME, META_NAME, STATE_NAME, product_file, product_name, read_meta
from hms_dist.train.folder.whole_folder import HASHES_NAME, present, recorded_hash
from hms_dist.train.settings import TrainConfig

SEEN_KEY = "seen"
"""The record's place in the metadata of weights."""


def run_record(config: TrainConfig, index: Index, train_rows: Rows, shards: str) -> ModelRecord:
    """The record of a run on these rows of the shard set with fingerprint `shards`; its weights stand beside it."""
    learnt_from = dict.fromkeys(model for _, models in _teachers(config) for model in models)
    overlay = config.overlay
    silent = overlay is not None and overlay.made_by_models and not read_sources(overlay.file)
    return ModelRecord(
        run=str(config.out), weights="", shards=shards, fold=None if config.fold == "none" else config.fold,
        num_folds=config.num_folds, seed=config.seed, learnt_from=tuple(learnt_from),
        patients=frozenset(index.ids("patient_id")[train_rows].tolist()),
        unknown_teacher=str(overlay.file) if overlay is not None and silent else "",
    )  # fmt: skip


def continued(record: ModelRecord, state: dict[str, Any]) -> ModelRecord:
    """The record of a run that goes on from a checkpoint's `state`: what it saw before, on another shard set perhaps,
    counts too."""
    before = ModelRecord.from_json(state[SEEN_KEY])
    learnt_from = tuple(dict.fromkeys((*before.learnt_from, *record.learnt_from)))
    return replace(
        record, patients=record.patients | before.patients, learnt_from=learnt_from,
        unknown_teacher=record.unknown_teacher or before.unknown_teacher,
    )  # fmt: skip


def stored_record(folder: Path, weights: Literal["ema", "raw"] | None = None) -> ModelRecord:
    """The record of the weights that `load_weights` takes from a folder (best/, final/, a checkpoint), with digest.

    Raises UserError if the folder has none.
    """
    found = present(folder) or folder
    value = read_meta(found).get(SEEN_KEY)
    if value is None:
        raise UserError(f"{folder}: does not say what its model has seen; train the run again")
    averaged = weights != "raw" and product_file(found, averaged=True).is_file()
    try:
        return replace(ModelRecord.from_json(value), weights=recorded_hash(found, product_name(averaged=averaged)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: what it says of its model is damaged ({first_line(error)}); train it again"
        ) from error


def check_leaks(config: TrainConfig, index: Index, validation_rows: Rows) -> None:
    """Refuse a run whose labels, filter or first weights come from models that have seen its validation patients, and
    a `model_loss` of rows that its models trained on.

    Raises UserError naming the file, the run, its fold and how many patients.
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
            check_unseen(str(where), models, patients[validation_rows], whose)
    for path in config.filters.predictions:
        table = read_row_table([path], index, ["fold"])
        folds = table.frame["fold"].to_numpy("int64", na_value=-1)
        sources = named_sources(path, "so they may have trained on its rows")
        check_out_of_fold(path, sources, patients[table.rows], folds)


def _teachers(config: TrainConfig) -> Iterator[tuple[Path, list[ModelRecord]]]:
    """Each file that a run learns from and the models behind it. Weights that no run made have none."""
    tables = (*config.filters.predictions, *((config.overlay.file,) if config.overlay else ()))
    for path in tables:
        yield path, [source.model for source in read_sources(path)]
    given = Path(config.model.weights)
    weights = given.resolve()  # a link does not hide whose weights they are
    notes = [(weights.parent / name).is_file() for name in (META_NAME, STATE_NAME)]
    if weights.is_file() and (weights.parent / HASHES_NAME).is_file() and any(notes):
        yield given, [stored_record(weights.parent, "ema" if weights.name == EMA_NAME else "raw")]
