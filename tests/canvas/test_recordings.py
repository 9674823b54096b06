"""Canvases of whole recordings: the flip is the mirror image's picture, and nothing a recording holds breaks one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.core.signal_format import CHANNELS, REGIONS
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import mirrored
from hms_dist.signals.montage import swap_sides

TIME_S = np.arange(10_000) / 200
CANVASES = (Path(__file__).parents[2] / "configs/canvas").glob("*.yaml")


@pytest.fixture(scope="module", params=sorted(path.stem for path in CANVASES if not path.stem.startswith("audio_")))
def project(request, canvas_named):
    """Each canvas of EEG in turn."""
    return canvas_named(request.param)


def recording(eeg: np.ndarray, spectrogram: np.ndarray) -> Recording:
    times_s = 2.0 * np.arange(len(spectrogram)) + 1
    return Recording(eeg_id=1, eeg=eeg, spectrogram_id=2, spectrogram=spectrogram, spectrogram_time_s=times_s)


def random_recording(rng: np.random.Generator) -> Recording:
    """Noise, a rhythm of its own in each channel, and gaps."""
    rhythms = 40 * np.sin(2 * np.pi * rng.uniform(1, 15, len(CHANNELS)) * TIME_S[:, None])
    eeg = (rng.normal(0, 20, rhythms.shape) + rhythms).astype(np.float32)
    eeg[1000:1400, 3] = np.nan
    power = np.exp(rng.normal(0, 2, (300, len(REGIONS), 100))).astype(np.float32)
    power[40:60, 1] = np.nan
    power[100:110, 2, :50] = 0
    return recording(eeg, power)


def mirror_image(one: Recording) -> Recording:
    order = [REGIONS.index(region) for region in mirrored(REGIONS)]
    return recording(np.ascontiguousarray(swap_sides(one.eeg)), np.ascontiguousarray(one.spectrogram[:, order]))


def test_the_flip_is_the_picture_of_the_mirror_image(rng: np.random.Generator, project) -> None:
    """flip(render(x)) == render(flip(x)), to the bit; and flipping twice changes nothing."""
    one = random_recording(rng)
    plain, flipped = project.drawn(one), project.drawn(mirror_image(one))
    yes, no = torch.tensor([True]), torch.tensor([False])
    assert (project.picture(plain) != project.picture(flipped)).any()
    torch.testing.assert_close(project.picture(plain, yes), project.picture(flipped, no), rtol=0, atol=0)
    torch.testing.assert_close(project.picture(flipped, yes), project.picture(plain, no), rtol=0, atol=0)


def test_time_runs_backwards_in_rows_that_are_asked_to(rng: np.random.Generator, project) -> None:
    stored = project.random(rng, 2)
    for placed in project.canvas.placed:
        forwards, mixed = (placed.draw(stored, None, reverse) for reverse in (None, torch.tensor([True, False])))
        axis = 0 if placed.placement.arrangement == "time_down" else 1
        torch.testing.assert_close(mixed[1], forwards[1], rtol=0, atol=0)
        torch.testing.assert_close(mixed[0], forwards[0].flip(axis), rtol=0, atol=1e-4)


def test_ten_minutes_backwards_are_the_picture_of_the_reversed_file(rng: np.random.Generator, seed_003) -> None:
    one = random_recording(rng)
    backwards = seed_003.drawn(recording(one.eeg, one.spectrogram[::-1].copy()))
    picture = seed_003.canvas(seed_003.drawn(one), None, torch.tensor([True]))
    torch.testing.assert_close(picture, seed_003.canvas(backwards), rtol=0, atol=1e-5)


CHANNEL = st.sampled_from(["noise", "gap", "missing", "constant", "silent", "huge"])


def channel(kind: str, rng: np.random.Generator) -> np.ndarray:
    """10,000 samples, microvolts."""
    values = rng.normal(0, 30, 10_000)
    if kind == "gap":
        values[rng.integers(9000) :][: rng.integers(1, 3000)] = np.nan
    constant = {"missing": np.nan, "constant": 123.4, "silent": 0.0}
    return np.full(10_000, constant[kind]) if kind in constant else values * (1e6 if kind == "huge" else 1)


@settings(max_examples=4, deadline=None)
@given(
    kinds=st.one_of(CHANNEL.map(lambda kind: [kind] * 20), st.lists(CHANNEL, min_size=20, max_size=20)),
    fill=st.sampled_from([np.nan, 0.0, 5.0, 1e30, None]),
    num_rows=st.sampled_from([1, 299, 300]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_recording_gives_a_finite_picture(project, kinds, fill, num_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    eeg = np.stack([channel(kind, rng) for kind in kinds], axis=1).astype(np.float32)
    power = np.exp(rng.normal(0, 5, (num_rows, len(REGIONS), 100))).astype(np.float32)
    power = power if fill is None else np.full_like(power, fill)
    power[rng.random(power.shape) < 0.1] = rng.choice([np.nan, 0.0])
    assert project.picture(project.drawn(recording(eeg, power)), torch.tensor([True])).isfinite().all()


@pytest.mark.parametrize("num_samples", [10_000, 30_000])
def test_long_recordings(rng: np.random.Generator, project, num_samples: int) -> None:
    eeg = rng.normal(0, 30, (num_samples, len(CHANNELS))).astype(np.float32)
    picture = project.picture(project.drawn(recording(eeg, np.ones((900, 4, 100), np.float32))))
    assert picture.isfinite().all()
