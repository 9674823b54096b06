"""Blurs: each row by a small kernel of its own, all rows by one grouped convolution.

Beyond its edge a picture goes on as its mirror image, as OpenCV's default border has it.
"""

from dataclasses import dataclass

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
"""What OpenCV's GaussianBlur takes for these sizes when it is given no deviation."""


@dataclass(frozen=True, kw_only=True)
class Blur(Change):
    """What blurs share: the sizes of their kernels."""

    size: tuple[int, int] = (3, 7)
    """Smallest and largest kernel, pixels; odd, 3 or more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.size
        if not 3 <= low <= high or low % 2 == 0 or high % 2 == 0:
            raise ValueError(f"size: {self.name} expects two odd numbers from 3, low first, found {list(self.size)}")

    def fault(self, height: int, width: int) -> str | None:
        """The mirrored border must fit."""
        return (
            None if self.size[1] // 2 < min(height, width) else f"a kernel of {self.size[1]} is too large; lower size"
        )


@dataclass(frozen=True, kw_only=True)
class GaussianBlur(Blur):
    """Gaussian blur (16th place; albumentations' GaussianBlur).

    A whole number is drawn evenly from `size`, and an even one is raised by 1: of 3 to 7 that gives 3, 5, 7 with
    chances 1/5, 2/5, 2/5, as published.
    """

    deviation: tuple[float, float] | None = None
    """Range of the Gaussian's standard deviation, uniform, pixels. None: OpenCV's kernel for each size (to 7)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deviation is None and self.size[1] > max(OPENCV_KERNELS):
            raise ValueError(f"deviation: a size above {max(OPENCV_KERNELS)} needs one, found null")
        if self.deviation is not None and not 0 < self.deviation[0] <= self.deviation[1]:
            raise ValueError(f"deviation: expected [low, high] above 0, low first, found {list(self.deviation)}")

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """One-dimensional kernels [n, largest size], zero beyond their own size."""
        del layout
        uniform = draws.uniform(2)
        low, high = self.size
        whole = low + whole_below(uniform[:, 0], high - low + 1)
        size = whole + (whole + 1) % 2
        distance = np.arange(high) - high // 2
        if self.deviation is None:
            kernels = np.stack(
                [np.pad(taps, (high - size) // 2) for size, taps in OPENCV_KERNELS.items() if size <= high]
            )
            return kernels[(size.astype(int) - 3) // 2]
        weights = np.exp(-0.5 * (distance / between(uniform[:, 1:], self.deviation)) ** 2)
        weights[np.abs(distance) > size[:, None] // 2] = 0.0
        return weights / weights.sum(axis=1, keepdims=True)

    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """Down, then across."""
        del layout
        taps = parameters.to(images.dtype)
        return filtered(filtered(images, taps[:, :, None]), taps[:, None, :])


@dataclass(frozen=True, kw_only=True)
class MotionBlur(Blur):
    """Blur along a line between two random pixels of the kernel (16th place; albumentations' MotionBlur).

    The line need not pass through the kernel's middle, so the picture also moves by up to half a kernel.
    """

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Square kernels [n, largest size squared], each in the middle."""
        del layout
        uniform = draws.uniform(5)
        low, high = self.size
        size = low + 2 * whole_below(uniform[:, 0], (high - low) // 2 + 1)
        x, y = whole_below(uniform[:, 1:3], size[:, None]), whole_below(uniform[:, 3:5], size[:, None])
        other = (y[:, 0] + 1 + whole_below(uniform[:, 4], size - 1)) % size
        y[:, 1] = np.where(x[:, 0] == x[:, 1], other, y[:, 1])  # two pixels, never one
        margin = (high - size[:, None]) // 2
        kernels = lines(x + margin, y + margin, high)
        return (kernels / kernels.sum(axis=(1, 2), keepdims=True)).reshape(len(kernels), -1)

    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """See the class."""
        del layout
        kernels = parameters.to(images.dtype)
        return filtered(images, kernels.view(-1, self.size[1], self.size[1]))


def lines(x: Floats, y: Floats, size: int) -> Floats:
    """Pictures [n, size, size] of 0 and 1: of each row the line between two pixels, columns `x` and rows `y` [n, 2].

    The pixel nearest to the line at each step along its longer side; of two equally near, the one nearer to the
    left end, as OpenCV draws it.
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
    """`images` [n, 1, height, width], each correlated with its own of `kernels` [n, rows, columns], odd sizes.

    On a GPU in full float32 where cuDNN's TensorFloat-32 is off, as a run has it.
    """
    rows, columns = kernels.shape[1:]
    padded = functional.pad(images[:, 0], (columns // 2, columns // 2, rows // 2, rows // 2), mode="reflect")
    return functional.conv2d(padded[None], kernels[:, None], groups=len(kernels))[0, :, None]
