"""Training tasks: the loss, the predictions of a row and the monitors of a family of models.

A classifier maps a whole image to one logit a class; a sliding-window network maps each window to one logit a class.
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
"""Key of a step's random draws: seed, epoch, step within the epoch."""
_WINDOW = 104
"""Stream of keyed draws: crops and pastes of annotated windows."""
_PASTE, _DONOR, _CROP = 1, 2, 3
"""Streams within _WINDOW: whether to paste, the donor, the crop."""


class Task(Protocol):
    """Interface between the trainer and a family of models."""

    @property
    def num_outputs(self) -> int:
        """Number of columns of `predict`."""

    @property
    def monitor_names(self) -> tuple[str, ...]:
        """Names of the values of `monitors`."""

    def partner_places(self, groups: GroupedRows, own: Ints, key: StepKey) -> Ints:
        """Return places [n] of other rows that the loss of the rows at places `own` [m] needs, in ascending order.

        `groups`: all rows of the groups of `own`.
        """

    def loss_rows(self, model: nn.Module, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> Tensor:
        """Compute the loss of each of the rank's own rows, from images [n, 1, height, width] and targets [n, classes]
        of all rows of the batch.

        Random draws are keyed by `key` and the rows' places in the step.
        """

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Predict rows: float32 or float64 [m, num_outputs], a probability a class, then values for `monitors`."""

    def monitors(self, truth: NDArray[np.float64], outputs: NDArray[np.float64]) -> dict[str, float]:
        """Compute metrics other than the data set's, from targets [rows, classes] and outputs [rows, num_outputs]."""


@dataclass(frozen=True)
class WholePicture:
    """A classifier of whole images: one logit a class, trained with a loss on soft labels."""

    loss: Loss
    num_outputs: int = HMS.num_classes
    monitor_names: tuple[str, ...] = ()

    def partner_places(self, groups: GroupedRows, own: Ints, key: StepKey) -> Ints:
        """Return no places [0]."""
        del groups, key
        return own[:0]

    def loss_rows(self, model: nn.Module, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> Tensor:
        """Compute the loss of each row [own rows]; nothing is random."""
        del key
        return self.loss.rows(model(images[: rows.num_own]), targets[: rows.num_own])

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Convert logits to probabilities [m, classes] as the loss does."""
        return self.loss.probabilities(model(images))

    def monitors(self, truth: NDArray[np.float64], outputs: NDArray[np.float64]) -> dict[str, float]:
        """Return no monitors. See `Task.monitors`."""
        del truth, outputs
        return {}


@dataclass(frozen=True, kw_only=True)
class AnnotatedWindow:
    """A sliding-window network: one logit a class for each window, trained on the window that the labels describe.

    Outputs: the probabilities of the row (`SlidingWindowConfig.pooling`), then those of the annotated window.
    """

    config: SlidingWindowConfig
    width: int
    """Width of the canvas, pixels."""
    window: tuple[float, float]
    """First and last column of the annotated seconds on the canvas, pixels."""
    dataset: Dataset = HMS

    @property
    def num_outputs(self) -> int:
        """Two probabilities a class."""
        return 2 * self.dataset.num_classes

    @property
    def monitor_names(self) -> tuple[str, ...]:
        """Names of the values of `monitors`; LRAP needs every class of a row, the metric's LWLRAP known ones only."""
        names = ("val_positive_log_loss", "val_negative_log_loss")
        return names if self.dataset.target == "yes_no" else (*names, "val_lrap")

    @property
    def crop_width(self) -> int:
        """Number of columns of a training crop: a multiple of the stride, or all columns."""
        share = self.config.crop_share
        return self.width if share == 1 else min(round(share * self.width / STRIDE) * STRIDE, self.width)

    def partner_places(self, groups: GroupedRows, own: Ints, key: StepKey) -> Ints:
        """Return places [n] of the rows whose windows are pasted into the rows at places `own` [m]."""
        size = int(groups.places.max()) + 1
        is_pasted, donor = np.zeros(size, bool), np.zeros(size, np.int64)
        is_pasted[groups.places], donor[groups.places] = self._pastes(groups, key)
        return closure(own, [(is_pasted, donor)])

    def loss_rows(self, model: nn.Module, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> Tensor:
        """Compute the loss of positive and negative classes [own rows], after cut-and-paste within the group and a
        crop."""
        images, targets, offsets = self.mixed(images, targets, rows, key)
        windows = window_weights(self.window[0] - offsets, self._length, images.shape[-1])
        positive, negative = positive_negative_rows(model(images, windows[:, None]).squeeze(1), targets)
        return positive + self.config.negative_weight * negative

    def mixed(self, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> tuple[Tensor, Tensor, Tensor]:
        """Paste and crop the rank's own rows: images, targets, and the first column of each crop [own rows]."""
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
        """Draw which rows get the window of another row, and the place of that row."""
        is_pasted = _uniform(key, _PASTE, rows.places) < self.config.paste_probability
        return is_pasted & (rows.group_size > 1), rows.others(_uniform(key, _DONOR, rows.places))

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Predict rows: float [m, 2 * classes], from all windows at once; the annotated one is the first."""
        annotated = torch.tensor([self.window[0]], dtype=torch.float64)
        lefts = torch.cat([annotated, sliding_windows(self._length, self.width)]).to(images.device)
        logits = model(images, window_weights(lefts, self._length, self.width)[None])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        own = torch.sigmoid(logits[:, 0])
        row = own if self.config.pooling == "window" else at_least_one(logits[:, 1:], self.config.pooling)
        return torch.cat([shares_of(row) if self.dataset.target == "shares" else row, own], dim=-1)

    def monitors(self, truth: NDArray[np.float64], outputs: NDArray[np.float64]) -> dict[str, float]:
        """Compute log losses of positive and negative classes in the annotated window, and the LRAP of the row.

        Arguments as `Task.monitors`.
        """
        row, own = np.split(outputs, 2, axis=1)
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
    """Create the task of a run on a data set.

    Raises UserError for a sliding window whose canvas has no common time axis, or whose loss is not `bce`.
    """
    sliding, width = config.model.sliding_window, canvas.config.width
    if sliding is None:
        return WholePicture(LOSSES[config.loss.name], dataset.num_classes)
    if config.loss.name not in ("bce", "bce_known"):
        raise UserError(
            f"loss.name: a sliding window needs the loss of independent classes, found {config.loss.name}; set it to "
            "bce"
        )
    window = annotated_columns(canvas, tolerance=STRIDE, annotated_s=dataset.annotated_s)
    task = AnnotatedWindow(config=sliding, width=width, window=window, dataset=dataset)
    try:
        offset_range(task.window, width, task.crop_width)
    except ValueError as error:
        raise UserError(f"model.sliding_window.crop_share: {error}; raise it") from error
    return task
