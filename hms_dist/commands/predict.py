"""The verb `predict`: the weights of a run on a shard set, or straight on recordings.

Prediction reads shards and rendering makes them, so the two meet here: recordings are rendered by the run's own recipe
into a shard set that lives beside the output until that is written.
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
"""Seconds between two looks of a rank that waits for the rendering."""


@dataclass(frozen=True, kw_only=True)
class PredictAny(PredictConfig):
    """Predict every row of a shard set, or of recordings, with the weights of a run.

    Rerun the same command after a kill: what is done stands.
    """

    shards: str | None = None
    """Folder of the shard set, or its URL (http://, s3://, gs://). None: `data` says what to predict."""
    data: Path | None = None
    """Folder of recordings in Kaggle's layout, rendered as the run's own were. None: `shards` says what to predict."""
    split: Literal["train", "test"] = "test"
    """With data: which recordings, and the label table DATA/test.csv or DATA/train.csv."""
    workers: int = 1
    """With data: processes that render side by side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.shards is None) == (self.data is None):
            found = "neither" if self.shards is None else "both"
            raise ValueError(f"shards: expected --shards or --data, one of the two, found {found}")
        if self.workers < 1:
            raise ValueError(f"workers: expected at least 1, found {self.workers}")


def run(command: PredictAny) -> None:
    """The verb `predict`; every rank calls this."""
    shards = command.shards
    if command.data is not None:
        shards = str(_rendered(command, command.data))
    assert shards is not None
    names = [field.name for field in dataclasses.fields(PredictConfig)]
    predict(Predict(shards=shards, **{name: getattr(command, name) for name in names}))


def _rendered(command: PredictAny, data: Path) -> Path:
    """The shard set of the recordings in `data`: the main rank renders it and the others wait.

    All that can be refused is refused before.
    """
    die_with_launcher()
    opened_run(command)
    path = data / f"{command.split}.csv"
    if command.split == "test" and not path.exists() and (data / "train.csv").exists():
        raise UserError(f"{path}: no such file; --split train predicts the rows of train.csv")
    labels = read_labels(path)
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
    """The run's recipe, of the panels alone that its canvas shows, flipped ones included if they are asked for."""
    recipe = from_stored(RenderConfig, read_recipe(command.run), str(command.run / "render.yaml"))
    specs = {name: panel.spec for name, panel in recipe.panels.items()}
    canvas = mirrored_canvas(read_canvas(command.run), specs, command.tta)
    return dataclasses.replace(recipe, panels={name: recipe.panels[name] for name in canvas.members})


def _states(data: Path, split: str, labels: LabelTable) -> list[Any]:
    """Name, size and time of change of each recording, so that a changed one is rendered anew."""
    paths = [
        data / f"{split}_{kind}s/{number}.parquet"
        for kind in ("eeg", "spectrogram")
        for number in labels.frame[f"{kind}_id"].unique()
    ]
    states = [(path, path.stat()) for path in paths if path.is_file()]  # rendering names one that is missing
    return [[path.name, state.st_size, state.st_mtime_ns] for path, state in states]
