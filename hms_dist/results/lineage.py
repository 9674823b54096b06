"""Lineage of weights and predictions: which patients the models behind them were trained on, to detect leaks.

A run writes its record next to its weights (meta.json, `seen`). Every table of predictions holds the records of its
models in the Parquet metadata. A record lists the patients that the model trained on and the records of everything that
it learned from (pseudo-labels, filters, initial weights), so a leak is found through any chain of models.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.files import canonical_json, parse_json
from hms_dist.core.parquet import ParquetError, read_table
from hms_dist.datasets import HMS

_PLAIN_FIELDS = ("run", "weights", "shards", "fold", "num_folds", "seed", "unknown_teacher")
METADATA_KEY = b"hms_dist.sources"
"""Metadata key of the models' records in a Parquet file."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """Patients and models that one model learned from."""

    run: str
    """Run folder, or file of a fitted ensemble."""
    weights: str
    """SHA-256 of its weights; empty if the record is stored next to them."""
    shards: str
    """Fingerprint of the shard set that it trained on."""
    fold: int | None
    """Its validation fold; None: it trained on all rows."""
    num_folds: int
    """Number of folds that the patients were split into."""
    seed: int
    """Seed of the run."""
    patients: frozenset[int]
    """patient_id of the rows that it trained on."""
    learnt_from: tuple["ModelRecord", ...] = ()
    """Models whose predictions or weights were used in its training."""
    unknown_teacher: str = ""
    """A table without model records that it learned from, so that it may have seen any patient. Empty: none."""
    stated: str = ""
    """Statement of a user in place of a record, such as `out of fold`; empty: the record is the run's own."""

    dataset: str = HMS.name
    """Name of the data set whose patients they are. Ids of patients are compared within one data set."""

    @cached_property
    def seen(self) -> frozenset[int]:
        """Patients of its data set that this model, or any model that it learned from, trained on."""
        return self.seen_of(self.dataset)

    def seen_of(self, dataset: str) -> frozenset[int]:
        """Patients of `dataset` that this model, or any model that it learned from, trained on."""
        own = self.patients if self.dataset == dataset else frozenset()
        return own.union(*(model.seen_of(dataset) for model in self.learnt_from))

    @property
    def unknown(self) -> str:
        """The first table without model records that this model, or any model below it, learned from; empty: none."""
        return next(filter(None, (self.unknown_teacher, *(model.unknown for model in self.learnt_from))), "")

    @property
    def name(self) -> str:
        """The run and its fold, for messages."""
        fold = "no validation fold" if self.fold is None else f"fold {self.fold} of {self.num_folds}"
        return f"{self.run} ({fold})"

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON value; patients are one text in ascending order."""
        return {
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
            "patients": " ".join(str(patient) for patient in sorted(self.patients)),
            "learnt_from": [model.to_json() for model in self.learnt_from],
            **({"stated": self.stated} if self.stated else {}),
            **({"dataset": self.dataset} if self.dataset != HMS.name else {}),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "ModelRecord":
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for invalid values."""
        patients = frozenset(int(patient) for patient in value["patients"].split())
        learnt_from = tuple(ModelRecord.from_json(model) for model in value["learnt_from"])
        found = ModelRecord(**{**value, "patients": patients, "learnt_from": learnt_from})
        texts = (found.run, found.weights, found.shards, found.unknown_teacher, found.stated, found.dataset)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("expected texts for run, weights and shards")
        for number in (_whole(found.fold, null=True), found.num_folds, found.seed):
            _whole(number, null=number is None)
        return found


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that contributed to a table of predictions."""

    model: ModelRecord
    fold: int | None = None
    """The fold whose rows it predicted, in a table joined from the runs of all folds; None: all rows."""


def with_sources(table: pa.Table, sources: Iterable[Source]) -> pa.Table:
    """Add the records of `sources` to the metadata of `table`, without duplicates; no change if there are none."""
    values = [{"fold": source.fold, "model": source.model.to_json()} for source in dict.fromkeys(sources)]
    if not values:
        return table
    return table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA_KEY: canonical_json(values)})


def read_sources(path: Path) -> tuple[Source, ...]:
    """Read the sources of a table of predictions; empty if it has none, as every CSV file.

    Raises UserError if the file is missing or its metadata is damaged.
    """
    if path.suffix == ".csv":
        return ()
    try:
        content = (read_table(path).schema.metadata or {}).get(METADATA_KEY, b"[]")
        return tuple(
            Source(model=ModelRecord.from_json(value["model"]), fold=_whole(value["fold"], null=True))
            for value in parse_json(content)
        )
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, ParquetError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: the record of its models is damaged ({error}); predict again") from error


def named_sources(path: Path, why: str) -> tuple[Source, ...]:
    """Read sources as `read_sources`. Raises UserError if the table has none; `why` explains why they are needed."""
    sources = read_sources(path)
    if not sources:
        raise UserError(
            f"{path}: does not record which models made it, {why}; write it with training or hms-dist predict"
        )
    return sources


def statements(sources: Iterable[Source]) -> list[str]:
    """A line for each run whose record is the statement of a user."""
    stated = {source.model.run: source.model.stated for source in sources if source.model.stated}
    return [f"{run} is stated by its user, not recorded, to be {text}" for run, text in stated.items()]


def check_unseen(
    where: str, models: Iterable[ModelRecord], patients: NDArray[np.int64], whose: str, *, dataset: str | None = None
) -> None:
    """Raise UserError if any model has seen any of `patients` [n]; `whose` describes them. `dataset`: name of the data
    set that they are of; None: that of each model.

    The message names `where` (a file), the run, its fold and the number of patients.
    """
    wanted = frozenset(np.unique(patients).tolist())
    for model in models:
        if wanted and model.unknown:
            raise UserError(
                f"{where}: its model {model.name} learned from {model.unknown}, which does not record which models "
                f"made it, so they may have seen the patients {whose}; use models whose teachers are known"
            )
        name = dataset or model.dataset
        seen = wanted & model.seen_of(name)
        if seen:
            through = next((f", through {other.name}" for other in _chain(model, wanted, name)), "")
            raise UserError(
                f"{where}: its model {model.name} has seen {len(seen)} of the {len(wanted)} patients {whose}{through}; "
                "use models that held them out"
            )


def check_out_of_fold(
    path: Path, sources: Iterable[Source], patients: NDArray[np.int64], folds: NDArray[np.int64]
) -> None:
    """Raise UserError if a model predicted a patient that it has seen.

    `patients` and `folds` (negative: none) [rows] belong to the table's rows. Also raised for rows without a fold, or
    of a fold that no source made.
    """
    sources = tuple(sources)
    for fold in np.unique(folds).tolist():
        mine = folds == fold
        if fold < 0:
            raise UserError(
                f"{path}: {mine.sum()} of {len(folds)} rows have no fold, so a model may have trained on them; give "
                "the predictions of runs for their validation fold"
            )
        models = [source.model for source in sources if source.fold in (None, fold)]
        if not models:
            raise UserError(f"{path}: does not record which model made the rows of fold {fold}; predict them again")
        check_unseen(str(path), models, patients[mine], f"that it predicts as fold {fold}")


def held_out_rows(
    sources: Iterable[Source], folds: NDArray[np.int64], patients: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mask [rows] of the rows whose patient no model of the table has seen.

    Uses the records of `sources`, or `folds` [rows] (negative: none) if the table has no records or one of its models
    has an incomplete lineage. `patients` [rows].
    """
    sources = tuple(sources)
    if not sources or any(source.model.unknown for source in sources):
        return folds >= 0
    unseen = np.zeros(len(folds), bool)
    for fold in np.unique(folds).tolist():
        models = [source.model for source in sources if fold < 0 or source.fold in (None, fold)]
        seen = list(frozenset().union(*(model.seen for model in models)))
        mine = folds == fold
        unseen[mine] = bool(models) & ~np.isin(patients[mine], seen)
    return unseen


def _whole(value: Any, *, null: bool) -> Any:
    """Return `value` if it is an integer of at least 0, or None where `null` allows it. Raises ValueError otherwise."""
    if not (value is None and null) and not (type(value) is int and value >= 0):
        raise ValueError(f"expected an integer, found {str(value)[:40]}")
    return value


def _chain(model: ModelRecord, wanted: frozenset[int], dataset: str) -> list[ModelRecord]:
    """Path from a model that did not itself train on `wanted` down to one that did."""
    if model.dataset == dataset and wanted & model.patients:
        return []
    below = next(other for other in model.learnt_from if wanted & other.seen_of(dataset))
    return [*_chain(below, wanted, dataset), below]
