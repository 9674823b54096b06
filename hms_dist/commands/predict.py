"""The command `predict`: apply the weights of a run to a shard set or to recordings.

Prediction reads shards and rendering writes them; this module combines the two. Recordings are rendered with the run's
own recipe into a temporary shard set, which is removed once the output is written.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hms_dist.config.load import from_stored, to_dict
from hms_dist.config.versions import as_version_1
from hms_dist.core.errors import UserError
from hms_dist.core.files import digest, sha256_of
from hms_dist.datasets import read_dataset
from hms_dist.labels.table import LabelTable, read_labels
from hms_dist.predict.infer import Predict
from hms_dist.predict.infer import run as predict
from hms_dist.predict.options import PredictConfig, opened_run
from hms_dist.predict.partial_results import begun, parts_folder
from hms_dist.predict.tta import mirrored_canvas
from hms_dist.rendering.build_spec import is_complete
from hms_dist.rendering.render import Render, RenderConfig
from hms_dist.rendering.render import run as render
from hms_dist.results.predictions import check_rows
from hms_dist.train.data.run_canvas import read_canvas, read_recipe
from hms_dist.train.folder.stop import die_with_launcher
from hms_dist.train.ranks.world import launched_rank

LOOK_EVERY_S = 0.5
"""Seconds between two polls of a rank that waits for the rendering."""


@dataclass(frozen=True, kw_only=True)
class PredictAny(PredictConfig):
    """Predict every row of a shard set, or of recordings, with the weights of a run.

    Rerun the same command after a kill: finished parts are kept.
    """

    shards: str | None = None
    """Folder of the shard set, or its URL (http://, s3://, gs://). None: predict `data`."""
    data: Path | None = None
    """Folder of recordings in Kaggle's layout, rendered with the run's own recipe. None: predict `shards`."""
    split: Literal["train", "test"] = "test"
    """With data: which recordings and label table, DATA/test.csv or DATA/train.csv."""
    workers: int = 1
    """With data: number of rendering processes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.shards is None) == (self.data is None):
            found = "neither" if self.shards is None else "both"
            raise ValueError(f"shards: expected --shards or --data, one of the two, found {found}")
        if self.workers < 1:
            raise ValueError(f"workers: expected at least 1, found {self.workers}")


def run(command: PredictAny) -> None:
    """Run the command `predict`; called by every rank."""
    shards = command.shards
    if command.data is not None:
        shards = str(_rendered(command, command.data))
    assert shards is not None
    names = [field.name for field in dataclasses.fields(PredictConfig)]
    predict(Predict(shards=shards, **{name: getattr(command, name) for name in names}))


def _rendered(command: PredictAny, data: Path) -> Path:
    """Render the recordings in `data` on the main rank while the others wait; return the shard set.

    All checks of the input come before the rendering.
    """
    die_with_launcher()
    opened_run(command)
    path = data / f"{command.split}.csv"
    if command.split == "test" and not path.exists() and (data / "train.csv").exists():
        raise UserError(f"{path}: no such file; --split train predicts the rows of train.csv")
    labels = read_labels(path, read_dataset(data))
    check_rows(command.out, labels.frame["eeg_id"].to_numpy())
    recipe = _needed(command)
    facts = [to_dict(recipe), sha256_of(labels.path), command.split, _states(data, command.split, labels)]
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
    paths = [
        data / f"{split}_{kind}s/{number}.parquet"
        for kind in ("eeg", "spectrogram")
        for number in labels.frame[f"{kind}_id"].unique()
    ]
    states = [(path, path.stat()) for path in paths if path.is_file()]  # rendering reports missing ones
    return [[path.name, state.st_size, state.st_mtime_ns] for path, state in states]
