"""What a family of models is trained for and asked: its loss, its answers for a row, its own monitors.

A classifier sees a whole picture and gives a logit a class; a sliding-window net gives one a class for each window.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_dist.canvas.augment.groups import GroupedRows, Ints, closure
from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.time_axis import annotated_columns
from hms_dist.core.errors import UserError
from hms_dist.core.keyed import keyed_uniform
from hms_dist.datasets import HMS, Dataset
from hms_dist.model.loss import LOSSES, Loss
from hms_dist.model.sliding_window import (
    STRIDE,
    SlidingWindowConfig,
    at_least_one,
    positive_negative_rows,
    shares_of,
    sliding_windows,
    window_weights,
)
from hms_dist.model.window_mixing import crop_offsets, cropped, offset_range, pasted
from hms_dist.results.metrics import label_ranking, log_losses
from hms_dist.train.settings import TrainConfig

StepKey = tuple[int, int, int]
"""A step's place in a run: seed, epoch, step within the epoch."""
_WINDOW = 104
"""Stream of keyed draws: what is drawn of annotated windows."""
_PASTE, _DONOR, _CROP = 1, 2, 3
"""Streams within it."""


class Task(Protocol):
    """How the trainer talks to a family of models."""

    @property
    def num_answers(self) -> int:
        """Columns of `answers`."""

    @property
    def monitor_names(self) -> tuple[str, ...]:
        """Names of `monitors`."""

    def partner_places(self, groups: GroupedRows, own: Ints, key: StepKey) -> Ints:
        """Places of further rows that the loss of rows at places `own` needs, rising; `groups`: all of their groups."""

    def loss_rows(self, model: nn.Module, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> Tensor:
        """Loss of each of the rank's own rows, from pictures [n, 1, height, width] and `targets` [n, classes] of
        all rows.

        Whatever is random is drawn from `key` and the rows' places in the step.
        """

    def answers(self, model: nn.Module, images: Tensor) -> Tensor:
        """Float32 or float64 [m, num_answers]: a probability a class, then what `monitors` needs."""

    def monitors(self, truth: NDArray[np.float64], answers: NDArray[np.float64]) -> dict[str, float]:
        """Figures beside the KL for metrics.jsonl, from targets [rows, classes] and `answers` [rows, ...]."""


@dataclass(frozen=True)
class WholePicture:
    """A logit a class for each picture, trained by a loss of soft labels."""

    loss: Loss
    num_answers: int = HMS.num_classes
    monitor_names: tuple[str, ...] = ()

    def partner_places(self, groups: GroupedRows, own: Ints, key: StepKey) -> Ints:
        """None."""
        del groups, key
        return own[:0]

    def loss_rows(self, model: nn.Module, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> Tensor:
        """The loss of each row; nothing is drawn."""
        del key
        return self.loss.rows(model(images[: rows.num_own]), targets[: rows.num_own])

    def answers(self, model: nn.Module, images: Tensor) -> Tensor:
        """The probabilities [m, classes] that the loss makes of logits."""
        return self.loss.probabilities(model(images))

    def monitors(self, truth: NDArray[np.float64], answers: NDArray[np.float64]) -> dict[str, float]:
        """None."""
        del truth, answers
        return {}


@dataclass(frozen=True, kw_only=True)
class AnnotatedWindow:
    """A logit a class for each window (seed 004): trained on the window that the votes describe, wherever it lies.

    Answers: the probabilities of the row (`SlidingWindowConfig.pooling`), then the annotated window's own.
    """

    config: SlidingWindowConfig
    width: int
    """Of the canvas, pixels."""
    window: tuple[float, float]
    """Where the annotated seconds begin and end on the canvas, pixels."""
    dataset: Dataset = HMS

    @property
    def num_answers(self) -> int:
        """See `Task`."""
        return 2 * self.dataset.num_classes

    @property
    def monitor_names(self) -> tuple[str, ...]:
        """See `Task`. LRAP needs every class of a row; of unknown ones, the metric has LWLRAP."""
        names = ("val_positive_log_loss", "val_negative_log_loss")
        return names if self.dataset.target == "yes_no" else (*names, "val_lrap")

    @property
    def crop_width(self) -> int:
        """Columns that training sees, a multiple of the stride unless they are all."""
        share = self.config.crop_share
        return self.width if share == 1 else min(round(share * self.width / STRIDE) * STRIDE, self.width)

    def partner_places(self, groups: GroupedRows, own: Ints, key: StepKey) -> Ints:
        """Places of the rows whose windows are pasted into those at places `own`."""
        size = int(groups.places.max()) + 1
        is_pasted, donor = np.zeros(size, bool), np.zeros(size, np.int64)
        is_pasted[groups.places], donor[groups.places] = self._pastes(groups, key)
        return closure(own, [(is_pasted, donor)])

    def loss_rows(self, model: nn.Module, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> Tensor:
        """Losses of chosen and of rejected classes, after cut-and-paste within the group and a random crop."""
        images, targets, offsets = self.mixed(images, targets, rows, key)
        windows = window_weights(self.window[0] - offsets, self._length, images.shape[-1])
        positive, negative = positive_negative_rows(model(images, windows[:, None]).squeeze(1), targets)
        return positive + self.config.negative_weight * negative

    def mixed(self, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures and targets of own rows as training sees them, and the column at which each picture begins."""
        own = slice(0, rows.num_own)
        offsets = torch.zeros(rows.num_own, dtype=torch.int64, device=images.device)
        is_pasted, places = self._pastes(rows, key)
        if is_pasted[own].any():
            donor = torch.from_numpy(np.where(is_pasted, rows.positions(places), np.arange(len(places)))[own])
            donor = donor.to(images.device)
            images, targets = pasted(images[own], images[donor], self.window), targets[donor]
        images, targets = images[own], targets[own]
        if self.crop_width < self.width:
            draw = _uniform(key, _CROP, rows.places[own])
            offsets = crop_offsets(draw, self.window, self.width, self.crop_width).to(images.device)
            images = cropped(images, offsets, self.crop_width)
        return images, targets, offsets

    def _pastes(self, rows: GroupedRows, key: StepKey) -> tuple[NDArray[np.bool_], Ints]:
        """Which rows take another one's window, and the place of that one."""
        is_pasted = _uniform(key, _PASTE, rows.places) < self.config.paste_probability
        return is_pasted & (rows.group_size > 1), rows.others(_uniform(key, _DONOR, rows.places))

    def answers(self, model: nn.Module, images: Tensor) -> Tensor:
        """Float [m, 2 * classes]. All windows are answered at once; the annotated one comes first."""
        annotated = torch.tensor([self.window[0]], dtype=torch.float64)
        lefts = torch.cat([annotated, sliding_windows(self._length, self.width)]).to(images.device)
        logits = model(images, window_weights(lefts, self._length, self.width)[None])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        own = torch.sigmoid(logits[:, 0])
        row = own if self.config.pooling == "window" else at_least_one(logits[:, 1:], self.config.pooling)
        return torch.cat([shares_of(row) if self.dataset.target == "shares" else row, own], dim=-1)

    def monitors(self, truth: NDArray[np.float64], answers: NDArray[np.float64]) -> dict[str, float]:
        """Log losses of the annotated window, of chosen and of rejected classes, and LRAP of the row's answer."""
        row, own = np.split(answers, 2, axis=1)
        if self.dataset.target == "yes_no":
            return dict(zip(self.monitor_names, log_losses(truth, own), strict=True))
        top = truth == truth.max(axis=1, keepdims=True)
        return dict(zip(self.monitor_names, [*log_losses(truth, own), label_ranking(top, row)], strict=True))

    @property
    def _length(self) -> float:
        return self.window[1] - self.window[0]


def _uniform(key: StepKey, stream: int, places: Ints) -> NDArray[np.float64]:
    seed, epoch, step = key
    return keyed_uniform(seed, _WINDOW, epoch, step, stream, places)


def open_task(config: TrainConfig, canvas: Canvas, dataset: Dataset = HMS) -> Task:
    """The task of a run on a data set. Raises UserError for a sliding window whose canvas has no common time axis, or
    whose loss is not that of classes by themselves.
    """
    sliding, width = config.model.sliding_window, canvas.config.width
    if sliding is None:
        return WholePicture(LOSSES[config.loss.name], dataset.num_classes)
    if config.loss.name not in ("bce", "bce_known"):
        raise UserError(
            f"loss.name: a sliding window asks for each class by itself, found {config.loss.name}; set loss.name: bce"
        )
    window = annotated_columns(canvas, tolerance=STRIDE, annotated_s=dataset.annotated_s)
    task = AnnotatedWindow(config=sliding, width=width, window=window, dataset=dataset)
    try:
        offset_range(task.window, width, task.crop_width)
    except ValueError as error:
        raise UserError(f"model.sliding_window.crop_share: {error}; raise it") from error
    return task
