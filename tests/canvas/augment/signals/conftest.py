"""40 rows of a stored signal with margins, in groups of 4, each annotated for 0.2 s, and the canvas drawn from it."""

import numpy as np
import pytest
import torch

from hms_dist.canvas.augment import AugmentConfig, Augmenter, RowFacts
from hms_dist.canvas.augment.augmentation import Augmentation
from hms_dist.canvas.augment.groups import GroupedRows
from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.normalise import Affine
from hms_dist.canvas.options import CanvasConfig, Placement
from hms_dist.canvas.signals import DrawnLogMel
from hms_dist.panels import Waveform

RATE_HZ, MARGIN, NUM_ROWS = 1000, 100, 40
SIZE = {"rate_hz": RATE_HZ, "window_s": 1.0}
FRAMES = {"fft_samples": 64, "window_samples": 64, "hop_samples": 16, "num_mels": 8}
WAVEFORM = Waveform(**SIZE, margin_s=MARGIN / RATE_HZ)
PLACE = Placement(panel="log_mel", normalise=Affine(), arrangement="stacked", top=0, left=0, height=8, width=63)
CONFIG = CanvasConfig(
    height=8, width=63, placements=(PLACE,), drawn={"log_mel": DrawnLogMel(drawn_from="waveform", **SIZE, **FRAMES)}
)
NAN = float("nan")


@pytest.fixture(scope="session")
def canvas() -> Canvas:
    return Canvas(CONFIG, {"waveform": WAVEFORM.spec})


@pytest.fixture
def facts(rng: np.random.Generator) -> RowFacts:
    """40 rows, half of them positive, annotated for 0.2 s somewhere."""
    first_s = rng.uniform(0, 0.8, NUM_ROWS)
    return RowFacts(np.arange(NUM_ROWS) % 2 == 0, np.stack([first_s, first_s + 0.2], axis=1), yes_no=True)


@pytest.fixture
def stored(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.integers(-32768, 32768, (NUM_ROWS, 1, 1200)).astype(np.int16))


@pytest.fixture
def targets(facts) -> torch.Tensor:
    """Two classes, of which each row knows one."""
    found = torch.full((NUM_ROWS, 2), NAN)
    found[torch.arange(NUM_ROWS), torch.arange(NUM_ROWS) // 2 % 2] = torch.from_numpy(facts.positive).float()
    return found


@pytest.fixture
def augment(canvas, facts, stored, targets, rng):
    """Return a function that augments rows in groups of 4: signals, full scale 1, and targets."""
    drawn = int(rng.integers(2**32))

    def run(
        *steps: Augmentation,
        rows: np.ndarray | None = None,
        places: np.ndarray | None = None,
        num_own: int = -1,
        seed: int = drawn,
    ):
        rows = np.arange(NUM_ROWS) if rows is None else rows
        grouped = GroupedRows(rows, rows if places is None else places, 4, len(rows) if num_own < 0 else num_own)
        augmenter = Augmenter(AugmentConfig(signal_steps=steps), canvas, facts)
        panels = {"waveform": stored[rows]}
        found, mixed = augmenter.signals(panels, targets[rows], grouped, seed=seed, epoch=1)
        return found["waveform"], mixed

    run.seed = drawn
    return run
