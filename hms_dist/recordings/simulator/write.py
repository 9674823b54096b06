"""Files of the simulator: a session's Parquet files and the tables of the cohort."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic
from hms_dist.core.signal_format import CHANNELS
from hms_dist.datasets import HMS, Dataset, write_dataset
from hms_dist.recordings.simulator import votes as labels
from hms_dist.recordings.simulator.cohort import BEFORE_S, SessionPlan, identifier
from hms_dist.recordings.simulator.relabel import relabelled
from hms_dist.recordings.simulator.session import draw_session, render_eeg, votes_rng
from hms_dist.recordings.simulator.spectrogram import COLUMNS, STEP_S, spectrogram

Row = dict[str, Any]
TRAIN_COLUMNS = (
    "eeg_id",
    "eeg_sub_id",
    "eeg_label_offset_seconds",
    "spectrogram_id",
    "spectrogram_sub_id",
    "spectrogram_label_offset_seconds",
    "label_id",
    "patient_id",
    "expert_consensus",
)
"""Columns of Kaggle's train.csv before the votes, in its order."""


def make_folders(out: Path) -> None:
    """Create `out` and its two folders. Raises UserError if that fails."""
    try:
        for name in ("train_eegs", "train_spectrograms"):
            (out / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot make this folder ({error.strerror}); choose another --out") from error


def write_session(plan: SessionPlan, seed: int, out: Path) -> list[Row]:
    """Write a session's EEGs and spectrogram; return its label rows: TRAIN_COLUMNS, votes and true shares of HMS."""
    session = draw_session(plan, seed)
    spectrogram_id = identifier("spectrogram", seed, plan.index)
    rows: list[Row] = []
    for eeg in plan.eegs:
        eeg_id = identifier("eeg", seed, eeg.index)
        columns = dict(zip(CHANNELS, render_eeg(session, eeg, seed).T, strict=True))
        _write_parquet(out / "train_eegs" / f"{eeg_id}.parquet", columns)
        truths = np.array(
            [labels.truth(labels.visibility(session, eeg.start_s + offset_s)) for offset_s in eeg.offsets_s]
        )
        votes = labels.draw_votes(votes_rng(eeg, seed), truths, eeg.high_votes)
        for sub_id, offset_s in enumerate(eeg.offsets_s):
            rows.append(
                {
                    "eeg_id": eeg_id,
                    "eeg_sub_id": sub_id,
                    "eeg_label_offset_seconds": float(offset_s),
                    "spectrogram_id": spectrogram_id,
                    "spectrogram_sub_id": len(rows),
                    "spectrogram_label_offset_seconds": float(eeg.start_s + offset_s - BEFORE_S),
                    "label_id": identifier("label", seed, 8 * eeg.index + sub_id),
                    "patient_id": identifier("patient", seed, plan.patient),
                    "expert_consensus": HMS.titles[int(votes[sub_id].argmax())],
                    **dict(zip(HMS.vote_columns, votes[sub_id].tolist(), strict=True)),
                    **dict(zip(HMS.classes, truths[sub_id].tolist(), strict=True)),
                }
            )
    powers = spectrogram(session, seed)
    columns = {"time": STEP_S * np.arange(len(powers), dtype=np.int64) + STEP_S // 2}
    columns |= dict(zip(COLUMNS, powers.T, strict=True))
    _write_parquet(out / "train_spectrograms" / f"{spectrogram_id}.parquet", columns)
    return rows


def write_tables(out: Path, rows: list[Row], dataset: Dataset = HMS, seed: int = 0) -> None:
    """Write truth.parquet, and train.csv last, with the labels of a data set; a copy of its description unless it is
    HMS."""
    table = pd.DataFrame(rows)
    if dataset != HMS:
        table = relabelled(table, dataset, seed)
        write_dataset(out, dataset)
    truth_columns = ["eeg_id", "eeg_sub_id", *dataset.classes]
    _write_parquet(out / "truth.parquet", {name: table[name].to_numpy() for name in truth_columns})
    with atomic(out / "train.csv", "w") as file:
        columns = [name for name in (*TRAIN_COLUMNS, *dataset.vote_columns) if name in table]
        table[columns].to_csv(file, index=False, lineterminator="\n")


def _write_parquet(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    with atomic(path) as file:  # compressed as Kaggle's files are: small, and fast to read with 400 columns
        pq.write_table(pa.table(columns), file, compression="snappy")
