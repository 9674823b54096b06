"""Canvases against the published images, against plain numpy, and by their properties."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.canvas.compose import Canvas, CanvasConfig
from hms_dist.canvas.normalise import Affine, DataWide
from hms_dist.canvas.options import Placement
from hms_dist.config.load import from_dict, load, to_dict
from hms_dist.panels.kaggle_spectrogram import log_power
from hms_dist.recordings.reader import Recording, read_eeg, read_spectrogram
from hms_dist.rendering.render import RenderConfig
from hms_dist.shards.schema import PanelSpec, mirrored

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data beside the checkout")
GOLDENS = pytest.mark.parametrize("eeg_id", [9100000, 9100012, 9100020])


def real_row(eeg_id: int, spectrogram_id: str) -> Recording:
    time_s, power = read_spectrogram(DATA / f"iiic/train_spectrograms/{spectrogram_id}.parquet")
    eeg = read_eeg(DATA / f"iiic/train_eegs/{eeg_id}.parquet")
    return Recording(eeg_id=1, eeg=eeg, spectrogram_id=2, spectrogram=power, spectrogram_time_s=time_s)


@pytest.mark.real_data
@real_data
@GOLDENS
@pytest.mark.parametrize("flip", [False, True])
def test_published_sixteenth_place(sixteenth_place, eeg_id: int, flip: bool) -> None:
    with np.load(DATA / f"parity/golden_{eeg_id}.npz") as arrays:
        row = real_row(eeg_id, str(arrays["spectrogram_id"]))
        planes = {"traces": arrays["canvas_traces_u1"], "traces_flipped": arrays["flip_traces_u1"]}
        left = arrays["flip_left_f32" if flip else "canvas_left_f32"]
    panels = sixteenth_place.drawn(row) | {name: torch.from_numpy(plane)[None] for name, plane in planes.items()}
    picture = sixteenth_place.picture(panels, torch.tensor([flip]))[0, 0].numpy()
    assert np.abs(picture[:320, :320] - left[:320]).max() <= 0.1 / 255
    assert np.abs(picture[320:, :320] - left[320:]).max() <= 0.51 / 255
    expected = np.unpackbits(planes["traces_flipped" if flip else "traces"], axis=1)
    np.testing.assert_array_equal(picture[:, 320:], expected)


@pytest.mark.real_data
@real_data
@pytest.mark.parametrize("flip", [False, True])
def test_published_sixteenth_place_with_gaps(rng: np.random.Generator, sixteenth_place, flip: bool) -> None:
    with np.load(DATA / "parity/canvas_with_gaps.npz") as arrays:
        columns = {str(column): index for index, column in enumerate(arrays["spec_cols"])}
        spec = sixteenth_place.specs["kaggle_spectrogram"]
        order = [columns[f"{region}_{hz:g}"] for region in spec.regions for hz in spec.rows_hz]
        power = arrays["spectrogram"][:, order].reshape(300, 4, 100)
        eeg_spectrogram = arrays["eeg_spectrogram"].transpose(2, 0, 1)
        left = arrays["flip_left" if flip else "image_f32_left"]
    panels = sixteenth_place.random(rng, 1)
    panels["kaggle_spectrogram"] = torch.from_numpy(log_power(power))[None]
    panels["eeg_spectrogram"] = torch.from_numpy(np.ascontiguousarray(eeg_spectrogram))[None]
    picture = sixteenth_place.picture(panels, torch.tensor([flip]))[0, 0, :, :320].numpy()
    assert np.isnan(power).any()
    assert np.abs(picture[:320] - left[:320]).max() <= 0.1 / 255
    assert np.abs(picture[320:] - left[320:]).max() <= 0.51 / 255


@pytest.mark.real_data
@real_data
@GOLDENS
def test_published_public_baseline(public_baseline, eeg_id: int) -> None:
    with np.load(DATA / f"parity/golden_{eeg_id}.npz") as arrays:
        row = real_row(eeg_id, str(arrays["spectrogram_id"]))
        kaggle, eeg = arrays["kaggle_panels_baseline_f32"], arrays["eeg_spectrogram_baseline_f32"]
    bands = public_baseline.canvas(public_baseline.drawn(row))[0, 0].numpy().reshape(4, 128, 512)
    for half, expected in ((bands[..., :256], kaggle), (bands[..., 256:], eeg)):
        assert np.abs(half - expected.transpose(2, 0, 1)).max() <= np.ptp(expected) / 255


def test_flipping_is_composing_the_mirror_image(rng: np.random.Generator, project) -> None:
    panels, canvas = project.random(rng, 3), project.picture
    mirror = project.mirror_image(panels)
    everywhere = torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(canvas(panels, everywhere), canvas(mirror), rtol=0, atol=0)
    torch.testing.assert_close(canvas(panels, ~everywhere), canvas(panels), rtol=0, atol=0)
    mixed = canvas(panels, torch.tensor([True, False, True]))
    torch.testing.assert_close(mixed[[0, 2]], canvas(mirror)[[0, 2]], rtol=0, atol=0)
    torch.testing.assert_close(mixed[1], canvas(panels)[1], rtol=0, atol=0)
    has_sides = any(mirrored(spec.regions) != spec.regions or spec.traces for spec in project.specs.values())
    assert (canvas(panels) != canvas(mirror)).any() == has_sides


def test_a_row_does_not_depend_on_its_batch(rng: np.random.Generator, project) -> None:
    panels, canvas = project.random(rng, 5), project.picture
    flip = torch.tensor([True, False, False, True, True])
    batch = canvas(panels, flip)
    for row in range(5):
        alone = canvas({key: stored[row : row + 1] for key, stored in panels.items()}, flip[row : row + 1])
        torch.testing.assert_close(alone[0], batch[row], rtol=0, atol=0)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_bits_give_finite_pictures(project, seed: int) -> None:
    pictures = project.picture(
        project.random(np.random.default_rng(seed), 2), torch.tensor([True, False]), torch.tensor([False, True])
    )
    assert pictures.dtype == torch.float32
    assert pictures.shape == (2, 1, project.config.height, project.config.width)
    assert pictures.isfinite().all()


def test_configurations_survive_saving(project) -> None:
    assert from_dict(CanvasConfig, to_dict(project.config)) == project.config


def test_the_render_configuration_that_a_canvas_names_fills_it(project) -> None:
    """Including the panels for flips."""
    named = re.search(r"configs/render/\w+\.yaml", project.path.read_text())
    assert named is not None
    panels = load(RenderConfig, ["--config", str(ROOT / named[0])]).panels
    Canvas(project.config, {name: panel.spec for name, panel in panels.items()}, flips=True)


def test_members_to_read(rng: np.random.Generator, sixteenth_place, public_baseline) -> None:
    names = ("kaggle_spectrogram", "eeg_spectrogram", "traces", "traces_flipped")
    assert sixteenth_place.canvas.members == names
    assert sixteenth_place.canvas.panels == names[:3]
    assert sixteenth_place.canvas.swaps == {"traces": "traces_flipped"}
    without = {name: spec for name, spec in sixteenth_place.specs.items() if name != "traces_flipped"}
    canvas = Canvas(sixteenth_place.config, without, flips=False)
    assert canvas.members == canvas.panels == names[:3]
    with pytest.raises(ValueError, match="flips=False"):
        canvas(sixteenth_place.random(rng, 1), torch.tensor([True]))
    assert public_baseline.canvas.members == ("kaggle_spectrogram", "eeg_spectrogram")


def test_unknown_statistics_are_refused_when_drawing(rng: np.random.Generator, seed_003) -> None:
    """Not when the canvas is created, because they are computed with it."""
    whole = replace(seed_003.config.placements[0], normalise=DataWide())
    canvas = Canvas(replace(seed_003.config, placements=(whole,)), seed_003.specs)
    with pytest.raises(ValueError, match="data-wide statistics are not known"):
        canvas(seed_003.random(rng, 1))


def one(placement: Placement, height: int = 64, width: int = 64) -> CanvasConfig:
    return CanvasConfig(height=height, width=width, placements=(placement,))


PLACE = {"top": 0, "left": 0, "height": 64, "width": 64}
REGIONS = PanelSpec(
    shape=(4, 16, 32),
    dtype="uint8",
    codec="npy",
    axes=("region", "frequency", "time"),
    unit="dB",
    regions=("LL", "RL", "LP", "RP"),
    value_range=(-80.0, 0.0),
    rows_hz=tuple(range(1, 17)),
)


def test_arrangements_against_numpy(rng: np.random.Generator) -> None:
    stored = rng.integers(0, 256, (2, *REGIONS.shape), dtype=np.uint8)
    decibel = stored / 255 * 80 - 80
    shown = decibel[:, [2, 1]][..., 5:25]
    options = {"panel": "a", "regions": ("LP", "RL"), "time_crop": (5, 25), "scale": 0.5, "top": 3, "left": 4}
    stacked = Placement(**options, arrangement="stacked", height=32, width=20)
    picture = Canvas(one(stacked), {"a": REGIONS})({"a": torch.from_numpy(stored)}).numpy()
    np.testing.assert_allclose(picture[:, 0, 3:35, 4:24], np.concatenate([shown[:, 0], shown[:, 1]], 1) / 2, atol=1e-5)
    picture[:, 0, 3:35, 4:24] = 0
    assert (picture == 0).all()
    down = Placement(**options, arrangement="time_down", height=20, width=32)
    picture = Canvas(one(down), {"a": REGIONS})({"a": torch.from_numpy(stored)}).numpy()
    expected = np.concatenate([shown[:, 0].transpose(0, 2, 1), shown[:, 1].transpose(0, 2, 1)], 2)
    np.testing.assert_allclose(picture[:, 0, 3:23, 4:36], expected / 2, atol=1e-5)


def test_all_regions_are_shown_in_the_panels_order_by_default(rng: np.random.Generator) -> None:
    stored = {"a": torch.from_numpy(rng.integers(0, 256, (1, *REGIONS.shape), dtype=np.uint8))}
    default = Placement(panel="a", arrangement="stacked", top=0, left=0, height=64, width=32)
    named = replace(default, regions=("LL", "RL", "LP", "RP"))
    pictures = [Canvas(one(item), {"a": REGIONS})(stored, torch.tensor([True])) for item in (default, named)]
    torch.testing.assert_close(*pictures, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_gives_the_same(rng: np.random.Generator, project) -> None:
    panels, canvas = project.random(rng, 4), project.picture
    flip = torch.tensor([True, False, True, False])
    moved = canvas({key: stored.cuda() for key, stored in panels.items()}, flip.cuda())
    torch.testing.assert_close(moved.cpu(), canvas(panels, flip), atol=1e-5, rtol=0)


def test_affine_scales_after_decoding() -> None:
    stored = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 4, 16, 16)
    placement = Placement(panel="a", arrangement="stacked", normalise=Affine(shift=80, scale=1 / 80), **PLACE)
    picture = Canvas(one(replace(placement, width=32)), {"a": REGIONS})({"a": stored})
    torch.testing.assert_close(picture[..., 0:32:2], torch.zeros(1, 1, 64, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(picture[..., 1:32:2], torch.ones(1, 1, 64, 16), atol=1e-6, rtol=0)
