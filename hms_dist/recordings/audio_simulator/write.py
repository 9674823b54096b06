"""Files of the audio simulator: clips, tables of annotations, and the truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic
from hms_dist.core.parquet import write_table
from hms_dist.datasets import NEGATIVES_NAME, POSITIVES_NAME, RFCX, Dataset, write_dataset
from hms_dist.labels.recording_ids import recording_number
from hms_dist.recordings.audio_simulator.plan import ClipPlan
from hms_dist.recordings.audio_simulator.sound import clip_samples

TEST_TRUTH_NAME, CALLS_NAME = "test_truth.csv", "calls.csv"
"""Presence of each species in the test clips, in the form of a submission; every call of every clip."""


def make_folders(out: Path) -> None:
    """Create `out` and the folders of clips. Raises UserError if that fails."""
    try:
        for name in ("train", "test"):
            (out / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot make this folder ({error.strerror}); choose another --out") from error


def write_clip(plan: ClipPlan, clip_s: float, dataset: Dataset, seed: int, out: Path) -> None:
    """Write a clip, flac of 16 bits."""
    import soundfile

    samples = clip_samples(plan, clip_s, dataset.rate_hz, seed)
    with atomic(out / plan.split / f"{plan.name}.flac") as file:
        soundfile.write(file, samples, dataset.rate_hz, format="FLAC", subtype="PCM_16")


def write_tables(clips: Sequence[ClipPlan], dataset: Dataset, out: Path) -> None:
    """Write the truth, the description of a data set other than RFCX, and the annotations, train_tp.csv last."""
    calls = [
        {"recording_id": clip.name, "split": clip.split, "species_id": call.species.number, "t_min": call.start_s,
         "t_max": round(call.start_s + call.species.length_s, 4), "level_db": round(call.level_db, 2),
         "is_decoy": int(call.is_decoy)}
        for clip in clips for call in clip.calls
    ]  # fmt: skip
    names = dataset.submission.columns(dataset.classes)
    test = [
        {dataset.submission.key: clip.name} | {name: int(n in clip.present) for n, name in enumerate(names)}
        for clip in sorted(clips, key=lambda clip: clip.name) if clip.split == "test"
    ]  # fmt: skip
    boxes = [(clip, box) for clip in clips for box in clip.boxes]
    rows = [
        {"recording_id": clip.name, "species_id": box.species.number, "songtype_id": box.species.songtype,
         "t_min": box.start_s, "f_min": box.species.low_hz, "t_max": round(box.start_s + box.species.length_s, 4),
         "f_max": box.species.high_hz, "is_there": box.is_there}
        for clip, box in boxes
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    if dataset != RFCX:
        write_dataset(out, dataset)
    write_table(out / "truth.parquet", _truth(table, {clip.name: clip for clip in clips}, dataset))
    _write(out / TEST_TRUTH_NAME, pd.DataFrame(test, columns=[dataset.submission.key, *names]))
    _write(out / CALLS_NAME, pd.DataFrame(calls))
    positive = table["is_there"].to_numpy(bool)
    columns = table.drop(columns="is_there")
    _write(out / NEGATIVES_NAME, columns[~positive])
    _write(out / POSITIVES_NAME, columns[positive])


def _truth(table: pd.DataFrame, clips: dict[str, ClipPlan], dataset: Dataset) -> "object":
    """Presence of each species in the annotated seconds of each row, in the order of the label table."""
    import pyarrow as pa

    ordered = table.sort_values("is_there", ascending=False, kind="stable")
    half, found = dataset.annotated_s / 2, []
    for row in ordered.to_dict("records"):
        middle = (row["t_min"] + row["t_max"]) / 2
        present = np.zeros(dataset.num_classes)
        for call in clips[row["recording_id"]].calls:
            end = call.start_s + call.species.length_s
            overlap = min(end, middle + half) - max(call.start_s, middle - half)
            if not call.is_decoy and overlap > min(call.species.length_s, 2 * half) / 2:
                present[call.species.number] = 1
        present[row["species_id"]] = row["is_there"]
        found.append(present)
    numbers = [recording_number(name) for name in ordered["recording_id"]]
    places = pd.Series(numbers).groupby(numbers).cumcount().tolist()
    columns = {name: np.array(found)[:, n] for n, name in enumerate(dataset.classes)}
    return pa.table({"eeg_id": numbers, "eeg_sub_id": places, **columns})


def _write(path: Path, table: pd.DataFrame) -> None:
    with atomic(path, "w") as file:
        table.to_csv(file, index=False)
