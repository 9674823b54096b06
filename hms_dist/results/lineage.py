"""What the models behind weights and tables of predictions have seen, so that a leak can be refused by name.

A run writes its record beside its weights (meta.json, `seen`), and whatever writes predictions writes the records of
the models that made them into the Parquet file's own metadata. A record names the patients that the model trained on
and the records of what it learnt from (pseudo-labels, filters, first weights), so a leak shows through any chain.
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

_PLAIN_FIELDS = ("run", "weights", "shards", "fold", "num_folds", "seed", "unknown_teacher")
METADATA_KEY = b"hms_dist.sources"
"""Key of the models' records in the metadata of a Parquet file."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What one model has seen."""

    run: str
    """Run folder, or the file that holds a fitted ensemble."""
    weights: str
    """SHA-256 of its weights; empty where the record stands beside them."""
    shards: str
    """Fingerprint of the shard set that it trained on."""
    fold: int | None
    """Its validation fold; None: it trained on all rows."""
    num_folds: int
    """Folds that the patients were split into."""
    seed: int
    """Seed of the run."""
    patients: frozenset[int]
    """patient_id of the rows that it trained on."""
    learnt_from: tuple["ModelRecord", ...] = ()
    """Models whose predictions or weights went into its training."""
    unknown_teacher: str = ""
    """A table that it learnt from whose models are unknown: they, and so it, may have seen anybody. Empty: none."""

    @cached_property
    def seen(self) -> frozenset[int]:
        """Patients that this model, or any that it learnt from, trained on."""
        return self.patients.union(*(model.seen for model in self.learnt_from))

    @property
    def unknown(self) -> str:
        """The first table of unknown models that this model, or any below it, has learnt from; empty: none."""
        return next(filter(None, (self.unknown_teacher, *(model.unknown for model in self.learnt_from))), "")

    @property
    def name(self) -> str:
        """The run and its fold, for messages."""
        fold = "no validation fold" if self.fold is None else f"fold {self.fold} of {self.num_folds}"
        return f"{self.run} ({fold})"

    def to_json(self) -> dict[str, Any]:
        """The JSON value; patients as one text, ascending."""
        return {
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
            "patients": " ".join(str(patient) for patient in sorted(self.patients)),
            "learnt_from": [model.to_json() for model in self.learnt_from],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "ModelRecord":
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
        patients = frozenset(int(patient) for patient in value["patients"].split())
        learnt_from = tuple(ModelRecord.from_json(model) for model in value["learnt_from"])
        found = ModelRecord(**{**value, "patients": patients, "learnt_from": learnt_from})
        texts = (found.run, found.weights, found.shards, found.unknown_teacher)
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
    """It made the rows of this fold alone, as in a table put together from the runs of all folds; None: all rows."""


def with_sources(table: pa.Table, sources: Iterable[Source]) -> pa.Table:
    """`table` with its sources in the metadata, each once; unchanged if there are none."""
    values = [{"fold": source.fold, "model": source.model.to_json()} for source in dict.fromkeys(sources)]
    if not values:
        return table
    return table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA_KEY: canonical_json(values)})


def read_sources(path: Path) -> tuple[Source, ...]:
    """Sources of a table of predictions; none if it does not name them, as no CSV file does.

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
        raise UserError(f"{path}: what it says of its models is damaged ({error}); predict again") from error


def named_sources(path: Path, why: str) -> tuple[Source, ...]:
    """As `read_sources`; UserError, which says `why` they are needed, if the table names none."""
    sources = read_sources(path)
    if not sources:
        raise UserError(f"{path}: does not say which models made it, {why}; write it with training or hms-dist predict")
    return sources


def check_unseen(where: str, models: Iterable[ModelRecord], patients: NDArray[np.int64], whose: str) -> None:
    """Refuse models that have seen any of `patients`; `whose` says which those are.

    Raises UserError naming `where` (a file), the run, its fold and how many patients.
    """
    wanted = frozenset(np.unique(patients).tolist())
    for model in models:
        if wanted and model.unknown:
            raise UserError(
                f"{where}: its model {model.name} learnt from {model.unknown}, which does not say which models made "
                f"it, so they may have seen the patients {whose}; use models whose teachers are known"
            )
        seen = wanted & model.seen
        if seen:
            through = next((f", through {other.name}" for other in _chain(model, wanted)), "")
            raise UserError(
                f"{where}: its model {model.name} has seen {len(seen)} of the {len(wanted)} patients {whose}{through}; "
                "use models that held them out"
            )


def check_out_of_fold(
    path: Path, sources: Iterable[Source], patients: NDArray[np.int64], folds: NDArray[np.int64]
) -> None:
    """Refuse a table in which any model predicted a patient that it has seen.

    `patients` and `folds` (negative: none) [rows] of the table's rows. Raises UserError as `check_unseen`, and for
    rows without a fold, or of a fold that no source made.
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
            raise UserError(f"{path}: does not say which model made the rows of fold {fold}; predict them again")
        check_unseen(str(path), models, patients[mine], f"that it predicts as fold {fold}")


def held_out_rows(
    sources: Iterable[Source], folds: NDArray[np.int64], patients: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mask [rows] of the rows of a table whose patient no model behind them has seen.

    By the records of its `sources`; by its `folds` [rows] (negative: none) where it names no models, or one that may
    have seen anybody. `patients` [rows].
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
    """`value` if it is a whole number of at least 0, or None where that may be. Raises ValueError otherwise."""
    if not (value is None and null) and not (type(value) is int and value >= 0):
        raise ValueError(f"expected an integer, found {str(value)[:40]}")
    return value


def _chain(model: ModelRecord, wanted: frozenset[int]) -> list[ModelRecord]:
    """From a model that has not trained on `wanted` itself, the way down to one that has."""
    if wanted & model.patients:
        return []
    below = next(other for other in model.learnt_from if wanted & other.seen)
    return [*_chain(below, wanted), below]
