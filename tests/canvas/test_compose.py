"""Canvases against the published pictures, against plain numpy, and by the properties they promise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.canvas.compose import Canvas, CanvasConfig
from hms_dist.canvas.config import Placement
from hms_dist.canvas.normalise import Affine
from hms_dist.config import from_dict, load, to_dict
from hms_dist.images.eeg_spectrogram import EegSpectrogram
from hms_dist.images.kaggle_spectrogram import KaggleSpectrogram, log_power
from hms_dist.images.panel import Panel, Window
from hms_dist.recordings.reader import Recording, read_eeg, read_spectrogram
from hms_dist.shards.schema import SIDES, PanelSpec

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data beside the checkout")
GOLDENS = pytest.mark.parametrize("eeg_id", [9100000, 9100012, 9100020])
CANVASES = pytest.mark.parametrize("name", ["sixteenth_place", "public_baseline", "demo"])

TRACES = PanelSpec(shape=(640, 1600), dtype="bit", codec="npy.zst", axes=("row", "column"), unit="ink")
KAGGLE = KaggleSpectrogram()
SIXTEENTH = EegSpectrogram(reference="record")
BASELINE = EegSpectrogram(window_samples=128, fft_samples=1024, hop_samples=39, centred=True)


def config(name: str) -> CanvasConfig:
    return load(CanvasConfig, ["--config", str(ROOT / f"configs/canvas/{name}.yaml")])


def specs(name: str) -> dict[str, PanelSpec]:
    eeg = BASELINE if name == "public_baseline" else SIXTEENTH
    traces = {} if name == "public_baseline" else {"traces": TRACES, "traces_flipped": TRACES}
    return {"kaggle_spectrogram": KAGGLE.spec, "eeg_spectrogram": eeg.spec} | traces


def random_panels(name: str, seed: int, num_rows: int) -> dict[str, torch.Tensor]:
    """Stored arrays of any bits at all."""
    rng = np.random.default_rng(seed)
    return {
        panel: torch.from_numpy(
            rng.integers(0, 256, (num_rows, spec.num_bytes), dtype=np.uint8)
            .view(spec.stored_dtype)
            .reshape(num_rows, *spec.stored_shape)
        )
        for panel, spec in specs(name).items()
    }


def flipped_panels(panels: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """What the renderer would give for the mirror image of the recording."""
    result = {}
    for panel, stored in panels.items():
        regions = specs(name)[panel].regions
        if regions:
            result[panel] = stored[:, [regions.index(SIDES[region]) for region in regions]]
    if "traces" in panels:
        result |= {"traces": panels["traces_flipped"], "traces_flipped": panels["traces"]}
    return result


def drawn(panel: Panel, recording: Recording) -> torch.Tensor:
    window = Window(recording=recording, start=0, spectrogram_offset_s=0.0)
    return torch.from_numpy(np.array(panel.draw(panel.prepare(recording), window)))[None]


def real_row(eeg_id: int, spectrogram_id: str) -> Recording:
    time_s, power = read_spectrogram(DATA / f"iiic/train_spectrograms/{spectrogram_id}.parquet")
    eeg = read_eeg(DATA / f"iiic/train_eegs/{eeg_id}.parquet")
    return Recording(eeg_id=1, eeg=eeg, spectrogram_id=2, spectrogram=power, spectrogram_time_s=time_s)


@pytest.mark.real_data
@real_data
@GOLDENS
@pytest.mark.parametrize("flip", [False, True])
def test_published_sixteenth_place(eeg_id: int, flip: bool) -> None:
    with np.load(DATA / f"parity/golden_{eeg_id}.npz") as arrays:
        row = real_row(eeg_id, str(arrays["spectrogram_id"]))
        planes = {"traces": arrays["canvas_traces_u1"], "traces_flipped": arrays["flip_traces_u1"]}
        left = arrays["flip_left_f32" if flip else "canvas_left_f32"]
    panels = {name: torch.from_numpy(plane)[None] for name, plane in planes.items()}
    panels |= {"kaggle_spectrogram": drawn(KAGGLE, row), "eeg_spectrogram": drawn(SIXTEENTH, row)}
    canvas = Canvas(config("sixteenth_place"), specs("sixteenth_place"))
    picture = canvas(panels, torch.tensor([flip]))[0, 0].numpy()
    assert np.abs(picture[:320, :320] - left[:320]).max() <= 0.1 / 255
    assert np.abs(picture[320:, :320] - left[320:]).max() <= 0.51 / 255
    expected = np.unpackbits(planes["traces_flipped" if flip else "traces"], axis=1)
    np.testing.assert_array_equal(picture[:, 320:], expected)


@pytest.mark.real_data
@real_data
@pytest.mark.parametrize("flip", [False, True])
def test_published_sixteenth_place_with_gaps(flip: bool) -> None:
    with np.load(DATA / "parity/canvas_with_gaps.npz") as arrays:
        columns = {str(column): index for index, column in enumerate(arrays["spec_cols"])}
        order = [columns[f"{region}_{hz:g}"] for region in KAGGLE.spec.regions for hz in KAGGLE.spec.rows_hz]
        power = arrays["spectrogram"][:, order].reshape(300, 4, 100)
        eeg_spectrogram = arrays["eeg_spectrogram"].transpose(2, 0, 1)
        left = arrays["flip_left" if flip else "image_f32_left"]
    panels = random_panels("sixteenth_place", 0, 1)
    panels["kaggle_spectrogram"] = torch.from_numpy(log_power(power))[None]
    panels["eeg_spectrogram"] = torch.from_numpy(np.ascontiguousarray(eeg_spectrogram))[None]
    canvas = Canvas(config("sixteenth_place"), specs("sixteenth_place"))
    picture = canvas(panels, torch.tensor([flip]))[0, 0, :, :320].numpy()
    assert np.isnan(power).any()
    assert np.abs(picture[:320] - left[:320]).max() <= 0.1 / 255
    assert np.abs(picture[320:] - left[320:]).max() <= 0.51 / 255


@pytest.mark.real_data
@real_data
@GOLDENS
def test_published_public_baseline(eeg_id: int) -> None:
    with np.load(DATA / f"parity/golden_{eeg_id}.npz") as arrays:
        row = real_row(eeg_id, str(arrays["spectrogram_id"]))
        kaggle, eeg = arrays["kaggle_panels_baseline_f32"], arrays["eeg_spectrogram_baseline_f32"]
    panels = {"kaggle_spectrogram": drawn(KAGGLE, row), "eeg_spectrogram": drawn(BASELINE, row)}
    canvas = Canvas(config("public_baseline"), specs("public_baseline"))
    bands = canvas(panels)[0, 0].numpy().reshape(4, 128, 512)
    for half, expected in ((bands[..., :256], kaggle), (bands[..., 256:], eeg)):
        assert np.abs(half - expected.transpose(2, 0, 1)).max() <= np.ptp(expected) / 255


@CANVASES
def test_flipping_is_composing_the_mirror_image(name: str) -> None:
    panels, canvas = random_panels(name, 1, 3), Canvas(config(name), specs(name))
    mirror = flipped_panels(panels, name)
    everywhere = torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(canvas(panels, everywhere), canvas(mirror), rtol=0, atol=0)
    torch.testing.assert_close(canvas(panels, ~everywhere), canvas(panels), rtol=0, atol=0)
    mixed = canvas(panels, torch.tensor([True, False, True]))
    torch.testing.assert_close(mixed[[0, 2]], canvas(mirror)[[0, 2]], rtol=0, atol=0)
    torch.testing.assert_close(mixed[1], canvas(panels)[1], rtol=0, atol=0)
    assert (canvas(panels) != canvas(mirror)).any()


@CANVASES
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    panels, canvas = random_panels(name, 2, 5), Canvas(config(name), specs(name))
    flip = torch.tensor([True, False, False, True, True])
    batch = canvas(panels, flip)
    for row in range(5):
        alone = canvas({key: stored[row : row + 1] for key, stored in panels.items()}, flip[row : row + 1])
        torch.testing.assert_close(alone[0], batch[row], rtol=0, atol=0)


@CANVASES
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_bits_give_finite_pictures(name: str, seed: int) -> None:
    pictures = Canvas(config(name), specs(name))(random_panels(name, seed, 2), torch.tensor([True, False]))
    assert pictures.dtype == torch.float32
    assert pictures.shape == (2, 1, config(name).height, config(name).width)
    assert pictures.isfinite().all()


@CANVASES
def test_configurations_survive_saving(name: str) -> None:
    assert from_dict(CanvasConfig, to_dict(config(name))) == config(name)


def test_members_to_read() -> None:
    assert Canvas(config("sixteenth_place"), specs("sixteenth_place")).panels == (
        "kaggle_spectrogram",
        "eeg_spectrogram",
        "traces",
        "traces_flipped",
    )
    without = specs("sixteenth_place")
    del without["traces_flipped"]
    canvas = Canvas(config("sixteenth_place"), without, flips=False)
    assert canvas.panels == ("kaggle_spectrogram", "eeg_spectrogram", "traces")
    with pytest.raises(ValueError, match="flips=False"):
        canvas(random_panels("sixteenth_place", 0, 1), torch.tensor([True]))
    assert Canvas(config("public_baseline"), specs("public_baseline")).panels == (
        "kaggle_spectrogram",
        "eeg_spectrogram",
    )


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


def test_arrangements_against_numpy() -> None:
    stored = np.random.default_rng(3).integers(0, 256, (2, *REGIONS.shape), dtype=np.uint8)
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


def test_all_regions_are_shown_in_the_panels_order_by_default() -> None:
    stored = {"a": torch.randint(0, 256, (1, *REGIONS.shape), generator=torch.Generator().manual_seed(4)).byte()}
    default = Placement(panel="a", arrangement="stacked", top=0, left=0, height=64, width=32)
    named = replace(default, regions=("LL", "RL", "LP", "RP"))
    pictures = [Canvas(one(item), {"a": REGIONS})(stored, torch.tensor([True])) for item in (default, named)]
    torch.testing.assert_close(*pictures, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@CANVASES
def test_a_gpu_gives_the_same(name: str) -> None:
    panels, canvas = random_panels(name, 7, 4), Canvas(config(name), specs(name))
    flip = torch.tensor([True, False, True, False])
    moved = canvas({key: stored.cuda() for key, stored in panels.items()}, flip.cuda())
    torch.testing.assert_close(moved.cpu(), canvas(panels, flip), atol=1e-5, rtol=0)


def test_affine_scales_after_decoding() -> None:
    stored = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 4, 16, 16)
    placement = Placement(panel="a", arrangement="stacked", normalise=Affine(shift=80, scale=1 / 80), **PLACE)
    picture = Canvas(one(replace(placement, width=32)), {"a": REGIONS})({"a": stored})
    torch.testing.assert_close(picture[..., 0:32:2], torch.zeros(1, 1, 64, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(picture[..., 1:32:2], torch.ones(1, 1, 64, 16), atol=1e-6, rtol=0)
