"""Mixing of rows with another row of their group, image and label."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Mix
from hms_dist.canvas.augment.boxes import inside
from hms_dist.canvas.augment.draws import Floats, RowDraws, whole_below
from hms_dist.canvas.augment.layout import Layout


@dataclass(frozen=True, kw_only=True)
class BetaMix(Mix):
    """Base of mixes: the distribution of the row's own share."""

    alpha: float = 1.0
    """The row's own share is drawn from Beta(alpha, alpha): 1 is uniform; with smaller values most shares are near 0 or
    1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise ValueError(f"alpha: expected above 0, found {self.alpha}")

    def _own_shares(self, uniform: Floats) -> Floats:
        from scipy.special import betaincinv

        shares: Floats = betaincinv(self.alpha, self.alpha, uniform)
        return shares


@dataclass(frozen=True, kw_only=True)
class MixUp(BetaMix):
    """A weighted mean of two images, or signals, and of their labels (Zhang et al. 2018; 4th place with alpha 0.2)."""

    changes: ClassVar[frozenset[str]] = frozenset({"images", "signals"})

    alpha: float = 0.2
    """Parameter of the distribution: see `CutMix`."""

    def draw(self, draws: RowDraws, layout: object) -> Floats:
        """Draw the row's own share."""
        del layout
        return self._own_shares(draws.uniform(1))

    def apply(self, images: Tensor, partners: Tensor, parameters: Tensor) -> Tensor:
        """See the class."""
        share = parameters[:, 0].to(images.dtype).view(-1, *[1] * (images.dim() - 1))
        return partners.lerp(images, share)


@dataclass(frozen=True, kw_only=True)
class CutMix(BetaMix):
    """A rectangle of the partner's image is pasted; labels are weighted by the visible areas (Yun et al. 2019).

    The rectangle has the aspect ratio of the canvas. Its centre is uniform on the canvas; parts outside are cut off.
    """

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Draw the rectangle; return the row's own share of the area, and the rectangle."""
        uniform = draws.uniform(3)
        canvas = np.array([layout.height, layout.width])
        half = np.floor(canvas * np.sqrt(1 - self._own_shares(uniform[:, :1]))) // 2
        centre = whole_below(uniform[:, 1:], canvas)
        low, high = np.maximum(centre - half, 0), np.minimum(centre + half, canvas)
        share = 1 - (high - low).prod(axis=1) / canvas.prod()
        return np.stack([share, low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)

    def apply(self, images: Tensor, partners: Tensor, parameters: Tensor) -> Tensor:
        """See the class."""
        return partners.where(inside(parameters[:, 1:], images.shape[2], images.shape[3]), images)
