"""A small canvas with every kind of placement, bound to synthetic panels, and one group of images."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from hms_dist.canvas.augment import AUGMENTATIONS, Augmentation, AugmentConfig, Augmenter
from hms_dist.canvas.augment.augmentation import Mix
from hms_dist.canvas.augment.draws import RowDraws, draws_of
from hms_dist.canvas.augment.groups import one_group
from hms_dist.canvas.augment.layout import Layout, layout_of
from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.normalise import Affine
from hms_dist.canvas.options import CanvasConfig, Placement
from hms_dist.shards.schema import PanelSpec

PICTURE = PanelSpec(
    shape=(24, 80), dtype="uint8", codec="npy", axes=("row", "time"), unit="pixel", value_range=(0, 1),
    columns_s=(15.0, 34.75),
)  # fmt: skip
SPECTRA = PanelSpec(
    shape=(2, 8, 40), dtype="uint8", codec="npy", axes=("region", "frequency", "time"), unit="dB", value_range=(0, 1),
    regions=("LL", "RL"), columns_s=(0.625, 49.375),
)  # fmt: skip
CANVAS = CanvasConfig(
    height=48,
    width=96,
    placements=(
        Placement(panel="spectra", arrangement="time_down", normalise=Affine(), top=0, left=0, height=40, width=16),
        Placement(panel="picture", arrangement="as_is", top=0, left=16, height=24, width=80),
        Placement(
            panel="spectra", arrangement="stacked", time_crop=(10, 30), normalise=Affine(), top=24, left=16, height=16,
            width=80,
        ),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Images [m, 1, 48, 96], labels [m, 6] and rows [m]."""

    images: torch.Tensor
    targets: torch.Tensor
    rows: np.ndarray

    def only(self, positions: list[int]) -> "Group":
        return Group(self.images[positions], self.targets[positions], self.rows[positions])


@pytest.fixture(scope="session")
def canvas() -> Canvas:
    """48 x 96: a placement with time downward at the left, an image and stacked spectra at the right, black at the
    bottom."""
    return Canvas(CANVAS, {"picture": PICTURE, "spectra": SPECTRA}, flips=False)


@pytest.fixture(scope="session")
def tall() -> Canvas:
    """The same on 80 x 96, because published holes are 64 x 64."""
    return Canvas(replace(CANVAS, height=80), {"picture": PICTURE, "spectra": SPECTRA}, flips=False)


@pytest.fixture(scope="session")
def layout(canvas) -> Layout:
    return layout_of(canvas)


@pytest.fixture
def group(rng) -> Group:
    """Eight rows of random images whose pixels all differ."""
    pixels = rng.permutation(8 * 48 * 96).astype(np.float32) / (8 * 48 * 96)
    return Group(
        torch.from_numpy(pixels.reshape(8, 1, 48, 96)),
        torch.from_numpy(rng.dirichlet(np.ones(6), 8)),
        rng.integers(0, 100_000, 8),
    )


@pytest.fixture
def many(rng) -> RowDraws:
    """The draws of 20,000 rows."""
    return draws_of(np.arange(20_000), seed=int(rng.integers(2**32)), epoch=3)


@pytest.fixture
def augment(canvas, rng):
    """Return a function that applies augmentations to a group, on the device of its images."""

    drawn = int(rng.integers(2**32))

    def run(group: Group, *steps: Augmentation, seed: int = drawn, epoch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
        augmenter = Augmenter(AugmentConfig(steps=steps), canvas)
        return augmenter(group.images, group.targets, one_group(group.rows), seed=seed, epoch=epoch)

    return run


def small(name: str, **options: object) -> Augmentation:
    """An augmentation that fits the small canvas, for every row."""
    if name == "OneOf":
        kinds = ("GaussNoise", "GaussianBlur", "MotionBlur")
        options = {"choices": tuple(small(kind) for kind in kinds), **options}
    if name == "CoarseDropout":
        options = {"height": 6, "width": 9, **options}
    return AUGMENTATIONS[name](**{"probability": 1.0, **options})


@pytest.fixture(params=list(AUGMENTATIONS))
def each(request) -> Augmentation:
    """Every augmentation in turn."""
    return small(request.param)


@pytest.fixture(params=[name for name, kind in AUGMENTATIONS.items() if not issubclass(kind, Mix)])
def each_by_itself(request) -> Augmentation:
    """Every augmentation that needs no other row."""
    return small(request.param)
