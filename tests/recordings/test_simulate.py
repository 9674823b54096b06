"""The command: files, dtypes, determinism, and every message that a user can cause."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.datasets import HMS
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.datasets import HMS_CONSENSUS as CONSENSUS_NAMES
from hms_dist.labels.table import read_labels
from hms_dist.recordings.simulate import Simulate, run
from hms_dist.recordings.simulator.artifacts import inside
from hms_dist.recordings.simulator.cohort import identifier, plan_cohort
from hms_dist.recordings.simulator.session import draw_session
from hms_dist.recordings.simulator.spectrogram import COLUMNS

REAL = Path(__file__).parents[2].parent / "shared/data/iiic"
NUM_RECORDINGS = 24


@pytest.fixture(scope="module")
def cohort_seed(rng_of) -> int:
    return int(rng_of("simulated cohort").integers(2**32))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, cohort_seed) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "data"
    run(Simulate(out=folder, num_recordings=NUM_RECORDINGS, seed=cohort_seed))
    return folder


@pytest.fixture(scope="module")
def table(cohort) -> pd.DataFrame:
    return pd.read_csv(cohort / "train.csv")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_table_is_one_that_the_reader_takes(cohort, table):
    checked = read_labels(cohort / "train.csv")
    assert checked.labelled
    assert len(checked.frame) == len(table)
    assert table.eeg_id.nunique() == NUM_RECORDINGS
    assert not table.duplicated("label_id").any()
    assert (table.groupby("eeg_id").patient_id.nunique() == 1).all()
    assert (table.groupby("spectrogram_id").patient_id.nunique() == 1).all()
    votes = table[list(HMS.vote_columns)].to_numpy()
    consensus = table.expert_consensus.map(CONSENSUS_NAMES).to_numpy()
    assert (votes[np.arange(len(votes)), consensus] == votes.max(axis=1)).all()


def test_sub_ids_count_from_zero(table):
    for column in ("eeg", "spectrogram"):
        groups = table.groupby(f"{column}_id")[f"{column}_sub_id"]
        assert all(ids.tolist() == list(range(len(ids))) for _, ids in groups)


def test_eeg_files(cohort, table):
    paths = {path.stem: path for path in (cohort / "train_eegs").iterdir()}
    assert set(paths) == set(table.eeg_id.astype(str))
    spreads = []
    for eeg_id, rows in table.groupby("eeg_id"):
        frame = pq.read_table(paths[str(eeg_id)]).to_pandas()
        assert tuple(frame.columns) == CHANNELS
        assert (frame.dtypes == np.float32).all()
        assert len(frame) == 200 * (50 + rows.eeg_label_offset_seconds.max())
        steps = frame.to_numpy(np.float64) / 0.01
        assert np.nanmax(np.abs(steps - np.round(steps))) < 0.02
        spreads.append(np.nanstd(frame["F3"] - frame["C3"]))
    assert np.median(spreads) > 0  # of one EEG, both electrodes may be flat
    assert max(spreads) < 500


def test_spectrogram_files(cohort, table):
    paths = {path.stem: path for path in (cohort / "train_spectrograms").iterdir()}
    assert set(paths) == set(table.spectrogram_id.astype(str))
    for spectrogram_id, rows in table.groupby("spectrogram_id"):
        frame = pq.read_table(paths[str(spectrogram_id)]).to_pandas()
        assert tuple(frame.columns) == ("time", *COLUMNS)
        assert frame.time.dtype == np.int64
        assert (frame.dtypes.iloc[1:] == np.float32).all()
        assert frame.time.tolist() == list(range(1, 2 * len(frame), 2))
        assert len(frame) == 300 + rows.spectrogram_label_offset_seconds.max() / 2
        assert not (frame.to_numpy() < 0).any()


def test_gaps_are_where_the_session_was_interrupted(cohort, cohort_seed):
    """In its EEGs to the sample, in its spectrogram in the rows of 2 s that a gap reaches."""
    for plan in plan_cohort(NUM_RECORDINGS, cohort_seed):
        gaps_s = draw_session(plan, cohort_seed).artifacts.gaps_s
        for eeg in plan.eegs:
            frame = pd.read_parquet(cohort / f"train_eegs/{identifier('eeg', cohort_seed, eeg.index)}.parquet")
            missing = inside(gaps_s, eeg.start_s + np.arange(len(frame)) / 200)
            np.testing.assert_array_equal(frame.isna().to_numpy(), np.repeat(missing[:, None], 20, axis=1))
        number = identifier("spectrogram", cohort_seed, plan.index)
        frame = pd.read_parquet(cohort / f"train_spectrograms/{number}.parquet").drop(columns="time")
        missing = inside(gaps_s, np.arange(0, plan.length_s, 0.1)).reshape(len(frame), 20).any(axis=1)
        np.testing.assert_array_equal(frame.isna().to_numpy(), np.repeat(missing[:, None], 400, axis=1))
        assert missing.any() == (len(gaps_s) > 0)
        assert missing.mean() < 0.2


def test_truth_has_a_distribution_for_every_row(cohort, table):
    truth = pq.read_table(cohort / "truth.parquet").to_pandas()
    assert tuple(truth.columns) == ("eeg_id", "eeg_sub_id", *CLASSES)
    assert (truth[["eeg_id", "eeg_sub_id"]].to_numpy() == table[["eeg_id", "eeg_sub_id"]].to_numpy()).all()
    shares = truth[list(CLASSES)].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-12)
    assert (shares > 0).all()


def test_same_bytes_whatever_the_number_of_workers(rng, tmp_path):
    seed, other_seed = rng.choice(2**32, 2, replace=False).tolist()
    for name, workers in (("alone", 1), ("two", 2)):
        run(Simulate(out=tmp_path / name, num_recordings=5, seed=seed, workers=workers))
    run(Simulate(out=tmp_path / "other", num_recordings=5, seed=other_seed))
    alone = contents(tmp_path / "alone")
    assert contents(tmp_path / "two") == alone
    assert not set(contents(tmp_path / "other").values()) & set(alone.values())


def test_no_temporary_file_is_left(cohort):
    assert not list(cohort.rglob(".*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_asked_to_stop_twice_it_reports_so_and_leaves_no_table(tmp_path, workers):
    out = tmp_path / "data"
    words = [sys.executable, "-m", "hms_dist", "simulate", "--out", str(out), "--num_recordings", "200"]
    with subprocess.Popen([*words, "--workers", str(workers)], stderr=subprocess.PIPE, text=True) as process:
        while not list(out.glob("train_spectrograms/[0-9]*")):
            assert process.poll() is None
            time.sleep(0.05)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "hms-dist simulate: stopped; rerun the same command to continue"
    assert "Traceback" not in errors
    assert workers > 1 or not list(out.rglob(".*"))  # workers that take too long are killed, and leave what they wrote
    assert not (out / "train.csv").exists()
    run(Simulate(out=out, num_recordings=2))
    assert not list(out.rglob(".*"))


def test_an_unfinished_folder_is_completed_to_the_same_bytes(rng, tmp_path):
    config = Simulate(out=tmp_path / "data", num_recordings=2, seed=int(rng.integers(2**32)))
    run(config)
    whole = contents(config.out)
    (config.out / "train.csv").unlink()
    next((config.out / "train_eegs").iterdir()).write_bytes(b"half")
    run(config)
    assert contents(config.out) == whole


def test_finished_folder_is_refused(cohort):
    with pytest.raises(UserError) as caught:
        run(Simulate(out=cohort))
    assert str(caught.value) == (
        f"{cohort}/train.csv: a label table is there already; choose another --out or remove that folder"
    )


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot make this folder \(.*\); choose another --out$"):
        run(Simulate(out=tmp_path / "file"))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("seed", "-1", "seed: expected 0 to 4294967295, found -1; choose another"),
        ("seed", "4294967296", "seed: expected 0 to 4294967295, found 4294967296; choose another"),
        ("num_recordings", "0", "num_recordings: expected at least 1, found 0; raise it"),
        ("workers", "0", "workers: expected at least 1, found 0; raise it"),
    ],
)
def test_bad_options_are_refused_in_one_line(option, value, message, tmp_path):
    with pytest.raises(UserError) as caught:
        load(Simulate, ["--out", str(tmp_path), f"--{option}", value])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_command_line_fills_the_options(tmp_path):
    config = load(Simulate, ["--out", str(tmp_path), "--num_recordings", "3", "--seed", "4294967295"])
    assert config == Simulate(out=tmp_path, num_recordings=3, seed=2**32 - 1, workers=1)


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.exists(), reason="needs the real EEG beside the checkout")
def test_layout_is_that_of_the_real_files(cohort, table):
    real = pd.read_csv(REAL / "train.csv")
    assert list(table.columns) == list(real.columns)
    assert (table.dtypes == real.dtypes).all()
    assert set(table.expert_consensus) <= set(real.expert_consensus)
    for folder in ("train_eegs", "train_spectrograms"):
        theirs = pq.read_schema(next((REAL / folder).iterdir())).remove_metadata()
        ours = pq.read_schema(next((cohort / folder).iterdir())).remove_metadata()
        assert ours == theirs


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.exists(), reason="needs the real EEG beside the checkout")
def test_amplitudes_are_those_of_real_eegs(cohort):
    def spread(path):
        values = pq.read_table(path).to_pandas()
        low, high = np.nanquantile(values["F3"] - values["C3"], (0.05, 0.95))
        return high - low

    real = np.median([spread(path) for path in (REAL / "train_eegs").iterdir()])
    simulated = np.median([spread(path) for path in (cohort / "train_eegs").iterdir()])
    assert real / 3 < simulated < 3 * real  # 0.6 to 1 times in ten cohorts
