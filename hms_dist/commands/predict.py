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

from hms_dist.commands.import_recordings import Import
from hms_dist.commands.import_recordings import run as import_recordings
from hms_dist.config.load import from_stored, to_dict
from hms_dist.config.versions import as_version_1
from hms_dist.core.errors import UserError
from hms_dist.core.files import digest
from hms_dist.core.parquet import read_table, write_table
from hms_dist.datasets import DATASET_NAME, read_dataset
from hms_dist.imports.options import ReadingOptions
from hms_dist.labels.table import LabelTable, read_labels, sample_key
from hms_dist.predict.infer import Predict
from hms_dist.predict.infer import run as predict
from hms_dist.predict.options import PredictConfig, opened_run
from hms_dist.predict.partial_results import begun, parts_folder
from hms_dist.predict.tta import mirrored_canvas
from hms_dist.recordings.label_rows import read_rows
from hms_dist.rendering.build_spec import is_complete
from hms_dist.rendering.render import Render, RenderConfig
from hms_dist.rendering.render import run as render
from hms_dist.rendering.row_source import recording_files
from hms_dist.results.predictions import check_rows
from hms_dist.train.data.run_canvas import read_canvas, read_recipe
from hms_dist.train.folder.stop import die_with_launcher
from hms_dist.train.ranks.world import launched_rank

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
    """One recording (.edf, .bdf, .mat, ...), imported as by hms-dist import; the table has a column time_s. None: see
    the other two."""
    every_s: float = 10.0
    """With recording: seconds between the rows."""
    workers: int = 1
    """With data or recording: number of rendering processes."""

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)
        PredictConfig.__post_init__(self)
        given = [name for name in ("shards", "data", "recording") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"shards: expected --shards, --data or --recording, one of them, found {found}")
        if self.recording is not None and self.out.suffix != ".parquet":
            raise ValueError(
                f"out: a recording gets a row every {self.every_s:g} s: expected a .parquet, which pandas.read_parquet "
                f"reads, found '{self.out}'"
            )
        if self.recording is not None and self.split != "test":
            raise ValueError("split: a recording has no labels; leave --split out")
        if self.workers < 1:
            raise ValueError(f"workers: expected at least 1, found {self.workers}")


def run(command: PredictAny) -> None:
    """Run the command `predict`; called by every rank."""
    shards, times = command.shards, None
    data = command.data
    if command.recording is not None:
        data = imported_recording(command, command.recording)
        times = row_times(data)
    if data is not None:
        shards = str(_rendered(command, data))
    assert shards is not None
    names = [field.name for field in dataclasses.fields(PredictConfig)]
    predict(Predict(shards=shards, **{name: getattr(command, name) for name in names}))
    if times is not None and launched_rank() == 0:
        add_times(command.out, times)


def imported_recording(command: PredictAny, recording: Path) -> Path:
    """Import a recording beside the parts of the prediction, on the main rank while the others wait; return the
    folder."""
    die_with_launcher()
    opened_run(command)
    check_rows(command.out, np.empty(0, np.int64))
    options = {field.name: getattr(command, field.name) for field in dataclasses.fields(ReadingOptions)}
    state = recording.stat() if recording.is_file() else None
    facts = [str(recording.resolve()), command.every_s, options, state and [state.st_size, state.st_mtime_ns]]
    folder = parts_folder(command.out) / f"recording-{digest(facts)}"
    if launched_rank() == 0:
        dataset = command.run / DATASET_NAME
        import_recordings(
            Import(
                data=recording, out=folder, dataset=dataset if dataset.exists() else None, labels="none",
                every_s=command.every_s, patient="file", pictures=0, **options,
            )
        )  # fmt: skip
    while not (folder / "test.csv").exists():
        time.sleep(LOOK_EVERY_S)
    return folder


def row_times(data: Path) -> dict[str, float]:
    """Return the middle of each row of an imported recording, in seconds, by key."""
    frame = read_labels(data / "test.csv", read_dataset(data)).frame
    # The spectrogram of an imported recording begins 5 minutes early, so the offset of 10 minutes is their middle.
    keys = map(sample_key, frame["eeg_id"], frame["eeg_sub_id"])
    return dict(zip(keys, frame["spectrogram_label_offset_seconds"].tolist(), strict=True))


def add_times(path: Path, times: Mapping[str, float]) -> None:
    """Add column time_s to a table of predictions, which is sorted by it."""
    table = read_table(path)
    table = table.append_column("time_s", pa.array([times[key] for key in table["key"].to_pylist()]))
    write_table(path, table.sort_by("time_s"))


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
