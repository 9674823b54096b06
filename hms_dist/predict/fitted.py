"""Record stored with a fit to out-of-fold predictions: its models and their order, and the patients that it has
seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hms_dist.core.errors import UserError
from hms_dist.core.files import read_json, sealed, unsealed
from hms_dist.datasets import HMS, dataset_of
from hms_dist.predict.members import Labelled, Members
from hms_dist.results.lineage import ModelRecord, Source


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Record stored with fitted weights."""

    content: dict[str, Any]
    """The fit itself and its scores, plain JSON."""
    members: tuple[tuple[str, tuple[str, ...]], ...]
    """For each table fitted on, in order: its path, and the SHA-256 of the weights behind it."""
    record: ModelRecord
    """The fit as a model that has seen the patients whose votes it was fitted to."""

    @staticmethod
    def of(labelled: Labelled, content: dict[str, Any], *, run: str, weights: str) -> "Fitted":
        """Build the record of a fit to all rows of `labelled`; `run` names its file, `weights` is its digest."""
        members = labelled.members
        record = ModelRecord(
            run=run, weights=weights, shards=labelled.shards, fold=None, num_folds=_num_folds(labelled), seed=0,
            patients=frozenset(np.unique(labelled.patients).tolist()), dataset=members.dataset.name,
        )  # fmt: skip
        if members.dataset != HMS:
            content = {**content, "dataset": members.dataset.to_json()}
        digests = (tuple(each) for each in members.digests)
        return Fitted(content=content, members=tuple(zip(map(str, members.paths), digests, strict=True)), record=record)

    @property
    def source(self) -> Source:
        """The fit as a source of its predictions."""
        return Source(model=self.record)

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON value with its digest."""
        members = [{"table": table, "weights": list(weights)} for table, weights in self.members]
        return sealed({**self.content, "members": members, "seen": self.record.to_json()})

    @staticmethod
    def read(path: Path) -> "Fitted":
        """Read from a file. Raises UserError if it is missing or not a record of a fit."""
        try:
            value: Mapping[str, Any] = unsealed(read_json(path), path)
            members = tuple((each["table"], tuple(each["weights"])) for each in value["members"])
            content = {name: part for name, part in value.items() if name not in ("members", "seen")}
            return Fitted(content=content, members=members, record=ModelRecord.from_json(value["seen"]))
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; check the path") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: not the record of a fit ({error}); fit it again") from error

    def check_members(self, path: Path, members: Members) -> None:
        """Raise UserError if `members` differ in number from those of the fit at `path`, or are clearly in another
        order."""
        if len(members.paths) != len(self.members):
            fitted_on = ", ".join(table for table, _ in self.members)
            raise UserError(
                f"--predictions: {path} was fitted on {len(self.members)} tables ({fitted_on}), found "
                f"{len(members.paths)}; give one for each, in that order"
            )
        stated = self.content.get("dataset")
        dataset = HMS if stated is None else dataset_of(stated, str(path))
        if (dataset.classes, dataset.target) != (members.dataset.classes, members.dataset.target):
            raise UserError(
                f"{members.paths[0]}: predicts the classes of {members.dataset.name}, but {path} was fitted for those "
                f"of {dataset.name}; give tables of that data set"
            )
        for place, found in enumerate(members.digests):
            match = [bool(set(found) & set(weights)) for _, weights in self.members]
            if any(match) and not match[place]:
                raise UserError(
                    f"{members.paths[place]}: of the models of {self.members[match.index(True)][0]}, but given "
                    f"in place of {self.members[place][0]}; give the tables in the order of the fit"
                )


def cross_fit_sources(labelled: Labelled, record: ModelRecord) -> Iterator[Source]:
    """Sources of a cross-validation: the fit behind the rows of each fold has seen only the patients of the other
    folds."""
    for fold in labelled.folds:
        others = frozenset(np.unique(labelled.patients[~labelled.held_out(fold)]).tolist())
        yield Source(model=replace(record, fold=fold, patients=others), fold=fold)


def _num_folds(labelled: Labelled) -> int:
    return labelled.members.sources[0][0].model.num_folds
