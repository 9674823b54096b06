"""Training tasks: the loss, the predictions of a row and the monitors of a family of models.

A classifier maps a whole image to one logit per class; a sliding-window network does so for each window.
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
    unknown_rows,
    window_weights,
)
from hms_dist.model.window_mixing import (
    crop_offsets,
    crop_offsets_of,
    cropped,
    offset_range,
    pasted,
    pasted_at,
)
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
        of all rows of the batch, any float dtype.

        Random draws are keyed by `key` and the rows' places in the step.
        """

    def predict(self, model: nn.Module, images: Tensor, rows: Ints | None = None) -> Tensor:
        """Predict rows: float32 or float64 [m, num_outputs], a probability per class, then values for `monitors`.

        `rows`: their numbers in the shard set that the task was opened for; None: rows of no set.
        """

    def monitors(self, truth: NDArray[np.float64], outputs: NDArray[np.float64]) -> dict[str, float]:
        """Compute metrics other than the data set's, from targets [rows, classes] and outputs [rows, num_outputs]."""


@dataclass(frozen=True)
class WholePicture:
    """A classifier of whole images: one logit per class, trained with a loss on soft labels."""

    loss: Loss
    num_outputs: int = HMS.num_classes
    monitor_names: tuple[str, ...] = ()

    def partner_places(self, groups: GroupedRows, own: Ints, key: StepKey) -> Ints:
        """Return no places [0]."""
        del groups, key
        return own[:0]

    def loss_rows(self, model: nn.Module, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> Tensor:
        """Compute the loss of each row [own rows], float32 or float64; nothing is random."""
        del key
        return self.loss.rows(model(images[: rows.num_own]), targets[: rows.num_own])

    def predict(self, model: nn.Module, images: Tensor, rows: Ints | None = None) -> Tensor:
        """Convert logits to probabilities, float32 or float64 [m, classes], as the loss does."""
        del rows
        return self.loss.probabilities(model(images))

    def monitors(self, truth: NDArray[np.float64], outputs: NDArray[np.float64]) -> dict[str, float]:
        """Return no monitors. See `Task.monitors`."""
        del truth, outputs
        return {}


@dataclass(frozen=True, kw_only=True)
class AnnotatedWindow:
    """A sliding-window network: one logit per class for each window, trained on the window that the labels describe.

    Outputs: the probabilities of the row (`SlidingWindowConfig.pooling`), then those of the annotated window.
    """

    config: SlidingWindowConfig
    width: int
    """Width of the canvas, pixels."""
    window: tuple[float, float]
    """First and last column of the annotated seconds on the canvas, pixels; of audio, if they were in the middle."""
    dataset: Dataset = HMS
    lefts: NDArray[np.float64] | None = None
    """First column of the annotated window of each row of the shard set [samples], pixels; NaN for rows without one.
    None: that of `window` in all rows."""

    @property
    def num_outputs(self) -> int:
        """Two probabilities per class."""
        return 2 * self.dataset.num_classes

    @property
    def monitor_names(self) -> tuple[str, ...]:
        """Names of the values of `monitors`; LRAP needs every class of a row, the metric's LWLRAP known ones only. Of
        audio it is that of rows with one known yes, if all other classes were absent."""
        names = ("val_positive_log_loss", "val_negative_log_loss")
        knows_all = self.dataset.target == "shares" or self.dataset.signal == "audio"
        return (*names, "val_lrap") if knows_all else names

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
        """Compute the loss of positive and negative classes, float32 or float64 [own rows], after cut-and-paste within
        the group and a crop."""
        images, targets, offsets = self.mixed(images, targets, rows, key)
        lefts = self.window[0] - offsets
        if self.lefts is not None:
            lefts = self._lefts_of(rows.rows[: rows.num_own]).to(offsets.device) - offsets
        windows = window_weights(lefts, self._length, images.shape[-1])
        logits = model(images, windows[:, None]).squeeze(1)
        positive, negative = positive_negative_rows(logits, targets)
        losses = positive + self.config.negative_weight * negative
        if self.config.unknown_weight:
            losses = losses + self.config.unknown_weight * unknown_rows(logits, targets)
        return losses

    def mixed(self, images: Tensor, targets: Tensor, rows: GroupedRows, key: StepKey) -> tuple[Tensor, Tensor, Tensor]:
        """Paste and crop the rank's own rows: images and targets, any float dtype, and the first column of each crop,
        int64 [own rows]."""
        own = slice(0, rows.num_own)
        offsets = torch.zeros(rows.num_own, dtype=torch.int64, device=images.device)
        is_pasted, places = self._pastes(rows, key)
        if is_pasted[own].any():
            donor = torch.from_numpy(np.where(is_pasted, rows.positions(places), np.arange(len(places)))[own])
            windows = self._lefts_of(rows.rows).to(images.device)
            donor = donor.to(images.device)
            if self.lefts is None:
                images = pasted(images[own], images[donor], self.window)
            else:
                images = pasted_at(images[own], images[donor], windows[own], windows[donor], self._length)
            targets = targets[donor]
        images, targets = images[own], targets[own]
        if self.crop_width < self.width:
            draw = _uniform(key, _CROP, rows.places[own])
            if self.lefts is None:
                offsets = crop_offsets(draw, self.window, self.width, self.crop_width)
            else:
                lefts = self._lefts_of(rows.rows[own]).numpy()
                offsets = crop_offsets_of(draw, lefts, self._length, self.width, self.crop_width)
            offsets = offsets.to(images.device)
            images = cropped(images, offsets, self.crop_width)
        return images, targets, offsets

    def _pastes(self, rows: GroupedRows, key: StepKey) -> tuple[NDArray[np.bool_], Ints]:
        """Draw which rows get the window of another row, and the place of that row."""
        is_pasted = _uniform(key, _PASTE, rows.places) < self.config.paste_probability
        return is_pasted & (rows.group_size > 1), rows.others(_uniform(key, _DONOR, rows.places))

    def _lefts_of(self, rows: Ints | None) -> Tensor:
        """First column of the annotated window of each row [m or 1], float64; in the middle for rows without one."""
        if self.lefts is None or rows is None:
            return torch.full((1 if rows is None else len(rows),), self.window[0], dtype=torch.float64)
        found = self.lefts.take(rows, mode="wrap")  # blank passes may have more rows than the set
        return torch.from_numpy(np.where(np.isnan(found), self.window[0], found))

    def predict(self, model: nn.Module, images: Tensor, rows: Ints | None = None) -> Tensor:
        """Predict rows: float32 or float64 [m, 2 * classes], from all windows at once; the annotated one is the
        first."""
        annotated = self._lefts_of(None if self.lefts is None else rows)[:, None]
        sliding = sliding_windows(self._length, self.width)[None].expand(len(annotated), -1)
        lefts = torch.cat([annotated, sliding], dim=1).to(images.device)
        logits = model(images, window_weights(lefts, self._length, self.width))
        logits = logits if logits.dtype == torch.float64 else logits.float()
        row = own = torch.sigmoid(logits[:, 0])
        if self.config.pooling != "window":
            row = at_least_one(logits[:, 1:], self.config.pooling)
        elif self.dataset.signal == "audio":
            known = self._has_window(rows, len(images)).to(images.device)
            row = torch.where(known[:, None], own, at_least_one(logits[:, 1:], "max"))
        return torch.cat([shares_of(row) if self.dataset.target == "shares" else row, own], dim=-1)

    def monitors(self, truth: NDArray[np.float64], outputs: NDArray[np.float64]) -> dict[str, float]:
        """Compute log losses of positive and negative classes in the annotated window, and the LRAP of the row.

        Arguments as `Task.monitors`.
        """
        row, own = np.split(outputs, 2, axis=1)
        if self.dataset.target == "yes_no":
            one = (truth == 1).sum(axis=1) == 1
            rank = [label_ranking(truth[one] == 1, own[one])] if one.any() else []
            return dict(zip(self.monitor_names, [*log_losses(truth, own), *rank], strict=False))
        top = truth == truth.max(axis=1, keepdims=True)
        return dict(zip(self.monitor_names, [*log_losses(truth, own), label_ranking(top, row)], strict=True))

    def _has_window(self, rows: Ints | None, num_rows: int) -> Tensor:
        """Whether each row has an annotated window: bool [m]."""
        if self.lefts is None or rows is None:
            return torch.zeros(num_rows, dtype=torch.bool)
        return torch.from_numpy(np.isfinite(self.lefts[rows]))

    @property
    def _length(self) -> float:
        return self.window[1] - self.window[0]


def _uniform(key: StepKey, stream: int, places: Ints) -> NDArray[np.float64]:
    seed, epoch, step = key
    return keyed_uniform(seed, _WINDOW, epoch, step, stream, places)


def open_task(
    config: TrainConfig,
    canvas: Canvas,
    dataset: Dataset = HMS,
    annotated_s: NDArray[np.float64] | None = None,
) -> Task:
    """Create the task of a run on a data set. `annotated_s`: as `Index.annotated_s`, of the rows to train on or
    predict.

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
    window = annotated_columns(canvas, tolerance=STRIDE, dataset=dataset)
    lefts = None
    if annotated_s is not None:
        length = window[1] - window[0]
        pixels = (annotated_s - dataset.window_s / 2) * (length / dataset.annotated_s)
        lefts = np.clip(window[0] + pixels, 0, width - length)
    task = AnnotatedWindow(config=sliding, width=width, window=window, dataset=dataset, lefts=lefts)
    try:
        offset_range(task.window, width, task.crop_width)
    except ValueError as error:
        raise UserError(f"model.sliding_window.crop_share: {error}; raise it") from error
    return task
