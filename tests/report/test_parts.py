"""Parts of a sheet: time to the right and low frequencies at the bottom in every arrangement, bars of the right length,
the labelled seconds in their place."""

from dataclasses import replace

import numpy as np
import pytest

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import CanvasConfig, Placement
from hms_dist.core.signal_format import RATE_HZ
from hms_dist.datasets import HMS, RFCX, Dataset
from hms_dist.panels.log_mel import LogMel
from hms_dist.panels.rasteriser import draw_traces
from hms_dist.panels.traces import BAND_ROWS, NUM_TRACES, WIDTH, Traces
from hms_dist.panels.waveform import Waveform
from hms_dist.report.parts import canvas_parts, panel_part, trace_scales
from hms_dist.shards.index import open_set
from hms_dist.shards.schema import PanelSpec

SPEC = PanelSpec(
    shape=(2, 10, 100), dtype="uint8", codec="npy", axes=("region", "frequency", "time"), unit="dB",
    regions=("LL", "RL"), value_range=(0, 1), rows_hz=tuple(range(1, 11)), columns_s=(0.25, 49.75),
)  # fmt: skip
TRACES, MIRROR = Traces().spec, Traces(flipped=True).spec


def canvas_of(placement: Placement) -> Canvas:
    config = CanvasConfig(
        height=placement.top + placement.height, width=placement.left + placement.width, placements=(placement,)
    )
    return Canvas(config, {"a": SPEC, "t": TRACES, "m": MIRROR})


def part_of(arrangement: str, rows: np.ndarray, **options: object):
    """The part of a canvas with one placement, whose pixels are `rows` [regions, frequencies, times]."""
    stacked = rows.reshape(-1, rows.shape[-1])
    pixels = stacked if arrangement == "stacked" else stacked.T
    place = Placement(
        panel="a", arrangement=arrangement, top=5, left=7, height=pixels.shape[0], width=pixels.shape[1], **options
    )
    image = np.zeros((5 + pixels.shape[0], 7 + pixels.shape[1]), np.float32)
    image[5:, 7:] = pixels
    (part,) = canvas_parts(canvas_of(place), image, HMS, {}, flip=bool(options.get("flip", False)))
    return part


def test_every_arrangement_is_the_same_way_up(rng) -> None:
    rows = rng.random((2, 10, 100)).astype(np.float32)
    upright = np.concatenate([rows[0, ::-1], rows[1, ::-1]])
    stacked, down = part_of("stacked", rows), part_of("time_down", rows)
    np.testing.assert_array_equal(stacked.pixels, upright)
    np.testing.assert_array_equal(down.pixels, upright)
    assert (stacked.left, stacked.bottom, stacked.height) == (down.left, down.bottom, down.height)
    stored = rng.integers(0, 256, SPEC.shape, dtype=np.uint8)
    panel = panel_part("a", SPEC, stored, HMS)
    np.testing.assert_allclose(panel.pixels, np.concatenate([stored[0, ::-1], stored[1, ::-1]]) / 255)
    assert (panel.left, panel.bottom, panel.unit, panel.range) == (stacked.left, stacked.bottom, "dB", (0, 1))
    assert [name for _, name in panel.left.names] == ["LL", "RL"]
    (_, top), *_, (_, low) = panel.left.numbers[: len(panel.left.numbers) // 2]
    assert float(low) < float(top)


def test_the_labelled_seconds(rng) -> None:
    part = panel_part("a", SPEC, np.zeros(SPEC.shape, np.uint8), HMS)
    assert part.marked == pytest.approx((40, 60))  # 20 and 30 s of 50 s on 100 columns
    assert part.grid == pytest.approx(np.arange(51) * 2)
    context = replace(SPEC, columns_s=(1.0, 599.0), shape=(2, 10, 300))
    part = panel_part("a", context, np.zeros(context.shape, np.uint8), HMS)
    assert part.marked == pytest.approx((147.5, 152.5))  # 295 and 305 s of 600 s on 300 columns
    crop = part_of("stacked", np.zeros((2, 10, 10)), time_crop=(0, 10))
    assert crop.marked is None


def test_a_waveform_is_drawn_as_its_range() -> None:
    """Two loudnesses, one half of the other, in a row of 10 s with half a second on both sides."""
    dataset = replace(RFCX, rate_hz=8000)
    spec = Waveform(rate_hz=8000, window_s=10.0, margin_s=0.5).spec
    samples = np.sin(np.arange(spec.shape[-1]) / 3) * np.where(
        np.arange(spec.shape[-1]) < spec.shape[-1] / 2, 0.5, 0.25
    )
    part = panel_part("waveform", spec, np.round(samples[None] * 32768).astype(np.int16), dataset)
    rows, columns = part.pixels.shape
    lit = part.pixels.sum(0)
    assert lit[10 : columns // 2 - 10].mean() == pytest.approx(rows, rel=0.05)
    assert lit[columns // 2 + 10 : -10].mean() == pytest.approx(rows / 2, rel=0.05)
    assert part.title == "waveform, up to 0.5 of full scale"
    middle = (5.5 / 11) * columns
    assert np.mean(part.marked) == pytest.approx(middle, abs=1)
    assert np.ptp(part.marked) == pytest.approx(dataset.annotated_s / 11 * columns, rel=0.01)


def test_a_flip_names_what_is_shown() -> None:
    image = np.zeros((20, 100), np.float32)
    place = Placement(panel="a", arrangement="stacked", regions=("RL", "LL"), top=0, left=0, height=20, width=100)
    for flip, names in ((False, ["RL", "LL"]), (True, ["LL", "RL"])):
        (part,) = canvas_parts(canvas_of(place), image, HMS, {}, flip=flip)
        assert [name for _, name in part.left.names] == names
    place = Placement(panel="t", flipped_panel="m", top=0, left=0, height=640, width=1600)
    (part,) = canvas_parts(canvas_of(place), np.zeros((640, 1600), np.float32), HMS, {}, flip=True)
    assert [name for _, name in part.left.names][:2] == ["Fp2-F4", "F4-C4"]


def test_neighbouring_placements_of_a_panel_share_title_and_unit() -> None:
    places = tuple(
        Placement(panel="a", arrangement="stacked", regions=(name,), top=top, left=0, height=100, width=100)
        for name, top in (("LL", 0), ("RL", 100))
    )
    canvas = Canvas(CanvasConfig(height=200, width=100, placements=places), {"a": SPEC})
    one, two = canvas_parts(canvas, np.zeros((200, 100), np.float32), HMS, {}, flip=False)
    assert (one.title, one.left.unit, one.bottom.numbers) == ("a", "Hz", ())
    assert (two.title, two.left.unit, bool(two.left.numbers), two.bottom.unit) == ("", "", True, "s")


@pytest.mark.parametrize("height", [640, 320])
def test_a_bar_is_as_long_as_its_microvolts(height: int) -> None:
    """Square waves from minus to plus half of each bar's microvolts, drawn as the renderer draws traces."""
    scales = Traces().scales_uv
    place = Placement(panel="t", flipped_panel="m", top=0, left=0, height=height, width=WIDTH)
    (part,) = canvas_parts(canvas_of(place), np.zeros((height, WIDTH), np.float32), HMS, {"t": scales}, flip=False)
    assert len(part.bars) == NUM_TRACES
    length_uv = 0
    for number, bar in enumerate(part.bars):
        length_uv = int(bar.text.split()[0]) if bar.text else length_uv
        one, two = (_rows_of(number, times * length_uv, np.array(scales)[:, None]) for times in (1, 2))
        assert bar.length * 640 / height == pytest.approx(np.ptp(two) - np.ptp(one), abs=1.5)  # less the line's width
        assert bar.middle * 640 / height == pytest.approx((one[0] + one[-1]) / 2, abs=1.5)


def _rows_of(trace: int, length_uv: float, scales_uv: np.ndarray) -> np.ndarray:
    """Rows of the picture that a square wave of this height lights."""
    signals = np.zeros((NUM_TRACES, 20 * RATE_HZ))
    signals[trace] = length_uv / 2 * np.sign(np.sin(np.arange(signals.shape[1]) / 50) + 1e-9)
    drawn, flat = (
        draw_traces((some + 2 * scales_uv) / (4 * scales_uv), BAND_ROWS, WIDTH) for some in (signals, 0 * signals)
    )
    return np.flatnonzero((drawn & ~flat).any(1))


def test_scales_come_from_the_recipe(shard_set) -> None:
    manifest, _ = open_set(shard_set)
    found = trace_scales(manifest.render_config, manifest.panels)
    assert found == {"traces": Traces().scales_uv, "traces_flipped": Traces().scales_uv}
    panel = {"init_args": {"scales_uv": [1.0]}}
    for config in ({}, {"panels": None}, {"panels": {"traces": 3}}, {"panels": {"traces": panel}}):
        assert trace_scales(config, manifest.panels) == {}
    part = panel_part("traces", TRACES, np.zeros(TRACES.stored_shape, np.uint8), HMS)
    assert part.bars == ()


def test_a_box_is_drawn_where_its_seconds_and_hertz_are() -> None:
    """The loudest pixels of a tone with a beginning and an end are inside its box."""
    panel = LogMel(rate_hz=4000, window_s=1.0, fft_samples=128, window_samples=128, hop_samples=32, num_mels=20)
    time_s = np.arange(4000) / 4000
    tone = np.sin(2 * np.pi * 1000 * time_s) * ((time_s > 0.3) & (time_s < 0.6))
    birds = Dataset(
        name="birds", classes=("a", "b"), target="yes_no", signal="audio", rate_hz=4000, window_s=1.0, context_s=1.0,
        annotated_s=0.3, test_step_s=0.5,
    )  # fmt: skip
    box = (0.3, 0.6, 800.0, 1200.0)
    part = panel_part("log_mel", panel.spec, panel.draw_samples(tone[None].astype(np.float32)), birds, box=box)
    ((left, right, top, bottom),) = part.boxes
    rows, columns = np.nonzero(part.pixels > part.pixels.max() - 1)
    assert top <= rows.min()
    assert rows.max() + 1 <= bottom
    assert abs(columns.min() - left) <= 3
    assert abs(columns.max() + 1 - right) <= 3
    assert part.marked is None
    assert [text for _, text in part.left.numbers if int(text) >= 1000] == ["1000"]
    assert not panel_part("log_mel", panel.spec, np.zeros(panel.spec.shape, np.float16), birds).boxes
