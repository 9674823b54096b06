"""One clip of audio as a test set of its own, for `predict --recording`, and the line that pools its windows."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic, digest
from hms_dist.datasets import Dataset, write_dataset
from hms_dist.labels.recording_ids import EXPECTED, MAX_DIGITS, recording_number
from hms_dist.recordings.audio import SUFFIXES, audio_bytes, is_audio, parse_audio
from hms_dist.results.predictions import pooled_rows, read_predictions

MOST_CLASSES = 4
"""Most classes in the pooled line."""


def check_kind(path: Path, dataset: Dataset) -> None:
    """Raise UserError for a recording of another signal than that of the run's data set."""
    if is_audio(path) != (dataset.signal == "audio"):
        wanted = " or ".join(SUFFIXES) if dataset.signal == "audio" else ".edf or another that hms-dist import reads"
        raise UserError(
            f"{path}: the run was trained on {dataset.signal} (data set {dataset.name}); expected a name ending in "
            f"{wanted}"
        )


def check_clip(clip: Path, out: Path, dataset: Dataset, every_s: float | None) -> Dataset:
    """Check a clip before any work; returns `dataset` with windows every `every_s` seconds (None: its own step).

    Raises UserError for a damaged or short clip, for a step without windows, and for a submission that cannot name it.
    """
    try:
        dataset = replace(dataset, test_step_s=dataset.test_step_s if every_s is None else every_s)
    except ValueError as error:
        raise UserError(f"every_s: {str(error).partition(': ')[2]}") from error
    if out.suffix == ".csv" and clip_name(clip) != clip.stem:
        raise UserError(f"{clip}: a submission names recordings by {EXPECTED}; rename the file, or write a .parquet")
    length = parse_audio(audio_bytes(clip), clip, dataset.rate_hz).samples.shape[1]
    if length < dataset.window_samples:
        raise UserError(
            f"{clip}: is {length / dataset.rate_hz:.2f} s long, expected at least {dataset.window_s:g} s, the length "
            "of the run's windows; add silence"
        )
    return dataset


def write_clip(folder: Path, clip: Path, dataset: Dataset) -> None:
    """Write a folder of recordings whose test set is this clip; its description appears last."""
    (folder / "test").mkdir(parents=True, exist_ok=True)
    with atomic(folder / "test" / f"{clip_name(clip)}{clip.suffix.lower()}") as file:
        file.write(audio_bytes(clip))
    write_dataset(folder, dataset)


def clip_name(clip: Path) -> str:
    """Name of a clip's recording: that of the file, or a digest of it if it does not consist of hexadecimal digits."""
    try:
        recording_number(clip.stem)
    except ValueError:
        return digest(clip.stem)[:MAX_DIGITS]
    return clip.stem


def pooled_line(out: Path, dataset: Dataset) -> str:
    """Pool the windows in a table of one clip as a submission of the data set does: the most probable classes."""
    rule = dataset.submission.pool
    if rule == "none":
        rule = "mean" if dataset.target == "shares" else "max"
    table = read_predictions(out, dataset)
    pooled = pooled_rows(table, replace(dataset, submission=replace(dataset.submission, pool=rule)))
    values = pooled[list(dataset.classes)].to_numpy(np.float64)[0]
    order = np.argsort(-values, kind="stable")[:MOST_CLASSES]
    found = ", ".join(f"{dataset.classes[number]} {values[number]:.3f}" for number in order)
    windows = f"{len(table)} windows, " if out.suffix == ".parquet" else ""
    return f"{windows}{rule} of a class: {found}{', ...' if len(order) < len(values) else ''}"
