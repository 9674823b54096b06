"""Checkpoints, to resume a run bit for bit, and weight folders, to use the model elsewhere.

    checkpoints/step-00000120/  model.safetensors, ema.safetensors, optimizer.pt, state.json, hashes.json
    checkpoints/latest          the name of the newest one, replaced last
    best/, final/               model.safetensors, ema.safetensors, meta.json, model_card.json, model_card.md,
                                hashes.json

ema.safetensors, the averaged weights under the same names, exists if the run keeps an average. Every folder appears
atomically (`train.folder.whole_folder`). Nothing is unpickled: the optimiser's tensors are read with
`torch.load(weights_only=True)`.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from hms_dist.core.errors import UserError, first_line
from hms_dist.core.files import atomic, open_file, read_bytes, required_object, sha256_of, write_json
from hms_dist.core.logging import LOG
from hms_dist.model.weights import check_stored, fit_weights, read_weights
from hms_dist.train.folder.model_card import CARD_NAME, CARD_TEXT_NAME, card_text
from hms_dist.train.folder.whole_folder import (
    HASHES_NAME,
    damage,
    discard,
    present,
    put_back,
    recorded_hash,
    whole_folder,
)
from hms_dist.train.optimise.ema import Ema

T = TypeVar("T")

LATEST_NAME = "latest"
MODEL_NAME = "model.safetensors"
EMA_NAME = "ema.safetensors"
OPTIMIZER_NAME = "optimizer.pt"
STATE_NAME = "state.json"
META_NAME = "meta.json"
RESTORE = "restore it from a copy, or train again"
_SCALER_KEY = "scaler"
_UPDATES_KEY = "num_ema_updates"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    folder: Path
    state: dict[str, Any]
    """State passed to `save_checkpoint`: cursor, history, and values that a resume compares."""

    def restore(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
        ema: Ema | None = None,
    ) -> None:
        """Load weights, their average and optimiser, in place, on their devices. `model` is the unwrapped one.

        Raises UserError if they were saved from another model, another optimiser, with another AMP mode, or without a
        requested average.
        """
        fit_weights(model, read_weights(self.folder / MODEL_NAME), str(self.folder / MODEL_NAME))
        path = self.folder / OPTIMIZER_NAME
        try:
            with open_file(path) as file:
                check_stored(file)
                saved = torch.load(file, map_location="cpu", weights_only=True)
            optimizer.load_state_dict(saved["optimizer"])
            _ = saved[_SCALER_KEY], saved[_UPDATES_KEY]
        except Exception as error:  # torch raises different exceptions for each kind of invalid content
            raise UserError(
                f"{path}: does not fit this run's optimiser ({first_line(error)}); resume with the configuration "
                "that the run began with"
            ) from error
        if (scaler is None) != (saved[_SCALER_KEY] is None):
            found = "without" if saved[_SCALER_KEY] is None else "with"
            raise UserError(f"{path}: saved {found} a gradient scaler; resume with the same mixed precision")
        if scaler is not None:
            scaler.load_state_dict(saved[_SCALER_KEY])
        if ema is not None:
            if saved[_UPDATES_KEY] is None:
                raise UserError(
                    f"{self.folder}: saved without an average of the weights; resume with the configuration that the "
                    "run began with"
                )
            ema.restore(read_weights(self.folder / EMA_NAME), saved[_UPDATES_KEY], str(self.folder / EMA_NAME))


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    scaler: torch.amp.GradScaler | None = None,
    ema: Ema | None = None,
    num_kept: int = 2,
) -> Path:
    """Write `folder`/step-<8 digits>, point `latest` at it, and delete all but the newest `num_kept`; return its path.

    `folder` is the run's checkpoints/, `step` the number of optimiser steps taken, `state` plain JSON values (no NaN),
    `model` the unwrapped one. A checkpoint of the same step is replaced. Later checkpoints were abandoned by a resume
    from an earlier one, and are deleted. Call it on one rank.
    """
    target = folder / _name_of(step)
    with whole_folder(target) as temporary:
        _save_tensors(temporary, model, ema)
        scales = None if scaler is None else scaler.state_dict()
        updates = None if ema is None else ema.num_updates
        saved = {"optimizer": optimizer.state_dict(), _SCALER_KEY: scales, _UPDATES_KEY: updates}
        content = io.BytesIO()
        torch.save(saved, content)
        (temporary / OPTIMIZER_NAME).write_bytes(content.getbuffer())
        write_json(temporary / STATE_NAME, dict(state))
    with atomic(folder / LATEST_NAME, "w") as file:
        file.write(f"{target.name}\n")
    names = _checkpoints(folder)
    position = names.index(target.name)
    for name in names[:position] + names[position + num_kept :]:
        discard(folder / name)
    for leftover in folder.glob(".step-*"):  # left by a killed save
        discard(leftover)
    return target


def has_any(folder: Path) -> bool:
    """Whether there are checkpoints in `folder`; one that was being replaced when its run was killed is restored."""
    for hidden in folder.glob(".step-*.old"):
        put_back(folder / hidden.name.removeprefix(".").removesuffix(".old"))
    return bool(_checkpoints(folder))


def load_latest(folder: Path) -> Checkpoint:
    """Load the newest undamaged checkpoint of `folder` that is not newer than `latest`, verifying every byte.

    A damaged one is skipped with a warning in the log. Raises UserError if there is none, or if all are damaged, naming
    the files.
    """
    names = _checkpoints(folder)
    latest = folder / LATEST_NAME
    pointed = read_bytes(latest, 100).decode(errors="replace").strip() if latest.is_file() else ""
    names = [name for name in names if name <= pointed] or names
    faults = []
    for name in names:
        fault = damage(folder / name, _names_of(folder / name))
        if fault is None:
            return Checkpoint(folder=folder / name, state=required_object(folder / name / STATE_NAME, RESTORE))
        LOG.warning("%s; falling back to the checkpoint before", fault)
        faults.append(fault)
    if faults:
        raise UserError(
            f"{folder}: every checkpoint is damaged ({'; '.join(faults)}); restore one from a copy, or start again "
            "in another run folder"
        )
    raise UserError(
        f"{folder}: no checkpoint to resume from, expected a folder step-<8 digits>; check the run folder, or "
        "start without resuming"
    )


def save_weights(
    folder: Path,
    model: nn.Module,
    metadata: Mapping[str, Any],
    ema: Ema | None = None,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights of `model` (unwrapped), their average, `metadata` (plain JSON values) and the model card to
    `folder`, atomically."""
    with whole_folder(folder) as temporary:
        _save_tensors(temporary, model, ema)
        write_json(temporary / META_NAME, dict(metadata))
        if card is not None:
            write_json(temporary / CARD_NAME, card)
            (temporary / CARD_TEXT_NAME).write_text(card_text(card), errors="backslashreplace")


def load_weights(model: nn.Module, folder: Path, weights: Literal["ema", "raw"] | None = None) -> dict[str, Any]:
    """Load the result of `save_weights`, or a checkpoint's weights, into `model`, in place; return its metadata or
    state.

    `weights`: averaged or raw weights; None: the average if there is one, as the run evaluated. Raises UserError if the
    folder is missing or damaged, lacks the average, or is of another model.
    """
    found = present(folder)
    if found is None:
        raise UserError(f"{folder}: no weights here, expected a folder with {MODEL_NAME}; check the run folder")
    averaged = (found / EMA_NAME).is_file()
    path = found / (EMA_NAME if averaged and weights != "raw" else MODEL_NAME)
    fault = damage(found, [path.name, _meta_path(found).name])
    if fault is not None:
        raise UserError(f"{fault}; these weights are damaged: restore them from a copy, or train again")
    if weights == "ema" and not averaged:
        raise UserError(f"{folder}: holds no averaged weights, the run kept no average; take the raw ones")
    fit_weights(model, read_weights(path), str(path))
    return read_meta(found)


def read_meta(folder: Path) -> dict[str, Any]:
    """Read the record next to the weights in a folder: the metadata of `save_weights`, or the state of a checkpoint.

    Raises UserError for a damaged file.
    """
    path = _meta_path(folder)
    if (folder / HASHES_NAME).is_file() and recorded_hash(folder, path.name) != sha256_of(path):
        raise UserError(f"{path}: its SHA-256 is not the one in {HASHES_NAME}; {RESTORE}")
    return required_object(path, RESTORE)


def _meta_path(folder: Path) -> Path:
    return folder / (META_NAME if (folder / META_NAME).is_file() else STATE_NAME)


def noted(values: Mapping[str, Any], name: str, kind: type[T], folder: Path) -> T:
    """Return a value of the record next to weights. Raises UserError if it is missing or of another type."""
    value = values.get(name)
    if not isinstance(value, kind):
        raise UserError(f"{folder}: its {META_NAME} has no {name}; restore it from a copy, or train the run again")
    return value


def product_file(folder: Path, *, averaged: bool) -> Path:
    """File of `save_weights` that the run evaluated: the average if it keeps one (`averaged`)."""
    return folder / product_name(averaged=averaged)


def product_name(*, averaged: bool) -> str:
    """File name of the averaged or the raw weights in a folder of `save_weights`."""
    return EMA_NAME if averaged else MODEL_NAME


def _save_tensors(folder: Path, model: nn.Module, ema: Ema | None) -> None:
    """Write with Python's own I/O: a full disk or quota then raises OSError, which is reported in one line, not a
    library's error."""
    (folder / MODEL_NAME).write_bytes(safetensors.torch.save(_on_cpu(model.state_dict())))
    if ema is not None:
        (folder / EMA_NAME).write_bytes(safetensors.torch.save(_on_cpu(ema.tensors)))


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, each to memory of its own: safetensors rejects shared memory."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _name_of(step: int) -> str:
    return f"step-{step:08d}"


def _names_of(checkpoint: Path) -> list[str]:
    averaged = [EMA_NAME] if (checkpoint / EMA_NAME).is_file() else []
    return [MODEL_NAME, *averaged, OPTIMIZER_NAME, STATE_NAME]


def _checkpoints(folder: Path) -> list[str]:
    """Names of the checkpoints in `folder`, newest first."""
    names = [path.name for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name)]
    return sorted(names, reverse=True)
