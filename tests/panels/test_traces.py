"""The trace picture: parity with published ones, symmetry, and input of every kind."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.traces import Traces
from hms_dist.recordings.reader import read_eeg
from hms_dist.signals.filters import FilterChain
from hms_dist.signals.gaps import fill_gaps
from hms_dist.signals.montage import TRACE_MONTAGES, TRACE_SCALES_UV, differences, swap_sides

DATA = Path(__file__).parents[2].parent / "shared/data"
PUBLISHED = {"cut": "before", "filters": FilterChain(zero_phase=False)}
COMMON_AVERAGE = {"montage": "common_average", "gaps": "interpolate", "scales_uv": (60.0,) * 20}
REFERENTIAL = {"montage": "referential", "gaps": "mean", "cut": "before", "scales_uv": (80.0,) * 20}
ALL_OPTIONS = {"default": {}, "published": PUBLISHED, "common_average": COMMON_AVERAGE, "referential": REFERENTIAL}
RECIPES = pytest.mark.parametrize("options", [{}, PUBLISHED], ids=["default", "published"])


def published(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """EEG in CHANNELS order, and the published picture of it and of its mirror image."""
    with np.load(DATA / "parity" / name) as arrays:
        if "eeg" in arrays:
            columns = list(arrays["eeg_cols"])
            eeg, plain, flipped = arrays["eeg"], arrays["image_u1_right"], arrays["flip_u1_right"]
            eeg = eeg[:, [columns.index(channel) for channel in CHANNELS]]
        else:
            eeg = read_eeg(DATA / f"iiic/train_eegs/{arrays['eeg_id']}.parquet")
            plain, flipped = arrays["canvas_traces_u1"], arrays["flip_traces_u1"]
    return eeg, np.unpackbits(plain, axis=1) > 0, np.unpackbits(flipped, axis=1) > 0


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data beside the checkout")
@pytest.mark.parametrize(
    "name", ["golden_9100000.npz", "golden_9100012.npz", "golden_9100020.npz", "canvas_with_gaps.npz"]
)
def test_published_pictures(draw, name: str) -> None:
    eeg, plain, flipped = published(name)
    np.testing.assert_array_equal(draw(Traces(**PUBLISHED), eeg), plain)
    np.testing.assert_array_equal(draw(Traces(flipped=True, **PUBLISHED), eeg), flipped)


@pytest.mark.parametrize("options", ALL_OPTIONS.values(), ids=ALL_OPTIONS)
def test_flipping_is_exchanging_electrodes(draw, noise, options: dict) -> None:
    eeg = noise(missing=0.01)
    np.testing.assert_array_equal(draw(Traces(flipped=True, **options), eeg), draw(Traces(**options), swap_sides(eeg)))
    assert (draw(Traces(flipped=True, **options), eeg) != draw(Traces(**options), eeg)).mean() > 0.01


def test_a_label_row_is_drawn_from_its_own_window(draw, noise) -> None:
    """Cut first, the picture depends on its 20 seconds alone; filtered whole, on hardly anything outside the 50."""
    long = noise(30_000, missing=0.01)
    for start in (0, 7000, 20_000):
        alone = long[start : start + 10_000]
        np.testing.assert_array_equal(draw(Traces(**PUBLISHED), long, start), draw(Traces(**PUBLISHED), alone))
        assert (draw(Traces(), long, start) != draw(Traces(), alone)).mean() < 1e-4


@RECIPES
def test_a_spike_at_25_s_lights_the_right_column(draw, options: dict) -> None:
    eeg = np.zeros((10_000, 20))
    eeg[25 * 200, CHANNELS.index("Cz")] = 1000
    changed = draw(Traces(**options), eeg) != draw(Traces(**options), np.zeros((10_000, 20)))
    column = 10 * 1599 // 20  # 25 s are 10 s into the drawn 20
    assert changed[16 * 32 : 18 * 32, column].sum() > 20
    assert not changed[: 15 * 32].any()  # the midline traces, and half a band above them, hold all of it
    assert not changed[19 * 32 :].any()
    if not options:
        np.testing.assert_allclose(np.average(np.arange(1600), weights=changed.sum(axis=0)), column, atol=3)


def test_a_flat_trace_is_one_row_and_the_strokes_frame_it(draw) -> None:
    picture = draw(Traces(), np.zeros((10_000, 20)))
    assert (picture.shape, picture.dtype) == ((640, 1600), np.bool_)
    assert set(np.flatnonzero(picture[:, 800])) == {24, *(32 * trace + 16 for trace in range(1, 19)), 616}
    assert picture[:, 0].sum() > 300
    assert picture[:, 1598].sum() > 300
    assert not picture[:, 1599].any()


def test_amplitude_is_relative_to_the_scale(draw) -> None:
    """A sine of Fz as high as the 17th trace's scale swings over a quarter of its 64 rows to either side."""
    eeg = np.zeros((10_000, 20))
    eeg[:, CHANNELS.index("Fz")] = TRACE_SCALES_UV[16] * np.sin(2 * np.pi * 10 * np.arange(10_000) / 200)
    between = slice(500, 556)  # the flat neighbours' rows, 496 and 560, left out
    rows = np.flatnonzero(draw(Traces(), eeg)[between, 100:1500].any(axis=1)) + 500
    assert abs(rows.min() - (528 - 16)) <= 1
    assert abs(rows.max() - (528 + 16)) <= 1
    halved = Traces(scales_uv=tuple(2 * scale for scale in TRACE_SCALES_UV))
    rows = np.flatnonzero(draw(halved, eeg)[between, 100:1500].any(axis=1)) + 500
    assert abs(rows.min() - (528 - 8)) <= 1


@settings(max_examples=20, deadline=None)
@given(
    value=st.sampled_from([0.0, 1e-30, -37.5, 3e38, -3e38, np.nan, np.inf, -np.inf]),
    gap_share=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    noise_uv=st.sampled_from([0.0, 10.0, 1e6, 1e37]),
    seed=st.integers(0, 2**32 - 1),
    flipped=st.booleans(),
    options=st.sampled_from(list(ALL_OPTIONS.values())),
)
def test_any_input_gives_a_picture(
    draw, value: float, gap_share: float, noise_uv: float, seed: int, flipped: bool, options: dict
) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        eeg = (value + noise_uv * rng.normal(size=(10_000, 20))).astype(np.float32)
    eeg[rng.random(eeg.shape) < gap_share] = np.nan
    panel = Traces(flipped=flipped, **options)
    picture = draw(panel, eeg)
    assert picture.shape == panel.spec.shape
    assert picture.any(axis=0)[:-1].all()  # every column shows something
    stored = panel.spec.decode(panel.spec.encode(picture))
    np.testing.assert_array_equal(np.unpackbits(stored, axis=-1), picture)


@pytest.mark.parametrize("options", [COMMON_AVERAGE, REFERENTIAL], ids=["common_average", "referential"])
def test_other_montages_and_gaps(draw, noise, options: dict) -> None:
    """The same picture from derivations and fillings done by hand, drawn as if every trace were an electrode."""
    eeg, panel = noise(missing=0.01), Traces(**options)
    signals = differences(eeg.astype(np.float32), TRACE_MONTAGES[options["montage"]])
    part = slice(3000, 7000) if panel.cut == "before" else slice(None)
    signals[:, part] = fill_gaps(signals[:, part], panel.gaps)
    drawn = draw(panel, eeg)
    as_electrodes = np.empty((10_000, 20))
    for trace, pair in enumerate(TRACE_MONTAGES["referential"]):
        as_electrodes[:, CHANNELS.index(pair[0])] = signals[trace]
    plain = Traces(montage="referential", cut=panel.cut, scales_uv=panel.scales_uv)
    assert (draw(plain, as_electrodes) != drawn).mean() < 1e-4
    assert (draw(Traces(**{**options, "gaps": "zero"}), eeg) != drawn).mean() > 1e-3
    assert panel.spec.traces == tuple("-".join(pair) for pair in TRACE_MONTAGES[panel.montage])


def test_the_published_scales_are_for_the_published_montage() -> None:
    for montage in ("common_average", "referential"):
        with pytest.raises(ValueError, match=f"scales_uv: .* hms-dist statistics --montage {montage}"):
            Traces(montage=montage)


def test_bad_scales_are_refused() -> None:
    for scales in ((1.0,) * 19, (1.0,) * 19 + (0.0,), (1.0,) * 19 + (float("nan"),)):
        with pytest.raises(ValueError, match="scales_uv: expected 20 positive numbers, found"):
            Traces(scales_uv=scales)
