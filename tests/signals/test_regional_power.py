"""The 10-minute spectrogram of an EEG, against scipy's spectrogram of each taper."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import spectrogram
from scipy.signal.windows import dpss

from hms_dist.core.signal_format import CHANNELS, FREQUENCIES_HZ, REGIONS
from hms_dist.recordings.reader import read_eeg, read_spectrogram
from hms_dist.signals.montage import CHAINS
from hms_dist.signals.regional_power import regional_power


def reference(eeg, region):
    """Power of a region by scipy: the mean over its differences and three tapers, two-sided."""
    signals = [eeg[:, CHANNELS.index(one)] - eeg[:, CHANNELS.index(other)] for one, other in CHAINS[region]]
    powers = []
    for taper in dpss(800, 2, 3):
        hertz, _, power = spectrogram(
            np.stack(signals), 200, taper, 800, 400, 1024, "constant", return_onesided=False, scaling="density"
        )
        powers.append(power)
    assert hertz[3:103] == pytest.approx(FREQUENCIES_HZ, abs=0.0051)
    return np.mean(powers, axis=(0, 1))[3:103].T


def test_it_equals_scipy(rng) -> None:
    eeg = np.cumsum(rng.normal(0, 5, (60 * 200, 20)), axis=0)
    power = regional_power(eeg)
    assert power.shape == (29, 4, 100)
    for place, region in enumerate(REGIONS):
        expected = reference(eeg, region)
        np.testing.assert_allclose(power[:, place], expected, rtol=1e-4, atol=1e-7 * expected.max())


def test_noise_of_known_density(rng) -> None:
    """Electrodes of variance v have a two-sided density of v / rate; differences twice that."""
    power = regional_power(rng.normal(0, 10, (600 * 200, 20)))
    assert power.mean() == pytest.approx(2 * 100 / 200, rel=0.03)


def test_gaps_are_empty_and_nothing_else_changes(rng) -> None:
    eeg = rng.normal(0, 10, (40 * 200, 20)).astype(np.float32)
    whole = regional_power(eeg)
    eeg[20 * 200 : 21 * 200] = np.nan
    found = regional_power(eeg)
    empty = np.isnan(found).all(axis=(1, 2))
    # Row r is computed from seconds [2 r, 2 r + 4).
    assert np.flatnonzero(empty).tolist() == [9, 10]
    np.testing.assert_allclose(found[~empty], whole[~empty], rtol=1e-5, atol=1e-6)


def test_a_missing_electrode_leaves_the_other_differences(rng) -> None:
    eeg = rng.normal(0, 10, (12 * 200, 20))
    eeg[:, CHANNELS.index("T3")] = np.nan
    found = regional_power(eeg)
    assert np.isfinite(found).all()
    for pair in (("Fp1", "F7"), ("T5", "O1")):
        assert pair in CHAINS["LL"]
    eeg[:, [CHANNELS.index(name) for name in ("Fp1", "O1")]] = np.nan
    assert np.isnan(regional_power(eeg)[:, REGIONS.index("LL")]).all()
    assert np.isfinite(regional_power(eeg)[:, REGIONS.index("RL")]).all()


def test_many_rows_equal_few(rng) -> None:
    eeg = rng.normal(0, 10, (500 * 200, 20)).astype(np.float32)
    whole = regional_power(eeg)
    few = regional_power(eeg[240 * 200 : 262 * 200])
    np.testing.assert_allclose(whole[120:130], few, rtol=1e-4, atol=1e-5 * few.max())
    assert regional_power(eeg[:799]).shape == (0, 4, 100)


@pytest.mark.real_data
def test_the_published_level_is_that_of_a_two_sided_density(repository) -> None:
    """Real EEGs against real spectrograms of the same five classes; the patients are others, so only on average."""
    folder = repository.parent / "shared/data/iiic"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/iiic beside the checkout")
    levels: dict[str, tuple[list[float], list[float]]] = {}
    for row in pd.read_csv(folder / "train.csv").itertuples():
        path = folder / f"train_spectrograms/{row.spectrogram_id}.parquet"
        if row.expert_consensus == "Other":
            continue
        computed, published = levels.setdefault(row.expert_consensus, ([], []))
        power = regional_power(read_eeg(folder / f"train_eegs/{row.eeg_id}.parquet"))
        computed.append(float(np.median(np.log(power))))
        middle = read_spectrogram(path)[1][138:162]  # the same 48 seconds of the 10 minutes
        published.append(float(np.median(np.log(middle[np.isfinite(middle) & (middle > 0)]))))
    assert len(levels) == 5
    difference = np.mean([np.mean(one) - np.mean(other) for one, other in levels.values()])
    variances = [np.var(part, ddof=1) / len(part) for pair in levels.values() for part in pair]
    error = np.sqrt(sum(variances)) / len(levels)
    assert abs(difference) < 1.5 * error
    assert difference + np.log(2) > 2.5 * error
