"""Changes of pixel values: brightness and contrast, and noise."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Change, check_range
from hms_dist.canvas.augment.draws import Floats, RowDraws, between
from hms_dist.canvas.augment.layout import Layout
from hms_dist.canvas.augment.pixel_noise import NUM_WORDS, normal_noise


@dataclass(frozen=True, kw_only=True)
class ClippedChange(Change):
    """Base of changes of pixel values, which are clipped afterwards."""

    clip: tuple[float, float] | None = (0.0, 1.0)
    """Range to which pixel values are clipped. None: no clipping, for canvases with standardised panels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is not None:
            check_range("clip", self.clip, -math.inf)

    def _clipped(self, images: Tensor) -> Tensor:
        """Clip in place."""
        return images if self.clip is None else images.clamp_(*self.clip)


@dataclass(frozen=True, kw_only=True)
class BrightnessContrast(ClippedChange):
    """pixel * (1 + c) + b, with one c and one b for each row (16th place; albumentations' RandomBrightnessContrast)."""

    brightness: float = 0.1
    """Limit of b, which is uniform in [-brightness, brightness], pixel values."""
    contrast: float = 0.1
    """Limit of the factor's change c, which is uniform in [-contrast, contrast]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("brightness", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, found {getattr(self, name)}")

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Draw factor and offset."""
        del layout
        contrast, brightness = draws.uniform(2).T
        limits = ((-self.contrast, self.contrast), (-self.brightness, self.brightness))
        return np.stack([1 + between(contrast, limits[0]), between(brightness, limits[1])], axis=1)

    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """See the class."""
        del layout
        factor, offset = parameters.to(images.dtype)[:, :, None, None, None].unbind(1)
        return self._clipped(torch.addcmul(offset, images, factor))


@dataclass(frozen=True, kw_only=True)
class GaussNoise(ClippedChange):
    """Independent normal noise in every pixel (16th place; albumentations' GaussNoise)."""

    variance: tuple[float, float] = (0.1, 0.3)
    """Range of the variance, uniform, drawn for each row; pixel values squared."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("variance", self.variance, 0)

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Draw standard deviation and key of the noise."""
        del layout
        deviation = np.sqrt(between(draws.uniform(1), self.variance))
        return np.concatenate([deviation, draws.words(NUM_WORDS)], axis=1)

    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """See the class."""
        noise = normal_noise(parameters[:, 1:].int(), layout.height, layout.width)
        deviation = parameters[:, 0].to(images.dtype).view(-1, 1, 1, 1)
        return self._clipped(images + noise.to(images.dtype) * deviation)
