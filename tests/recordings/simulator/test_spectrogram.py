"""The simulated 10-minute spectrogram: its columns, its scale, and that the EEG's patterns show in it."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hms_dist.core.signal_format import FREQUENCIES_HZ, REGIONS
from hms_dist.recordings.simulator import head
from hms_dist.recordings.simulator.cohort import EegPlan, SessionPlan
from hms_dist.recordings.simulator.pattern_draws import Place, draw_features, draw_run
from hms_dist.recordings.simulator.session import Session, draw_session, render_eeg
from hms_dist.recordings.simulator.spectrogram import COLUMNS, RATE_HZ, regional_power, spectrogram

REAL = Path(__file__).parents[3].parent / "shared/data/iiic"
HERTZ = np.array(FREQUENCIES_HZ)


def session(seed: int, name: str = "other") -> Session:
    """A session of one 60-s EEG with no interruption, nothing unplugged and no bad electrode."""
    eeg = EegPlan(index=0, name=name, start_s=275, offsets_s=(0, 10), high_votes=True)
    drawn = draw_session(SessionPlan(index=0, patient=0, eegs=(eeg,)), seed)
    none = np.empty((0, 2))
    artifacts = dataclasses.replace(drawn.artifacts, gaps_s=none, unplugged_s=none, bad=(), blinks_s=np.empty(0))
    return dataclasses.replace(drawn, artifacts=artifacts, patterns=())


def test_columns_are_kaggles():
    assert len(COLUMNS) == 400
    assert COLUMNS[:2] == ("LL_0.59", "LL_0.78")
    assert {"LL_3.13", "RL_4.1", "LP_12.5"} < set(COLUMNS)
    assert COLUMNS[-1] == "RP_19.92"


@pytest.mark.parametrize("hertz", [2.0, 7.5, 15.0])
def test_a_sine_is_at_its_frequency_with_its_power(hertz):
    signals = np.zeros((19, RATE_HZ * 62))
    signals[head.SCALP.index("T3")] = 10 * np.sin(2 * np.pi * hertz * np.arange(signals.shape[1]) / RATE_HZ)
    power = regional_power(signals).reshape(30, 4, 100)
    assert not power[:, 1:].any()  # T3 is in the left lateral chain alone
    mean = power[:, 0].mean(axis=0)
    assert HERTZ[mean.argmax()] == pytest.approx(hertz, abs=0.6)
    assert mean.sum() * RATE_HZ / 256 == pytest.approx(50 / 4, rel=0.05)  # half of 2 differences of 4


def test_level_matches_the_background(rng):
    seed = int(rng.integers(2**32))
    quiet = session(seed)
    quiet = dataclasses.replace(quiet, levels=np.ones_like(quiet.levels))
    quiet = dataclasses.replace(
        quiet, background=dataclasses.replace(quiet.background, alpha_uv=0.0, slow_uv=0.0, exponent=2.0)
    )
    mean = spectrogram(quiet, seed).reshape(-1, 4, 100).mean(axis=(0, 1))
    at_3hz = mean[np.abs(HERTZ - 3).argmin()]
    assert at_3hz == pytest.approx(quiet.background.power_1hz / 2 / 9.16, rel=0.2)


def test_gaps_are_nan_rows_and_unplugged_rows_are_zero(rng):
    seed = int(rng.integers(2**32))
    whole = session(seed)
    artifacts = dataclasses.replace(
        whole.artifacts, gaps_s=np.array([[40.5, 43.0]]), unplugged_s=np.array([[99.0, 111.0]])
    )
    broken = dataclasses.replace(whole, artifacts=artifacts)
    power = spectrogram(broken, seed)
    assert power.shape == (broken.plan.length_s // 2, 400)
    assert power.dtype == np.float32
    gone = np.isnan(power).all(axis=1)
    assert np.flatnonzero(gone).tolist() == [20, 21]  # the rows of 40 to 42 and of 42 to 44 s
    zero = (power == 0).all(axis=1)
    assert set(np.flatnonzero(zero)) == {50, 51, 52, 53, 54}  # windows of 4 s inside it
    assert not np.isnan(power[~gone]).any()


@pytest.mark.parametrize(("name", "side"), [("lrda", -1), ("lrda", 1), ("grda", -1)])
def test_eeg_and_spectrogram_show_the_same_pattern(rng, name, side):
    seed = int(rng.integers(2**32))
    place = Place(side=side, x=0.8 * side, y=0.2, width_deg=35)
    run = draw_run(rng, draw_features(rng, name, place), (285.0, 315.0), 10.0)
    shown = dataclasses.replace(session(seed), patterns=(run,))
    power = spectrogram(shown, seed).reshape(-1, 4, 100)
    delta = power[:, :, np.abs(HERTZ - run.features.rates_hz[0]).argmin()]
    inside, outside = delta[146:154].mean(axis=0), delta[170:].mean(axis=0)
    ratio = dict(zip(REGIONS, inside / outside, strict=True))
    mine, other = ("LL", "RL") if side < 0 else ("RL", "LL")
    assert ratio[mine] > 5
    assert ratio[other] < 0.4 * ratio[mine] if name == "lrda" else ratio[other] > 5
    eeg = render_eeg(shown, shown.plan.eegs[0], seed)
    bipolar = head.bipolar(eeg[:, :19].T.astype(np.float64))
    assert bipolar[:, :, 4000:7000].std() > 1.3 * bipolar[:, :, 10_000:].std()


def test_sessions_without_patterns_differ_only_in_noise_from_one_seed_to_the_next(rng):
    seed, other_seed = rng.choice(2**32, 2, replace=False).tolist()
    first, again, other = (spectrogram(session(seed), number) for number in (seed, seed, other_seed))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    np.testing.assert_allclose(np.median(first), np.median(other), rtol=0.1)


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.exists(), reason="needs the real EEG beside the checkout")
def test_powers_are_in_the_range_of_real_ones(rng):
    def quantiles(powers):
        return np.log(np.nanquantile(np.maximum(powers, 1e-4), (0.1, 0.5, 0.9)))

    files = sorted((REAL / "train_spectrograms").glob("*.parquet"))
    real = np.array([quantiles(pq.read_table(file).to_pandas().to_numpy()[:, 1:]) for file in files])
    seeds = rng.integers(2**32, size=6).tolist()
    simulated = np.array([quantiles(spectrogram(session(seed), seed)) for seed in seeds])
    assert (np.median(simulated, axis=0) > real.min(axis=0)).all()
    assert (np.median(simulated, axis=0) < real.max(axis=0)).all()
