"""`hms-dist stack`: a small network on several models' predictions, evaluated on patients that it has not seen.

The course report evaluated its meta-model on rows that its base models had trained on. Here only out-of-fold
predictions are accepted, and cross-validation is nested: the network that predicts fold k uses another fold for early
stopping and trains on the rest.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from hms_dist.config.load import from_stored, stored
from hms_dist.core.errors import UserError
from hms_dist.core.files import sha256_of, write_json
from hms_dist.core.logging import LOG
from hms_dist.model.weights import read_weights
from hms_dist.predict.fitted import Fitted, cross_fit_sources
from hms_dist.predict.members import Labelled, joined_sources, read_labelled, read_members
from hms_dist.predict.meta_model import MetaConfig, StackRows, meta_inputs, meta_network, predicted, train_network
from hms_dist.results.metric_kinds import metric_of
from hms_dist.results.predictions import check_no_input, check_rows, prediction_table, write_predictions
from hms_dist.train.folder.record import PREDICTIONS_NAME
from hms_dist.train.folder.whole_folder import HASHES_NAME, damage, whole_folder

Floats = NDArray[np.float64]

NETWORKS_NAME = "model.safetensors"
STACK_NAME = "stack.json"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Fit a network to several models' out-of-fold predictions and print its KL next to the plain mean's; or apply it.

    The fit is a folder: the networks, stack.json, and predictions.parquet with the predictions of each fold by its
    network, which used the fold's votes neither for training nor for early stopping. New rows are predicted by the mean
    of the networks of all folds.
    """

    predictions: tuple[Path, ...]
    """Tables of the models, .parquet, of the same rows. For a fit: each row by models that had not seen its patient."""
    out: Path
    """For a fit: folder to write. To apply: table to write, .parquet or .csv."""
    labels: str | None = None
    """Shard set with the votes to fit to: its folder, or its URL; or a table like train.csv, as for `ensemble`. None:
    apply."""
    out_of_fold: Literal["recorded", "stated"] = "recorded"
    """For a fit, as for `ensemble`. stated: tables that name no models are out of fold by your word, which is
    recorded."""
    apply: Path | None = None
    """Folder of a fit to apply to `predictions`. None: fit."""
    model: MetaConfig = field(default_factory=MetaConfig)
    """The network, for a fit."""

    def __post_init__(self) -> None:
        if not self.predictions:
            raise ValueError("predictions: name at least one table")
        if self.out_of_fold == "stated" and self.labels is None:
            raise ValueError("out_of_fold: is for fitting alone; give --labels, or leave it out")
        if (self.labels is None) == (self.apply is None):
            raise ValueError("labels: fitting needs them, applying (--apply) does not; give one of the two")


def run(command: Stack) -> None:
    """Run the command `stack`."""
    if command.labels is not None:
        print(fit(command, read_labelled(command.predictions, command.labels, stated=command.out_of_fold == "stated")))
    elif command.apply is not None:
        apply(command, command.apply)


def fit(command: Stack, labelled: Labelled) -> str:
    """Train one network per fold and write the folder; return the table that `run` prints.

    Raises UserError with fewer than three folds (one to predict, one for early stopping, one to train on), and if `out`
    holds anything but an older fit, which is replaced.
    """
    _check_place(command.out)
    check_no_input(command.out / PREDICTIONS_NAME, command.predictions)  # the fit's own table has that name
    if len(labelled.folds) < 3:
        raise UserError(
            "--predictions: stacking needs 3 folds (to train on, to stop by, to predict), found "
            f"{len(labelled.folds)}; assemble all folds"
        )
    members = labelled.members
    networks = train_networks(command.model, labelled)
    honest = np.empty_like(labelled.targets)
    inputs = meta_inputs(members.probabilities, command.model.inputs)
    for fold, network in zip(labelled.folds, networks, strict=True):
        mine = labelled.held_out(fold)
        honest[mine] = predicted(network, inputs[torch.from_numpy(mine)], members.dataset)
    table = comparison(labelled, honest)
    with whole_folder(command.out) as folder:
        save_file(_state(networks), folder / NETWORKS_NAME)
        dataset = members.dataset
        content = {
            "model": stored(command.model), "num_networks": len(networks), metric_of(dataset).name: table
        }  # fmt: skip
        fitted = Fitted.of(labelled, content, run=str(command.out), weights=sha256_of(folder / NETWORKS_NAME))
        write_json(folder / STACK_NAME, fitted.to_json())
        sources = [*joined_sources(members), *cross_fit_sources(labelled, fitted.record)]
        found = prediction_table(members.ids, members.folds, honest, dataset)
        write_predictions(folder / PREDICTIONS_NAME, found, sources, dataset)
    return as_text(table)


def _check_place(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, expected a folder to write; choose another --out")
    names = {NETWORKS_NAME, STACK_NAME, PREDICTIONS_NAME, HASHES_NAME}
    other = sorted(path.name for path in out.iterdir() if path.name not in names) if out.is_dir() else []
    if other:
        raise UserError(f"{out}: holds other files ({other[0]}), which would be lost; choose another --out")


def train_networks(config: MetaConfig, labelled: Labelled) -> list[nn.Sequential]:
    """Train one network per fold, in order: the next fold for early stopping, the others for training, its own
    unused."""
    inputs = meta_inputs(labelled.members.probabilities, config.inputs)
    targets = torch.from_numpy(labelled.targets).float()
    networks = []
    for place, fold in enumerate(labelled.folds):
        held_out = torch.from_numpy(labelled.held_out(labelled.folds[(place + 1) % len(labelled.folds)]))
        train = ~held_out & ~torch.from_numpy(labelled.held_out(fold))
        networks.append(
            train_network(
                config, len(labelled.members.paths), fold,
                StackRows(inputs[train], targets[train]), StackRows(inputs[held_out], targets[held_out]),
                labelled.members.dataset,
            )
        )  # fmt: skip
    return networks


def apply(command: Stack, folder: Path) -> None:
    """Predict new rows by the mean of the networks of a fit. Raises UserError for a damaged folder or other tables."""
    fault = damage(folder, [NETWORKS_NAME, STACK_NAME])
    if fault is not None:
        raise UserError(f"{fault}; not a complete folder of hms-dist stack; fit it again")
    fitted = Fitted.read(folder / STACK_NAME)
    check_no_input(command.out, command.predictions)
    members = read_members(command.predictions)
    fitted.check_members(folder, members)
    check_rows(command.out, members.ids["eeg_id"].to_numpy("int64"), members.dataset)
    config = from_stored(MetaConfig, fitted.content["model"], str(folder / STACK_NAME))
    inputs = meta_inputs(members.probabilities, config.inputs)
    tensors = read_weights(folder / NETWORKS_NAME)
    answers = []
    for number in range(fitted.content["num_networks"]):
        network = meta_network(config, len(members.paths), members.dataset.num_classes)
        network.load_state_dict(_of_network(tensors, number))
        answers.append(predicted(network, inputs, members.dataset))
    known = joined_sources(members)
    table = prediction_table(members.ids, members.folds, np.mean(answers, axis=0), members.dataset)
    write_predictions(command.out, table, (*known, fitted.source) if known else (), members.dataset)
    LOG.info("%d rows of %d models stacked: %s", len(table), len(members.paths), command.out)


def comparison(labelled: Labelled, honest: Floats) -> list[dict[str, Any]]:
    """Rows of a table: each model, their mean and the stack (`honest` [rows, classes]), with the metric by fold and
    overall."""
    members = labelled.members
    value = metric_of(members.dataset).value
    named = [*zip(map(str, members.paths), members.probabilities, strict=True)]
    named += [("plain mean", members.probabilities.mean(axis=0)), ("stack, nested", honest)]
    rows = []
    for name, found in named:
        folds = {
            f"fold {fold}": value(labelled.targets[mask], found[mask])
            for fold, mask in ((fold, labelled.held_out(fold)) for fold in labelled.folds)
        }
        rows.append({"predictions": name, **folds, "all": value(labelled.targets, found)})
    return rows


def as_text(table: list[dict[str, Any]]) -> str:
    """Format a table as Markdown."""
    lines = [list(table[0]), ["---"] * len(table[0])]
    lines += [[cell if isinstance(cell, str) else f"{cell:.4f}" for cell in row.values()] for row in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _state(networks: list[nn.Sequential]) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": tensor.contiguous()
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }


def _of_network(tensors: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
