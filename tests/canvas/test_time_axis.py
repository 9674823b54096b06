"""Position of the annotated 10 seconds on a canvas: by a mark drawn into recordings, and by geometry."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import CanvasConfig, Placement
from hms_dist.canvas.time_axis import annotated_columns
from hms_dist.core.errors import UserError
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec

EEG = PanelSpec(
    shape=(4, 8, 50), dtype="uint8", codec="npy", axes=("region", "frequency", "time"), unit="dB",
    regions=("LL", "LP", "RP", "RL"), value_range=(0.0, 1.0), columns_s=(0.5, 49.5),
)  # fmt: skip
"""A column a second."""
MINUTES = replace(EEG, shape=(4, 8, 300), columns_s=(1.0, 599.0))
SPECS = {
    "eeg": EEG,
    "later": replace(EEG, columns_s=(2.5, 51.5)),
    "late": replace(EEG, columns_s=(1.5, 48.5), shape=(4, 8, 48)),
    "middle": replace(EEG, shape=(4, 8, 20), columns_s=(15.5, 34.5)),
    "minutes": MINUTES,
    "timeless": replace(EEG, columns_s=None),
}


def placed(panel: str, number: int = 0, **options: object) -> Placement:
    whole = {"arrangement": "stacked", "top": 32 * number, "left": 0, "height": 32, "width": 500, **options}
    return Placement(panel=panel, **whole)


def found(*placements: Placement, tolerance: float = 16) -> tuple[float, float]:
    config = CanvasConfig(height=32 * len(placements), width=500, placements=placements)
    return annotated_columns(Canvas(config, SPECS, flips=False), tolerance=tolerance)


@pytest.mark.parametrize(
    ("panel", "expected"),
    [("eeg", (200, 300)), ("minutes", (500 * 295 / 600, 500 * 305 / 600)), ("middle", (125, 375))],
)
def test_the_middle_ten_seconds(panel: str, expected: tuple[float, float]) -> None:
    assert found(placed(panel)) == pytest.approx(expected)


def test_a_crop_of_time_moves_and_stretches_the_window() -> None:
    assert found(placed("eeg", time_crop=(10, 35))) == pytest.approx((200, 400))
    assert found(placed("eeg", time_crop=(20, 30))) == pytest.approx((0, 500))


def test_panels_that_nearly_agree_are_averaged() -> None:
    """48 seconds, from the first to the 49th, over the same width."""
    late = found(placed("late"))
    assert late == pytest.approx((500 * 19 / 48, 500 * 29 / 48))
    assert found(placed("eeg"), placed("late", 1)) == pytest.approx(((200 + late[0]) / 2, (300 + late[1]) / 2))


@pytest.mark.parametrize(
    ("placements", "message"),
    [
        ((placed("eeg"), placed("minutes", 1)), r"placement 1 \('minutes'\) has the annotated 10 s at columns 245.8"),
        ((placed("eeg", arrangement="time_down"),), r"placement 0 \('eeg'\) is arranged time_down; .* stacked"),
        ((placed("eeg"), placed("eeg", 1, width=499)), r"placement 1 \('eeg'\) covers columns 0 to 499 of 500"),
        ((placed("eeg", left=10, width=490),), "covers columns 10 to 500 of 500; .* needs left: 0 and width: 500"),
        ((placed("timeless"),), r"\('timeless'\) does not state its times"),
        ((placed("eeg", time_crop=(22, 50)),), "does not show all of the annotated 10 s, which are at columns -35.7"),
        ((placed("eeg", time_crop=(0, 28)),), "does not show all of the annotated 10 s"),
    ],
)
def test_a_canvas_without_one_time_axis_is_refused(placements: tuple[Placement, ...], message: str) -> None:
    with pytest.raises(UserError, match=f"canvas: .*{message}"):
        found(*placements)


@pytest.mark.parametrize(
    ("name", "share_off"),
    [("multitaper", 0.15), ("pcen", 0.15), ("scalogram", 0.15), ("seed_004", 0.15), ("seed_004_kaggle", 0.25)],
)
def test_a_change_in_those_seconds_changes_those_columns(
    rng: np.random.Generator, name: str, share_off: float, canvas_named
) -> None:
    """Two recordings that differ in the annotated seconds alone: there the pictures differ, and about their middle.

    Each panel smears time by its frames, or, where it divides by the past, forwards; of the 10-minute spectrogram, five
    noisy rows are the window. The bounds are 5 or more deviations of 14 draws.
    """
    project = canvas_named(name)
    eeg = rng.normal(0, 20, (10_000, 20)).astype(np.float32)
    power = np.exp(rng.normal(0, 1, (300, 4, 100))).astype(np.float32)
    louder, stronger = eeg.copy(), power.copy()
    louder[4000:6000] += (300 * np.sin(2 * np.pi * 6 * np.arange(2000) / 200))[:, None] * rng.uniform(-1, 1, 20)
    stronger[147:153] *= 50  # rows at 295 to 305 s
    pictures = [
        project.canvas(project.drawn(Recording(
            eeg_id=1, eeg=one, spectrogram_id=2, spectrogram=other, spectrogram_time_s=2.0 * np.arange(300) + 1
        )))
        for one, other in ((eeg, power), (louder, stronger))
    ]  # fmt: skip
    change = (pictures[1] - pictures[0]).abs().sum(dim=(0, 1, 2)).double()
    change = (change - change.median()).clamp(min=0)
    middle = float((change * torch.arange(len(change))).sum() / change.sum())
    left, right = annotated_columns(project.canvas, tolerance=16)
    assert middle == pytest.approx((left + right) / 2, abs=share_off * (right - left))
    assert float(change[int(left) : int(right) + 1].sum() / change.sum()) > 0.5


def test_seed_004_has_a_column_of_features_a_second(canvas_named) -> None:
    assert annotated_columns(canvas_named("seed_004").canvas, tolerance=16) == pytest.approx((320, 480), abs=4)
    assert annotated_columns(canvas_named("seed_004_kaggle").canvas, tolerance=16) == pytest.approx((472, 488))
