"""Panels drawn by a canvas from a stored signal equal those that the renderer draws from the same samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.normalise import Affine
from hms_dist.canvas.options import CanvasConfig, Placement
from hms_dist.canvas.signals import DrawnLogMel, DrawnPanel, DrawnPcen
from hms_dist.canvas.signals.mel import exponential_mean
from hms_dist.config.load import from_dict, to_dict
from hms_dist.core.errors import UserError
from hms_dist.panels import AudioPcen, LogMel, Waveform

RATE_HZ, SECONDS, MARGIN = 4000, 1.0, 1000
FRAMES = {"fft_samples": 256, "window_samples": 256, "hop_samples": 64, "num_mels": 32}
SIZE = {"rate_hz": RATE_HZ, "window_s": SECONDS}
WAVEFORM = Waveform(**SIZE, margin_s=MARGIN / RATE_HZ)
SPECS = {"waveform": WAVEFORM.spec}
RANGE_LN = 7 * np.log(10)
"""Log power is compared within 70 dB of the loudest: the rounding of a float32 transform is 120 dB below."""


def canvas_of(**drawn: DrawnPanel) -> CanvasConfig:
    """A canvas of drawn pictures, 32 x 63 each, below each other."""
    places = [
        Placement(
            panel=name, normalise=Affine(), arrangement="stacked", resize="exact", top=32 * number, left=0, height=32,
            width=63,
        )
        for number, name in enumerate(drawn)
    ]  # fmt: skip
    return CanvasConfig(height=32 * len(drawn), width=63, placements=tuple(places), drawn=drawn)


@pytest.fixture
def samples(rng: np.random.Generator) -> np.ndarray:
    """Three rows with margins, float32 [3, 1, 6000]: noise and calls of different loudness."""
    time_s = np.arange(6000) / RATE_HZ
    calls = np.sin(2 * np.pi * rng.uniform(200, 1900, (3, 1, 1)) * time_s) * (np.sin(8 * time_s) > 0)
    found = 0.01 * rng.standard_normal((3, 1, 6000)) + rng.uniform(0.05, 0.9, (3, 1, 1)) * calls
    return found.clip(-1, 1).astype(np.float32)


def stored(samples: np.ndarray) -> dict[str, torch.Tensor]:
    return {"waveform": torch.from_numpy(np.stack([WAVEFORM.draw_samples(row) for row in samples]))}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "reflect", "min_hz": 50.0, "max_hz": 1500.0},
        {"start": "first_frame", "gain": 0.7, "power": 0.25},
        {"start": "mean", "time_constant_s": 0.2, "scale": 1.0, "epsilon": 1e-9},
    ],
)
def test_drawn_pictures_equal_the_renderers(samples, options):
    of_mel = {name: options[name] for name in ("padding", "min_hz", "max_hz") if name in options}
    config = canvas_of(
        log_mel=DrawnLogMel(drawn_from="waveform", **SIZE, **FRAMES, **of_mel),
        pcen=DrawnPcen(drawn_from="waveform", **SIZE, **FRAMES, **options),
    )
    images = Canvas(config, SPECS)(stored(samples)).numpy()
    log_mel, pcen = LogMel(**SIZE, **FRAMES, **of_mel), AudioPcen(**SIZE, **FRAMES, **options)
    for row, image in zip(samples, images, strict=True):
        inside = row[:, MARGIN:-MARGIN]
        logs, energy = log_mel.log_power(inside)[0], pcen.normalised(inside)[0]
        near = logs > logs.max() - RANGE_LN
        assert np.abs(image[0, :32] - logs)[near].max() < 1e-4
        np.testing.assert_allclose(image[0, 32:], energy, rtol=1e-4, atol=1e-4 * energy.max())


def test_a_drawn_panel_has_the_specification_of_the_stored_one():
    for panel, drawn in (
        (LogMel(**SIZE, **FRAMES), DrawnLogMel(drawn_from="waveform", **SIZE, **FRAMES)),
        (AudioPcen(**SIZE, **FRAMES), DrawnPcen(drawn_from="waveform", **SIZE, **FRAMES)),
    ):
        assert drawn.spec(WAVEFORM.spec) == replace(panel.spec, dtype="float32")


def test_a_row_does_not_depend_on_its_batch(samples):
    canvas = Canvas(canvas_of(pcen=DrawnPcen(drawn_from="waveform", **SIZE, **FRAMES)), SPECS)
    together = canvas(stored(samples))
    for row in range(3):
        assert torch.equal(canvas(stored(samples[row : row + 1]))[0], together[row])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_draws_what_the_cpu_draws(samples):
    """Also with TF32 for the network's products, and inside its autocast."""
    config = canvas_of(
        log_mel=DrawnLogMel(drawn_from="waveform", **SIZE, **FRAMES),
        pcen=DrawnPcen(drawn_from="waveform", **SIZE, **FRAMES),
    )
    canvas = Canvas(config, SPECS)
    expected = canvas(stored(samples))
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.autocast("cuda", torch.bfloat16):
            found = canvas({name: array.cuda() for name, array in stored(samples).items()}).cpu()
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    near = expected[:, :, :32] > expected[:, :, :32].amax((2, 3), keepdim=True) - RANGE_LN
    assert (found - expected)[:, :, :32][near].abs().max() < 1e-4
    torch.testing.assert_close(found[:, :, 32:], expected[:, :, 32:], rtol=1e-4, atol=1e-4 * float(expected.max()))


def test_only_the_signal_is_read():
    config = canvas_of(
        log_mel=DrawnLogMel(drawn_from="waveform", **SIZE, **FRAMES),
        pcen=DrawnPcen(drawn_from="waveform", **SIZE, **FRAMES),
    )
    assert Canvas(config, {**SPECS, "log_mel": LogMel(**SIZE, **FRAMES).spec}).members == ("waveform",)


def test_configurations_survive_saving():
    config = canvas_of(log_mel=DrawnLogMel(drawn_from="waveform", **SIZE, **FRAMES, max_hz=1500.0))
    assert from_dict(CanvasConfig, to_dict(config)) == config


def test_the_exponential_mean_is_the_recursion(rng):
    values, before, weight = rng.random((2, 3, 301)), rng.random((2, 3)), float(rng.uniform(0.01, 0.9))
    expected, mean = np.empty_like(values), before
    for frame in range(values.shape[-1]):
        mean = (1 - weight) * mean + weight * values[..., frame]
        expected[..., frame] = mean
    found = exponential_mean(torch.from_numpy(values), torch.from_numpy(before), weight)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drawn_from": "sound"}, "canvas: drawn_from 'sound' is not in the shard set, which has: waveform"),
        ({"rate_hz": 8000, "window_s": 0.5}, "'waveform' has 4000 samples per second, the picture is drawn from 8000"),
        ({"window_s": 0.5}, "'waveform' has 4000 samples per row, the picture is drawn from 2000"),
    ],
)
def test_a_signal_that_does_not_fit_is_refused_in_one_line(options, message):
    config = canvas_of(log_mel=DrawnLogMel(**{"drawn_from": "waveform", **SIZE, **FRAMES, **options}))
    with pytest.raises(UserError) as error:
        Canvas(config, SPECS)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_picture_is_no_signal():
    config = canvas_of(log_mel=DrawnLogMel(drawn_from="pcen", **SIZE, **FRAMES))
    with pytest.raises(UserError, match="'pcen' is no stored signal"):
        Canvas(config, {"pcen": AudioPcen(**SIZE, **FRAMES).spec})


def test_a_drawn_panel_that_nothing_shows_is_refused():
    drawn = DrawnLogMel(drawn_from="waveform", **SIZE, **FRAMES)
    config = canvas_of(log_mel=drawn)
    with pytest.raises(ValueError, match="drawn: 'pcen' is in no placement; placements show log_mel"):
        replace(config, drawn={"log_mel": drawn, "pcen": drawn})
