"""Ticks are at the positions of their values: times and frequencies of a column or row are read back from their
pixel."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.report.edges import parts_edge, round_numbers, time_edge
from hms_dist.shards.schema import PanelSpec

SPEC = PanelSpec(
    shape=(2, 10, 100), dtype="uint8", codec="npy", axes=("region", "frequency", "time"), unit="dB",
    regions=("LL", "RL"), value_range=(0, 1), rows_hz=tuple(range(1, 11)), columns_s=(0.25, 49.75),
)  # fmt: skip


def test_columns_and_times() -> None:
    """100 columns of 0.5 s on 400 pixels: 8 pixels a second; a crop starts later."""
    whole = time_edge(SPEC, (0, 100), 400, 10)
    assert whole.unit == "s"
    for place, text in whole.numbers:
        assert place == pytest.approx(8 * float(text))
    assert [text for _, text in whole.numbers] == ["0", "5", "10", "15", "20", "25", "30", "35", "40", "45", "50"]
    crop = time_edge(SPEC, (40, 60), 400, 10)
    for place, text in crop.numbers:
        assert place == pytest.approx(40 * (float(text) - 20))
    assert (crop.numbers[0][1], crop.numbers[-1][1]) == ("20", "30")
    assert time_edge(replace(SPEC, columns_s=None), (0, 100), 400, 10).numbers == ()


def test_parts_and_frequencies() -> None:
    edge = parts_edge(["LL", "RL"], SPEC.rows_hz, 200, 10)
    assert edge.names == ((50, "LL"), (150, "RL"))
    assert edge.bounds == (100,)
    assert edge.unit == "Hz"
    for place, text in edge.numbers:
        assert -place % 100 == pytest.approx(10 * float(text) - 5)  # low frequencies at the bottom of their part
    assert [text for _, text in edge.numbers] == ["5", "2", "1"] * 2  # 10 Hz is too near the part's end
    small = parts_edge(["LL", "RL"], SPEC.rows_hz, 50, 10)
    assert (small.numbers, small.unit) == ((), "")


@settings(deadline=None)
@given(low=st.floats(-1e3, 1e3), span=st.floats(1e-2, 1e4), most=st.integers(2, 20))
def test_round_numbers(low: float, span: float, most: int) -> None:
    found = round_numbers(low, low + span, most=most)
    assert most / 5 - 2 <= len(found) <= most + 1
    assert all(low - 1e-6 * span <= number <= low + span * (1 + 1e-6) for number in found)
    steps = np.diff(found)
    if len(steps):
        leading = f"{steps[0]:.6e}"[0]
        assert leading in "125"
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6, atol=1e-9 * span)


@settings(deadline=None)
@given(
    rows=st.lists(st.floats(0.1, 99), min_size=2, max_size=60, unique=True).map(sorted),
    length=st.integers(10, 900),
    spacing=st.integers(3, 30),
)
def test_numbers_keep_their_distance(rows: list[float], length: int, spacing: int) -> None:
    places = [place for place, _ in parts_edge(["LL"], rows, length, spacing).numbers]
    assert all(0 <= place <= length for place in places)
    assert all(np.diff(places) >= spacing - 1e-9)
