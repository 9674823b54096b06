"""Recordings in another unit or of another rate than microvolt and 200 Hz: rendering warns once, with the cause."""

import shutil

import numpy as np
import pandas as pd
import pytest

from hms_dist.panels import DEFAULT_PANELS
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.signals.quality import channel_quality, wrong_scale_uv

NUM_EEGS = 5


@pytest.fixture
def rendered(recordings, tmp_path, caplog):
    """Render EEGs changed by functions, cycled over their files; the warnings."""
    table = pd.read_csv(recordings / "train.csv")
    table = table[table["eeg_id"].isin(table["eeg_id"].unique()[:NUM_EEGS])]

    def make(*changes, table=table, jobs=1):
        data, out = tmp_path / "data", tmp_path / "set"
        for kind in ("eeg", "spectrogram"):
            (data / f"train_{kind}s").mkdir(parents=True)
            for number in table[f"{kind}_id"].unique():
                shutil.copy(recordings / f"train_{kind}s/{number}.parquet", data / f"train_{kind}s")
        for place, path in enumerate(sorted((data / "train_eegs").iterdir())):
            changes[place % len(changes)](pd.read_parquet(path)).astype("float32").to_parquet(path)
        table.to_csv(data / "train.csv", index=False)
        panels = {"kaggle_spectrogram": DEFAULT_PANELS["kaggle_spectrogram"]}
        for number in range(jobs):
            render(Render(data=data, out=out, panels=panels, samples_per_shard=8, job=f"{number}/{jobs}"))
        assert (out / "manifest.json").exists()
        return [record.getMessage() for record in caplog.records if "EEGs" in record.getMessage()]

    return make


def same(eeg):
    return eeg


def at_256_hz(eeg):
    there = np.arange(round(len(eeg) * 1.28)) / 1.28
    return pd.DataFrame({name: np.interp(there, np.arange(len(eeg)), eeg[name].fillna(0)) for name in eeg})


@pytest.mark.parametrize(
    ("factor", "unit", "back"), [(1e-6, "volts", "1e6"), (1e-3, "millivolts", "1000"), (1e3, "nanovolts", "0.001")]
)
def test_a_set_in_another_unit(rendered, factor, unit, back):
    (warning,) = rendered(lambda eeg: eeg * factor)
    assert f"{NUM_EEGS} of {NUM_EEGS} EEGs" in warning
    assert f"are they {unit}? Multiply them by {back} and render again" in warning


def test_some_files_of_two_slices_in_other_units_are_one_warning(rendered):
    (warning,) = rendered(lambda eeg: eeg * 1e-3, same, lambda eeg: eeg * 1e3, jobs=2)
    assert f"2 of {NUM_EEGS} EEGs" in warning
    assert f"1 of {NUM_EEGS} EEGs" in warning
    assert "are they millivolts?" in warning
    assert "are they nanovolts?" in warning


def test_recordings_at_256_hz(rendered):
    (warning,) = rendered(at_256_hz)
    assert "have 1.28 times the samples" in warning
    assert "are they recorded at 256 Hz?" in warning


def test_some_files_at_256_hz(rendered):
    (warning,) = rendered(at_256_hz, at_256_hz, same)
    assert f"4 of {NUM_EEGS} EEGs" in warning


def test_microvolts_at_200_hz_are_no_matter(rendered):
    assert rendered(same) == []


def test_a_set_of_some_rows_of_each_recording_is_no_matter(rendered, recordings):
    table = pd.read_csv(recordings / "train.csv")
    table = table[table["eeg_id"].isin(table["eeg_id"].unique()[:NUM_EEGS])]
    assert rendered(same, table=table.drop_duplicates("eeg_id")) == []


def test_a_dead_electrode_and_gaps_are_no_matter(rng):
    eeg = rng.normal(0, 20, (2000, 20))
    assert wrong_scale_uv(eeg, channel_quality(eeg)) is None
    eeg[:, :3] = 5.0
    eeg[:, 4:6] = np.nan
    eeg[:1500, 7] = np.nan
    assert wrong_scale_uv(eeg, channel_quality(eeg)) is None
    eeg[:, 3:] *= 1e-3
    assert 0.005 < wrong_scale_uv(eeg, channel_quality(eeg)) < 0.05
    eeg[:] = np.nan
    assert wrong_scale_uv(eeg, channel_quality(eeg)) is None


def test_a_recording_of_nothing(rendered):
    (warning,) = rendered(lambda eeg: eeg * 0)
    assert "found amplitudes of about 0: was anything recorded?" in warning
