"""The command `predict`: apply the weights of a run to a shard set or to recordings.

Prediction reads shards and rendering writes them; this module combines the two. Recordings are rendered with the run's
own recipe into a temporary shard set, which is removed once the output is written.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from hms_dist.commands.clip import check_clip, check_kind, pooled_line, write_clip
from hms_dist.commands.import_recordings import Import
from hms_dist.commands.import_recordings import run as import_recordings
from hms_dist.config.load import from_stored, to_dict
from hms_dist.config.versions import as_version_1
from hms_dist.core.errors import UserError
from hms_dist.core.files import digest
from hms_dist.core.logging import LOG
from hms_dist.core.parquet import read_table, write_table
from hms_dist.datasets import DATASET_NAME, Dataset, read_dataset
from hms_dist.imports.options import ReadingOptions
from hms_dist.labels.table import LabelTable, read_labels, sample_key
from hms_dist.predict.infer import Predict
from hms_dist.predict.infer import run as predict
from hms_dist.predict.options import PredictConfig, opened_run
from hms_dist.predict.partial_results import begun, parts_folder
from hms_dist.predict.tta import mirrored_canvas
from hms_dist.recordings.audio import is_audio
from hms_dist.recordings.label_rows import read_rows
from hms_dist.rendering.build_spec import is_complete
from hms_dist.rendering.render import Render, RenderConfig
from hms_dist.rendering.render import run as render
from hms_dist.rendering.row_source import recording_files
from hms_dist.results.predictions import TIME_COLUMN, check_rows
from hms_dist.train.data.run_canvas import read_canvas, read_recipe
from hms_dist.train.folder.stop import die_with_launcher
from hms_dist.train.ranks.world import launched_rank

EVERY_S = 10.0
"""Seconds between the rows of an EEG, unless an option states others."""
LOOK_EVERY_S = 0.5
"""Seconds between two polls of a rank that waits for the rendering."""


@dataclass(frozen=True, kw_only=True)
class PredictAny(ReadingOptions, PredictConfig):
    """Predict every row of a shard set, or of recordings, with the weights of a run.

    Rerun the same command after a kill: finished parts are kept.
    """

    shards: str | None = None
    """Folder of the shard set, or its URL (http://, s3://, gs://). None: predict `data`."""
    data: Path | None = None
    """Folder of recordings in Kaggle's layout, rendered with the run's own recipe. None: predict `shards`."""
    split: Literal["train", "test"] = "test"
    """With data: which recordings and label table, DATA/test.csv or DATA/train.csv."""
    recording: Path | None = None
    """One recording (.edf, .bdf, .mat, ...), imported as by hms-dist import, or a clip (.flac, .wav); the table has a
    column time_s. None: see the other two."""
    every_s: float | None = None
    """With recording: seconds between the rows. None: 10; of audio test_step_s of the data set, or half a window."""
    workers: int = 1
    """With data or recording: number of rendering processes."""

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)
        PredictConfig.__post_init__(self)
        given = [name for name in ("shards", "data", "recording") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"shards: expected --shards, --data or --recording, one of them, found {found}")
        if self.recording is not None:
            self._check_recording(self.recording)
        if self.workers < 1:
            raise ValueError(f"workers: expected at least 1, found {self.workers}")

    def _check_recording(self, recording: Path) -> None:
        if self.split != "test":
            raise ValueError("split: a recording has no labels; leave --split out")
        self.check_signal(recording)
        if not is_audio(recording) and self.out.suffix != ".parquet":
            raise ValueError(
                f"out: a recording gets a row every {self.every_s or EVERY_S:g} s: expected a .parquet, which "
                f"pandas.read_parquet reads, found '{self.out}'"
            )


def run(command: PredictAny) -> None:
    """Run the command `predict`; called by every rank."""
    shards, times = command.shards, None
    data = command.data
    if command.recording is not None:
        data = clip_folder(command) if is_audio(command.recording) else imported_recording(command, command.recording)
        times = None if is_audio(command.recording) else row_times(data)
    if data is not None:
        shards = str(_rendered(command, data))
    assert shards is not None
    names = [field.name for field in dataclasses.fields(PredictConfig)]
    predict(Predict(shards=shards, **{name: getattr(command, name) for name in names}))
    if command.recording is not None and launched_rank() == 0:
        if command.out.suffix == ".parquet":
            sort_by_time(command.out, times)
        if is_audio(command.recording):
            LOG.info("%s: %s", command.recording.name, pooled_line(command.out, read_dataset(command.run)))


def clip_folder(command: PredictAny) -> Path:
    """Make a test set of one clip beside the parts of the prediction, on the main rank while the others wait; return
    the folder."""
    assert command.recording is not None
    folder, dataset = _begun(command, command.recording)
    if launched_rank() == 0:
        write_clip(folder, command.recording, check_clip(command.recording, command.out, dataset, command.every_s))
    return _waited(folder, DATASET_NAME)


def imported_recording(command: PredictAny, recording: Path) -> Path:
    """Import a recording beside the parts of the prediction, on the main rank while the others wait; return the
    folder."""
    folder, _ = _begun(command, recording)
    if launched_rank() == 0:
        dataset = command.run / DATASET_NAME
        options = {field.name: getattr(command, field.name) for field in dataclasses.fields(ReadingOptions)}
        import_recordings(
            Import(
                data=recording, out=folder, dataset=dataset if dataset.exists() else None, labels="none",
                every_s=EVERY_S if command.every_s is None else command.every_s, patient="file", pictures=0, **options,
            )
        )  # fmt: skip
    return _waited(folder, "test.csv")


def _begun(command: PredictAny, recording: Path) -> tuple[Path, Dataset]:
    """Check what a recording is predicted with; return the folder for it and the data set of the run."""
    die_with_launcher()
    opened_run(command)
    dataset = read_dataset(command.run)
    check_kind(recording, dataset)
    check_rows(command.out, np.empty(0, np.int64), dataset)
    options = {field.name: getattr(command, field.name) for field in dataclasses.fields(ReadingOptions)}
    state = recording.stat() if recording.is_file() else None
    facts = [str(recording.resolve()), command.every_s, options, state and [state.st_size, state.st_mtime_ns]]
    return parts_folder(command.out) / f"recording-{digest(facts)}", dataset


def _waited(folder: Path, last: str) -> Path:
    """Wait for the file that the main rank writes last; return the folder."""
    while not (folder / last).exists():
        time.sleep(LOOK_EVERY_S)
    return folder


def row_times(data: Path) -> dict[str, float]:
    """Return the middle of each row of an imported recording, in seconds, by key."""
    frame = read_labels(data / "test.csv", read_dataset(data)).frame
    # The spectrogram of an imported recording begins 5 minutes early, so the offset of 10 minutes is their middle.
    keys = map(sample_key, frame["eeg_id"], frame["eeg_sub_id"])
    return dict(zip(keys, frame["spectrogram_label_offset_seconds"].tolist(), strict=True))


def sort_by_time(path: Path, times: Mapping[str, float] | None) -> None:
    """Sort a table of predictions by the middle of each row, which becomes a column; None: it has that column."""
    table = read_table(path)
    if times is not None:
        table = table.append_column(TIME_COLUMN, pa.array([times[key] for key in table["key"].to_pylist()]))
    write_table(path, table.sort_by(TIME_COLUMN))


def _rendered(command: PredictAny, data: Path) -> Path:
    """Render the recordings in `data` on the main rank while the others wait; return the shard set.

    All checks of the input come before the rendering.
    """
    die_with_launcher()
    opened_run(command)
    dataset, path = read_dataset(data), data / f"{command.split}.csv"
    is_lacking = dataset.signal == "eeg" and not path.exists() and (data / "train.csv").exists()
    if command.split == "test" and is_lacking:
        raise UserError(f"{path}: no such file; --split train predicts the rows of train.csv")
    labels = read_rows(data, command.split, dataset)
    check_rows(command.out, labels.frame["eeg_id"].to_numpy(), read_dataset(command.run))
    recipe = _needed(command)
    facts = [to_dict(recipe), labels.fingerprint, command.split, _states(data, command.split, labels)]
    keys = [f"shards-{digest(each)}" for each in (facts, as_version_1(facts))]
    folder = begun(parts_folder(command.out), *keys)
    if launched_rank() == 0:
        render(
            Render(
                data=data, out=folder, split=command.split, workers=command.workers, panels=recipe.panels,
                samples_per_shard=recipe.samples_per_shard, seed=recipe.seed,
            )
        )  # fmt: skip
    while not is_complete(folder):
        time.sleep(LOOK_EVERY_S)
    return folder


def _needed(command: PredictAny) -> RenderConfig:
    """Return the run's recipe, reduced to the panels in its canvas (and their flipped forms if `tta` needs them)."""
    recipe = from_stored(RenderConfig, read_recipe(command.run), str(command.run / "render.yaml"))
    specs = {name: panel.spec for name, panel in recipe.panels.items()}
    canvas = mirrored_canvas(read_canvas(command.run), specs, command.tta)
    return dataclasses.replace(recipe, panels={name: recipe.panels[name] for name in canvas.members})


def _states(data: Path, split: str, labels: LabelTable) -> list[Any]:
    """Return name, size and modification time of each recording, so that a changed one is rendered again."""
    paths = recording_files(data, split, labels.frame, labels.dataset).values()
    states = [(path, path.stat()) for path in paths if path.is_file()]  # rendering reports missing ones
    return [[path.name, state.st_size, state.st_mtime_ns] for path, state in states]
