"""Ticks are at the positions of their values: times and frequencies of a column or row are read back from their
pixel."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.canvas.options import Placement
from hms_dist.canvas.placed import PlacedPanel
from hms_dist.report.edges import edges_of, parts_edge, round_numbers, time_edge
from hms_dist.shards.schema import PanelSpec

SPEC = PanelSpec(
    shape=(2, 10, 100), dtype="uint8", codec="npy", axes=("region", "frequency", "time"), unit="dB",
    regions=("LL", "RL"), value_range=(0, 1), rows_hz=tuple(range(1, 11)), columns_s=(0.25, 49.75),
)  # fmt: skip
TRACES = PanelSpec(
    shape=(40, 64), dtype="bit", codec="npy", axes=("row", "time"), unit="lit", traces=("Fp1-F3", "C3"),
    columns_s=(15.0, 35.0),
)  # fmt: skip
PLACE = {"top": 5, "left": 7}


def tile(placement: Placement, *, flip: bool = False):
    mirror = replace(TRACES, traces=("Fp2-F4", "C4"))
    return edges_of(PlacedPanel(placement, {"a": SPEC, "t": TRACES, "m": mirror}, flips=flip), flip=flip, spacing=10)


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
        assert place % 100 == pytest.approx(10 * float(text) - 5)
    assert [text for _, text in edge.numbers] == ["1", "2", "5"] * 2  # 10 Hz is too near the part's end
    small = parts_edge(["LL", "RL"], SPEC.rows_hz, 50, 10)
    assert (small.numbers, small.unit) == ((), "")


def test_arrangements_turn_the_edges() -> None:
    stacked = Placement(panel="a", arrangement="stacked", height=200, width=400, **PLACE)
    down = replace(stacked, arrangement="time_down", height=400, width=200)
    assert tile(stacked).left == tile(down).bottom
    assert tile(stacked).bottom == tile(down).left
    traces = tile(Placement(panel="t", flipped_panel="m", height=40, width=640, **PLACE))
    assert traces.left.names == ((10, "Fp1-F3"), (30, "C3"))
    assert [text for _, text in traces.bottom.numbers] == [str(time_s) for time_s in range(15, 36)]
    for place, text in traces.bottom.numbers:
        assert place == pytest.approx(5 + 10 * 63 * (float(text) - 15) / 20)


def test_a_flip_names_what_is_shown() -> None:
    stacked = Placement(panel="a", arrangement="stacked", regions=("RL", "LL"), height=200, width=400, **PLACE)
    assert [name for _, name in tile(stacked).left.names] == ["RL", "LL"]
    assert [name for _, name in tile(stacked, flip=True).left.names] == ["LL", "RL"]
    traces = Placement(panel="t", flipped_panel="m", height=40, width=64, **PLACE)
    assert [name for _, name in tile(traces, flip=True).left.names] == ["Fp2-F4", "C4"]


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
