"""Blurs: a small random kernel for each row, applied to all rows by one grouped convolution.

Borders are reflected, as by default in OpenCV.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from torch import Tensor
from torch.nn import functional

from hms_dist.canvas.augment.augmentation import Change
from hms_dist.canvas.augment.draws import Floats, RowDraws, between, whole_below
from hms_dist.canvas.augment.layout import Layout

OPENCV_KERNELS = {
    3: (1 / 4, 1 / 2, 1 / 4),
    5: (1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16),
    7: (1 / 32, 7 / 64, 7 / 32, 9 / 32, 7 / 32, 7 / 64, 1 / 32),
}
"""Kernels of OpenCV's GaussianBlur for these sizes when no deviation is given."""


@dataclass(frozen=True, kw_only=True)
class Blur(Change):
    """Base of blurs: the sizes of their kernels."""

    size: tuple[int, int] = (3, 7)
    """Smallest and largest kernel, pixels; odd, 3 or more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.size
        if not 3 <= low <= high or low % 2 == 0 or high % 2 == 0:
            raise ValueError(f"size: {self.name} expects two odd numbers from 3, low first, found {list(self.size)}")

    def fault(self, height: int, width: int) -> str | None:
        """Reject kernels whose reflected border is larger than the canvas."""
        return (
            None if self.size[1] // 2 < min(height, width) else f"a kernel of {self.size[1]} is too large; lower size"
        )


@dataclass(frozen=True, kw_only=True)
class GaussianBlur(Blur):
    """Gaussian blur (16th place; albumentations' GaussianBlur).

    A size is drawn uniformly from the integers of the range `size`, and an even one is increased by 1: for 3 to 7, the
    sizes 3, 5, 7 have probabilities 1/5, 2/5, 2/5, as published.
    """

    deviation: tuple[float, float] | None = None
    """Range of the standard deviation, uniform, pixels. None: OpenCV's kernel for each size (up to 7)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deviation is None and self.size[1] > max(OPENCV_KERNELS):
            raise ValueError(f"deviation: a size above {max(OPENCV_KERNELS)} needs one, found null")
        if self.deviation is not None and not 0 < self.deviation[0] <= self.deviation[1]:
            raise ValueError(f"deviation: expected [low, high] above 0, low first, found {list(self.deviation)}")

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Draw one-dimensional kernels [n, largest size], zero outside their size."""
        del layout
        uniform = draws.uniform(2)
        low, high = self.size
        whole = low + whole_below(uniform[:, 0], high - low + 1)
        size = whole + (whole + 1) % 2
        distance = np.arange(high) - high // 2
        if self.deviation is None:
            return _padded_kernels(high)[(size.astype(int) - 3) // 2]
        weights = np.exp(-0.5 * (distance / between(uniform[:, 1:], self.deviation)) ** 2)
        weights[np.abs(distance) > size[:, None] // 2] = 0.0
        return weights / weights.sum(axis=1, keepdims=True)

    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """Filter along columns, then along rows."""
        del layout
        taps = parameters.to(images.dtype)
        return filtered(filtered(images, taps[:, :, None]), taps[:, None, :])


@dataclass(frozen=True, kw_only=True)
class MotionBlur(Blur):
    """Blur along a line between two random pixels of the kernel (16th place; albumentations' MotionBlur).

    The line does not always pass through the centre of the kernel, so the image also moves, by up to half a kernel.
    """

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Draw square kernels [n, largest size squared], centred."""
        del layout
        uniform = draws.uniform(5)
        low, high = self.size
        size = low + 2 * whole_below(uniform[:, 0], (high - low) // 2 + 1)
        x, y = whole_below(uniform[:, 1:3], size[:, None]), whole_below(uniform[:, 3:5], size[:, None])
        other = (y[:, 0] + 1 + whole_below(uniform[:, 4], size - 1)) % size
        y[:, 1] = np.where(x[:, 0] == x[:, 1], other, y[:, 1])  # two different pixels
        margin = (high - size[:, None]) // 2
        kernels = lines(x + margin, y + margin, high)
        return (kernels / kernels.sum(axis=(1, 2), keepdims=True)).reshape(len(kernels), -1)

    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """See the class."""
        del layout
        kernels = parameters.to(images.dtype)
        return filtered(images, kernels.view(-1, self.size[1], self.size[1]))


@cache
def _padded_kernels(largest: int) -> Floats:
    """Return OpenCV's kernels of sizes up to `largest`, padded with zeros: [sizes, largest]."""
    return np.stack([np.pad(taps, (largest - size) // 2) for size, taps in OPENCV_KERNELS.items() if size <= largest])


def lines(x: Floats, y: Floats, size: int) -> Floats:
    """Draw the line between two pixels, for n rows: images of 0 and 1 [n, size, size].

    `x`, `y`: columns and rows of the two pixels [n, 2]. At each step along the longer side of the line, the nearest
    pixel is set; of two at equal distance, the one nearer to the left end, as in OpenCV.
    """
    order = np.argsort(x, axis=1, kind="stable")
    x, y = np.take_along_axis(x, order, axis=1), np.take_along_axis(y, order, axis=1)
    run, rise = np.diff(x), np.diff(y)
    num_steps = np.maximum(np.abs(run), np.abs(rise))
    share = np.minimum(np.arange(size), num_steps) / np.maximum(num_steps, 1)
    columns = x[:, :1] + np.ceil(run * share - 0.5)
    rows = y[:, :1] + np.sign(rise) * np.ceil(np.abs(rise) * share - 0.5)
    pictures = np.zeros((len(x), size, size))
    pictures[np.arange(len(x))[:, None], rows.astype(int), columns.astype(int)] = 1.0
    return pictures


def filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each of `images` [n, 1, height, width] with its kernel of `kernels` [n, rows, columns], of odd size.

    On a GPU in float32; a run switches TF32 off for cuDNN, unless its precision is tf32.
    """
    rows, columns = kernels.shape[1:]
    padded = functional.pad(images[:, 0], (columns // 2, columns // 2, rows // 2, rows // 2), mode="reflect")
    return functional.conv2d(padded[None], kernels[:, None], groups=len(kernels))[0, :, None]
