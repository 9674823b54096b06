"""Fixtures of the prediction tests: a small and a sliding-window network, each trained once a session; made-up
tables."""

import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.signal_format import CHANNELS
from hms_dist.recordings.reader import read_eeg
from hms_dist.results.lineage import ModelRecord, Source
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.shards.index import Index, read_index
from hms_dist.train.folder.run_folder import begin_folder
from hms_dist.train.loop import run
from hms_dist.train.settings import TrainConfig
from hms_dist.train.stages import stage_runs

SLIDING = """
    canvas:
      height: 64
      width: 160
      placements:
        - {panel: eeg_spectrogram, arrangement: stacked, resize: area, top: 0, left: 0, height: 64, width: 160,
           normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
    model: {name: test_efficientnet, sliding_window: {crop_share: 0.7}}
    loss: {name: bce}
    num_folds: 3
    epochs: 1
    global_batch: 4
    group_size: 2
"""


@pytest.fixture(autouse=True)
def fresh_process_state():
    """accelerate keeps one state per process; each run of a test begins like a process of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    _forget()


def _forget() -> None:
    torch.use_deterministic_algorithms(False)
    AcceleratorState._reset_state(reset_partial_state=True)


def _trained(*words: str) -> Path:
    config = load(TrainConfig, words, prog="train.py")
    run(config)
    _forget()
    return config.out


@pytest.fixture(scope="session")
def trained(small_file, shard_set, shared) -> Path:
    """Run folder of the small net after two epochs, averaged; its weights are far from where it began."""
    words = ["--config", str(small_file), "--shards", str(shard_set)]
    words += ["--ema.decay", "0.9", "--ema.warmup", "false", "--optim.lr", "0.01"]
    return shared("trained", lambda folder: _trained(*words, "--out", str(folder / "run"))) / "run"


@pytest.fixture(scope="session")
def trained_sliding(shard_set, shared) -> Path:
    """Run folder of the sliding-window net after an epoch."""

    def train(folder: Path) -> None:
        folder.mkdir()
        (folder / "sliding.yaml").write_text(textwrap.dedent(SLIDING))
        words = ["--config", str(folder / "sliding.yaml"), "--shards", str(shard_set), "--out", str(folder / "run")]
        _trained(*words)

    return shared("sliding", train) / "run"


@pytest.fixture(scope="session")
def edf_file(shared, recordings) -> Path:
    """The first simulated EEG as an EDF file."""

    def make(folder: Path) -> None:
        folder.mkdir()
        eeg = read_eeg(min((recordings / "train_eegs").iterdir())).T.astype(np.float64)
        limits = {"physical_dimension": "uV", "physical_range": (-3276.7, 3276.7)}
        signals = [
            edfio.EdfSignal(np.nan_to_num(values).clip(-3276.7, 3276.7), 200, label=name, **limits)
            for name, values in zip(CHANNELS, eeg, strict=True)
        ]
        edfio.Edf(signals).write(folder / "night.edf")

    return shared("edf", make) / "night.edf"


@pytest.fixture
def forget() -> Callable[[], None]:
    """Lets a test predict several times, each time as a process of its own would."""
    return _forget


@pytest.fixture(scope="session")
def index(shard_set) -> Index:
    """The index of the shard set; its patients make three folds."""
    return read_index(shard_set / "index.parquet")


@pytest.fixture
def record(index) -> Callable[..., ModelRecord]:
    """The record of a run with this validation fold of three (None: trained on all), as training would write it."""

    def make(run: str, fold: int | None, **also: Any) -> ModelRecord:
        seen = index.ids("patient_id")[index.folds(3) != fold]
        facts = {"weights": f"{run}-{fold}", "shards": "", "num_folds": 3, "seed": 0}
        return ModelRecord(run=run, fold=fold, patients=frozenset(seen.tolist()), **{**facts, **also})

    return make


@pytest.fixture
def write(index, tmp_path, rng) -> Callable[..., Path]:
    """Write a table of predictions of `rows` (all) with their folds (-1: none) and sources; its path."""

    def make(name: str, probabilities: Any, sources: Any, folds: Any = None, rows: Any = None) -> Path:
        rows = np.arange(len(index)) if rows is None else rows
        table = prediction_table(index.frame.iloc[rows], folds, np.asarray(probabilities))
        write_predictions(tmp_path / name, table.sample(frac=1, random_state=rng), sources)
        return tmp_path / name

    return make


@pytest.fixture
def out_of_fold(index, record, write) -> Callable[..., Path]:
    """Write an honest table: each row by the run of `run` that held its fold out."""

    def make(run: str, probabilities: Any) -> Path:
        sources = [Source(model=record(run, fold), fold=fold) for fold in range(3)]
        return write(f"{run}.parquet", probabilities, sources, index.folds(3))

    return make


@pytest.fixture
def submission(index, tmp_path, rng) -> Callable[[str], Path]:
    """Write made-up predictions of the first row of every EEG, as Kaggle takes them."""

    def make(name: str) -> Path:
        rows = index.frame[~index.frame["eeg_id"].duplicated()]
        table = prediction_table(rows, None, rng.dirichlet(np.ones(6), len(rows)))
        write_predictions(tmp_path / name, table)
        return tmp_path / name

    return make


class Sandbox:
    """A shard set, a trained run of fold 0, tables of made-up predictions, and the commands."""

    def __init__(self, folder, shard_set, index, small_file, trained, record, submission, rng):
        self.folder, self.shards, self.index, self.small_file = folder, shard_set, index, small_file
        self.trained, self.record, self.submission, self.rng = trained, record, submission, rng
        self.page, self.out = folder / "page.html", folder / "out.parquet"

    def predictions(self, name, *folds_of_models, folds=None, rows=None, key=None, **model):
        """A table: of `rows` (all), by models that held out these folds, with the folds that its rows say (none)."""
        rows = np.arange(len(self.index)) if rows is None else rows
        values = self.rng.dirichlet(np.ones(6), len(rows))
        table = prediction_table(self.index.frame.iloc[rows], folds, values)
        if key is not None:
            table.loc[0, ["key", "eeg_id", "eeg_sub_id"]] = [key, *map(int, key.split("-"))]
        sources = [Source(model=self.record(f"run-{name}", fold, **model)) for fold in folds_of_models]
        write_predictions(self.folder / f"{name}.parquet", table, sources)
        return self.folder / f"{name}.parquet"

    def out_of_fold(self, name):
        """An honest table: each row by the model that held its fold out."""
        path = self.predictions(name, 0, folds=self.index.folds(3))
        sources = [Source(model=self.record(f"run-{name}", fold), fold=fold) for fold in range(3)]
        table = prediction_table(self.index.frame, self.index.folds(3), np.full((len(self.index), 6), 1 / 6))
        write_predictions(path, table, sources)
        return path

    def corrupted(self, change):
        """A table of predictions, changed."""
        path = self.predictions("a", 0)
        change(pd.read_parquet(path)).to_parquet(path)
        return path

    def cut(self, path):
        """Half of a file."""
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    def made(self, name):
        """A folder."""
        (self.folder / name).mkdir()
        return self.folder / name

    def shortened(self, path):
        """A fit whose weights lack the last."""
        value = json.loads(path.read_text())
        del value["digest"]  # as a person does who changes it
        return self.write("out.json", json.dumps({**value, "weights": value["weights"][:-1]}))

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def command(self, *words):
        return main([str(word) for word in words])

    def grid(self, *words, options="{}"):
        recipes = json.dumps([{"name": "a", "configs": [str(self.small_file)], "options": json.loads(options)}])
        out = f"{self.folder}/{{seed}}/{{fold}}"
        return self.command("grid", "--recipes", recipes, "--shards", self.shards, "--out", out, *words)

    def finished_elsewhere(self):
        """A grid whose first run is recorded as finished, and as trained on other shards."""
        run = self.folder / "0/0"
        (run / "final").mkdir(parents=True)
        (run / "final/meta.json").write_text('{"shards": "others"}')
        (run / "status.json").write_text('{"state": "finished"}')
        return self.grid("--folds", "[0]")

    def ablation(self, *words):
        given = ["--shards", self.shards, "--out", self.folder, "--configs", self.small_file, "--models", "[a]"]
        return self.command("ablation", *given, *words)

    def search(self, space, *words):
        given = ["--shards", self.shards, "--out", self.folder / "study", "--configs", self.small_file]
        return self.command("search", *given, "--space", json.dumps({"x": space}), *words)

    def search_again(self, corrupted):
        """A search in a folder where this file holds something else."""
        self.made("study")
        self.write(f"study/{corrupted}", "{\n")
        return self.search({"sets": "seed", "choices": [1]})

    def oof(self, *runs):
        return self.command("oof", "--runs", *runs, "--out", self.out)

    def predict(self, *words):
        return self.command("predict", "--run", self.trained, "--out", self.out, *words)

    def predict_set(self, *words):
        return self.predict("--shards", self.shards, *words)

    def without_best(self):
        shutil.copytree(self.trained, self.folder / "run", ignore=lambda _, names: {"best"} & set(names))
        return self.predict_set("--run", self.folder / "run")

    def pseudolabel(self, table, *words):
        return self.command("pseudolabel", "--predictions", table, "--shards", self.shards, "--out", self.out, *words)

    def ensemble(self, tables, *words):
        return self.command("ensemble", "--predictions", *tables, "--out", self.out, *words)

    def fit(self, *tables):
        return self.ensemble(tables, "--weights", "fit", "--labels", self.shards)

    def fitted(self):
        """The weights of a fit of two models."""
        assert self.fit(self.out_of_fold("a"), self.out_of_fold("b")) == 0
        return self.folder / "out.json"

    def stack(self, *words):
        return self.command("stack", "--out", self.folder / "stack", *words)

    def report(self, *words):
        return self.command("report", "--out", self.page, *words)

    def train(self, *words):
        given = ["--config", self.small_file, "--shards", self.shards, "--out", self.folder / "run", *words]
        return main(["train", *map(str, given)])

    def stages(self, *stages, fold="0", smooth_below="null"):
        return self.train("--stages", json.dumps(stages), "--fold", fold, "--loss.smooth_below", smooth_below)

    def stages_again(self, *stages):
        """A run whose stage `a`, of one epoch, is done, and the same command with other stages."""
        begun = json.dumps([{"name": "a", "epochs": 1}, {"name": "b"}])
        given = ["--config", self.small_file, "--shards", self.shards, "--out", self.folder / "run", "--stages", begun]
        stage = stage_runs(load(TrainConfig, [str(word) for word in given], prog="train.py"))[0]
        stage.out.mkdir(parents=True)
        begin_folder(stage)
        return self.stages(*stages)

    def augment(self, name, **options):
        return self.train("--augment.steps", json.dumps([{"class_path": name, "init_args": options}]))


@pytest.fixture
def sandbox(tmp_path, shard_set, index, small_file, trained, record, submission, rng) -> Sandbox:
    """One for each test."""
    return Sandbox(tmp_path, shard_set, index, small_file, trained, record, submission, rng)
