"""Data that many tests share: simulated recordings and a shard set of them, made once a session."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_dist.labels import VOTE_COLUMNS
from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.render import Render
from hms_dist.render import run as render

REPOSITORY = Path(__file__).parents[1]
SMALL = """
    canvas:
      height: 64
      width: 64
      placements:
        - {panel: eeg_spectrogram, arrangement: time_down, resize: area, top: 0, left: 0, height: 32, width: 64,
           normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
        - {panel: traces, flipped_panel: traces_flipped, resize: area, top: 32, left: 0, height: 32, width: 64}
    model: {name: tf_efficientnet_lite0, drop_rate: 0.2, drop_path_rate: 0.2}
    num_folds: 3
    epochs: 2
    global_batch: 4
    group_size: 2
    log_every: 1
"""


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """A folder in Kaggle's layout: 12 simulated EEGs with their label rows."""
    folder = tmp_path_factory.mktemp("recordings") / "data"
    simulate(Simulate(out=folder, num_recordings=12, seed=7))
    return folder


@pytest.fixture(scope="session")
def shard_set(recordings, tmp_path_factory) -> Path:
    """The shard set of `recordings` with the default panels, in several shards."""
    folder = tmp_path_factory.mktemp("shards") / "set"
    render(Render(data=recordings, out=folder, samples_per_shard=16))
    return folder


@pytest.fixture(scope="session")
def ended() -> Callable[[int | str], bool]:
    """Tells whether a process is gone, or waits to be collected."""

    def ask(pid: int | str) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    return ask


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def small_file(tmp_path_factory) -> Path:
    """A training configuration small enough for tests."""
    path = tmp_path_factory.mktemp("configs") / "small.yaml"
    path.write_text(textwrap.dedent(SMALL))
    return path


@pytest.fixture(scope="session")
def full_size_table() -> pd.DataFrame:
    """A label table without recordings, with the counts and class shares of Kaggle's train.csv and its long tails."""
    rng = np.random.default_rng(20240109)
    num_rows, num_eegs, num_spectrograms, num_patients = 106_800, 17_089, 11_138, 1_950
    weights = rng.lognormal(0, 1.5, num_patients)
    patient_of = np.sort(
        np.append(np.arange(num_patients), rng.choice(num_patients, num_eegs - num_patients, p=weights / weights.sum()))
    )
    same_patient = np.flatnonzero(np.diff(patient_of) == 0) + 1
    starts = np.ones(num_eegs, np.int64)
    starts[rng.choice(same_patient, num_eegs - num_spectrograms, replace=False)] = 0
    rows_of = np.minimum(1 + rng.lognormal(0.4, 1.5, num_eegs).astype(np.int64), 700)
    rows_of[rng.choice(num_eegs, 1)] = 700
    while missing := num_rows - rows_of.sum():
        open_to_change = np.flatnonzero((rows_of > 1) & (rows_of < 700))
        rows_of[rng.permutation(open_to_change)[: abs(missing)]] += np.sign(missing)
    shares = np.array([20_933, 14_856, 16_702, 16_640, 18_861, 18_808]) / num_rows
    missing_rows, leaning = shares * num_rows, np.zeros((num_patients, 6))
    rows_of_patient = np.bincount(patient_of, rows_of)
    for patient in np.argsort(-rows_of_patient):
        leaning[patient, missing_rows.argmax()] = 1
        missing_rows[missing_rows.argmax()] -= rows_of_patient[patient]
    eeg = np.repeat(np.arange(num_eegs), rows_of)
    sub = np.arange(num_rows) - np.repeat(np.cumsum(rows_of) - rows_of, rows_of)
    votes = rng.multinomial(
        np.where(rng.random(num_rows) < 0.4, 14, 3), 0.85 * leaning[patient_of[eeg]] + 0.15 * shares
    )
    frame = pd.DataFrame(
        {
            "eeg_id": 568_657 + 7 * eeg,
            "eeg_sub_id": sub,
            "eeg_label_offset_seconds": 2.0 * sub,
            "spectrogram_id": 353_733 + 3 * np.cumsum(starts)[eeg],
            "spectrogram_label_offset_seconds": 2.0 * sub,
            "patient_id": 56 + 11 * patient_of[eeg],
        }
    )
    frame[list(VOTE_COLUMNS)] = votes
    return frame
