"""The sliding-window network (the bird-call detector): a timm CNN at stride 16 whose own head slides along time.

Equivalent to a classifier of crops that computes the features once. The features of a window are the mean over the
columns that it covers, and the model's head (pooling over frequency, dropout, classifier) is applied to each window.
Classes are independent, with a sigmoid each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.core.errors import UserError

STRIDE = 16
"""Pixels of the picture per column of features; unmodified networks have 32."""


@dataclass(frozen=True, kw_only=True)
class SlidingWindowConfig:
    """Options of the sliding classifier: windows, training and pooling. The canvas must have one time axis, along x."""

    pooling: Literal["max", "noisy_or", "window"] = "max"
    """Pooling of the windows of a row, per class: the largest probability; the probability that at least one window
    is positive, if windows were independent; or that of the annotated window alone (the largest of all windows, for
    rows of audio without an annotation). Shares are then divided by their sum."""
    negative_weight: float = 1.0
    """Loss weight of classes without a vote, relative to 1 for classes with votes."""
    unknown_weight: float = 0.0
    """Loss weight of unknown classes, taken as absent, in rows with a class that is present. 0: they have no part in
    the loss."""
    crop_share: float = 1.0
    """Fraction of the canvas's width used in training, cropped at random around the annotated window. 1: all."""
    paste_probability: float = 0.0
    """Fraction of training rows whose annotated window and label are replaced by those of another row of the group."""

    def __post_init__(self) -> None:
        for name in ("negative_weight", "unknown_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected 0 or more, found {getattr(self, name)}")
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"crop_share: expected a share in (0, 1], found {self.crop_share}")
        if not 0 <= self.paste_probability <= 1:
            raise ValueError(f"paste_probability: expected 0 to 1, found {self.paste_probability}")


class SlidingWindowNet(nn.Module):
    """Slides the head of `backbone`, a timm model at stride 16, along the x axis of its features."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone

    def forward(self, images: Tensor, windows: Tensor) -> Tensor:
        """Compute logits [m, n, classes] of n windows of images [m, channels, height, width].

        Any float dtype. `windows` [m or 1, n, columns]: weight of each column of features in each window
        (`window_weights`).
        """
        features = self.backbone.forward_features(images)
        count = windows.to(features.dtype).expand(len(images), -1, -1)
        means = torch.einsum("mcht,mnt->mnch", features, count)
        outputs: Tensor = self.backbone.forward_head(means.flatten(0, 1).unsqueeze(-1))
        return outputs.reshape(len(images), -1, outputs.shape[-1])


def of_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Extract the state of the backbone from that of a `SlidingWindowNet`; any other state is returned unchanged."""
    slides = all(name.startswith("backbone.") for name in state)
    return {name.removeprefix("backbone.") if slides else name: tensor for name, tensor in state.items()}


def at_stride_16(name: str, create: Callable[..., nn.Module]) -> nn.Module:
    """Create a timm model, with `create`, whose features have stride 16 instead of 32.

    ResNets lose their first pooling, as in the source; for others timm's `output_stride=16` dilates the last stage.
    Raises UserError for a model that supports neither.
    """
    model = create()
    try:
        if isinstance(getattr(model, "maxpool", None), nn.MaxPool2d):
            model.maxpool = nn.Identity()
        else:
            model = create(output_stride=STRIDE)
        _check_stride(model)
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"model.name: {name} has no features at stride {STRIDE}, which a sliding window needs; choose a ResNet, or "
            "a CNN of timm with output_stride (EfficientNet, ConvNeXt, RegNet)"
        ) from error
    return model


@torch.no_grad()
def _check_stride(model: nn.Module) -> None:
    channels, training = next(model.parameters()).shape[1], model.training
    picture = torch.zeros(1, channels, 4 * STRIDE, 6 * STRIDE)
    shape = model.eval().forward_features(picture).shape  # type: ignore[operator]
    model.train(training)
    if shape[2:] != (4, 6):
        raise ValueError(f"features {tuple(shape)} of a picture {tuple(picture.shape)}")


def num_columns(width: int) -> int:
    """Columns of features of pictures of `width` pixels."""
    return ceil(width / STRIDE)


def window_weights(left: Tensor, length: float, width: int) -> Tensor:
    """Weight of each column in windows from `left` [...] to `left + length`, pixels: float64 [..., columns], sums of 1.

    A column is weighted by the fraction of its 16 pixels inside the window, so that a window may begin anywhere.
    """
    begins = torch.arange(num_columns(width), dtype=torch.float64, device=left.device) * STRIDE
    low, high = left.double()[..., None], left.double()[..., None] + length
    covered = (torch.minimum(begins + STRIDE, high) - torch.maximum(begins, low)).clamp(min=0)
    return covered / covered.sum(dim=-1, keepdim=True)


def sliding_windows(length: float, width: int) -> Tensor:
    """Left edges, float64 [n], pixels, of all windows of `length` pixels inside `width`, one stride apart."""
    return torch.arange(int((width - length) // STRIDE) + 1, dtype=torch.float64) * STRIDE


def positive_negative_rows(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of each row's binary cross-entropy [m]: of the classes with votes, and of all others.

    `logits`, `targets` [m, classes]. The target of a class with votes is its share; a class without votes is a hard
    negative, because experts looked at this window. Each part is a sum divided by the number of all classes, so that
    both add up to the loss "bce"; an unknown class (NaN) is in neither. Float32, float64 for float64 logits.
    """
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    known = torch.isfinite(targets)  # all, where targets are shares
    shares = torch.where(known, targets, 0).to(dtype)
    losses = functional.binary_cross_entropy_with_logits(logits.to(dtype), shares, reduction="none")
    return (losses * (shares > 0)).mean(dim=-1), (losses * ((shares <= 0) & known)).mean(dim=-1)


def unknown_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy [m] of unknown classes (NaN) taken as absent, in rows with a known yes; 0 for other rows.

    Shapes, types and divisor as `positive_negative_rows`.
    """
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    losses = functional.softplus(logits.to(dtype)) * torch.isnan(targets)
    return losses.mean(dim=-1) * (torch.nan_to_num(targets) > 0).any(dim=-1)


def at_least_one(logits: Tensor, pooling: str) -> Tensor:
    """Pool the probabilities of each class [m, classes] over windows with `logits` [m, n, classes], by "max" or
    "noisy_or".

    Any float dtype. noisy_or: 1 - product over windows of (1 - p).
    """
    if pooling == "max":
        return torch.sigmoid(logits.amax(dim=1))
    return -torch.expm1(functional.logsigmoid(-logits).sum(dim=1))


def shares_of(probabilities: Tensor) -> Tensor:
    """Divide independent class probabilities [m, classes], any float dtype, by their sum."""
    positive = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny)
    return positive / positive.sum(dim=-1, keepdim=True)
