"""Pictures for people: gray levels and orientation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hms_dist.panels.waveform import Waveform
from hms_dist.report.picture import LINE_ROWS, gray, panel_picture, panel_values, save_gray, shown_range
from hms_dist.shards.schema import PanelSpec

AXES = ("region", "frequency", "time")


def test_gray_levels_in_the_file(tmp_path: Path) -> None:
    values = np.array([[-1.0, -0.5, 0.0], [0.5, 1.0, 2.0], [np.nan, np.inf, -np.inf]])
    save_gray(tmp_path / "picture.png", values, low=-1, high=1)
    with Image.open(tmp_path / "picture.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), [[0, 64, 128], [191, 255, 255], [0, 255, 0]])
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="high: must be above low"):
        gray(np.zeros((2, 2)), low=1, high=1)


def test_bits_are_unpacked(rng: np.random.Generator) -> None:
    plane = rng.random((6, 16)) < 0.5
    spec = PanelSpec(shape=(6, 16), dtype="bit", codec="npy", axes=("row", "column"), unit="ink")
    np.testing.assert_array_equal(panel_picture(spec, np.packbits(plane, axis=-1)), plane * 255)


def test_high_frequencies_are_on_top(rng: np.random.Generator) -> None:
    spec = PanelSpec(
        shape=(2, 3, 4), dtype="uint8", codec="npy", axes=AXES, unit="dB", regions=("LL", "RL"), value_range=(-80, 0)
    )
    stored = rng.integers(0, 256, spec.shape, dtype=np.uint8)
    np.testing.assert_array_equal(panel_picture(spec, stored), np.vstack([stored[0, ::-1], stored[1, ::-1]]))


@pytest.mark.parametrize("fill", [np.nan, -np.inf, 3.0])
def test_log_power_without_contrast_is_drawn(fill: float) -> None:
    spec = PanelSpec(shape=(2, 3, 4), dtype="float16", codec="npy", axes=AXES, unit="ln(power)")
    assert (panel_picture(spec, np.full(spec.shape, fill, np.float16)) == 0).all()


def test_log_power_uses_the_whole_range_and_gaps_are_black(rng: np.random.Generator) -> None:
    spec = PanelSpec(shape=(1, 50, 40), dtype="float16", codec="npy", axes=AXES, unit="ln(power)")
    stored = rng.normal(0, 3, spec.shape).astype(np.float16)
    stored[:, :, 7] = np.nan
    picture = panel_picture(spec, stored)
    assert (picture[:, 7] == 0).all()
    assert 100 < np.delete(picture, 7, axis=1).mean() < 155
    assert picture.max() == 255


def test_a_signal_is_drawn_as_a_line_from_its_lowest_to_its_highest_sample() -> None:
    spec = Waveform(rate_hz=4000, window_s=1.0, margin_s=0.25).spec
    stored = np.zeros((1, 6000), np.int16)
    stored[0, 1500:3000] = np.where(np.arange(1500) % 2, 20_000, -20_000)
    picture = panel_values(spec, stored)
    assert picture.shape == (LINE_ROWS, 1024)
    quiet, loud = picture[:, :240].sum(axis=0), picture[:, 270:500].sum(axis=0)
    assert (loud == LINE_ROWS).all()
    assert (quiet <= 2).all()
    assert shown_range(spec, picture) == (0.0, 1.0)
    silent = panel_values(spec, np.zeros((1, 6000), np.int16))
    assert (silent.sum(axis=0) <= 2).all()
