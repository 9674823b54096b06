"""What tests of predictions share: a small and a sliding-window net, each trained once a session; made-up tables."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from hms_dist.config import load
from hms_dist.predictions import prediction_table, write_predictions
from hms_dist.provenance import ModelRecord, Source
from hms_dist.shards.index import Index, read_index
from hms_dist.train.loop import run
from hms_dist.train.settings import TrainConfig

SLIDING = """
    canvas:
      height: 64
      width: 160
      placements:
        - {panel: eeg_spectrogram, arrangement: stacked, resize: area, top: 0, left: 0, height: 64, width: 160,
           normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
    model: {name: tf_efficientnet_lite0, sliding_window: {crop_share: 0.7}}
    loss: {name: bce}
    num_folds: 3
    epochs: 1
    global_batch: 4
    group_size: 2
"""


@pytest.fixture(autouse=True)
def fresh_process_state():
    """accelerate keeps one state a process; each run of a test begins like a process of its own."""
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
def trained(small_file, shard_set, tmp_path_factory) -> Path:
    """Run folder of the small net after two epochs, averaged; its weights are far from where it began."""
    out = tmp_path_factory.mktemp("trained") / "run"
    words = ["--config", str(small_file), "--shards", str(shard_set), "--out", str(out)]
    return _trained(*words, "--ema.decay", "0.9", "--ema.warmup", "false", "--optim.lr", "0.01")


@pytest.fixture(scope="session")
def trained_sliding(shard_set, tmp_path_factory) -> Path:
    """Run folder of the sliding-window net after an epoch."""
    folder = tmp_path_factory.mktemp("sliding")
    (folder / "sliding.yaml").write_text(textwrap.dedent(SLIDING))
    words = ["--config", str(folder / "sliding.yaml"), "--shards", str(shard_set), "--out", str(folder / "run")]
    return _trained(*words)


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
def write(index, tmp_path) -> Callable[..., Path]:
    """Write a table of predictions of `rows` (all) with their folds (-1: none) and sources; its path."""

    def make(name: str, probabilities: Any, sources: Any, folds: Any = None, rows: Any = None) -> Path:
        rows = np.arange(len(index)) if rows is None else rows
        table = prediction_table(index.frame.iloc[rows], folds, np.asarray(probabilities))
        write_predictions(tmp_path / name, table.sample(frac=1), sources)
        return tmp_path / name

    return make


@pytest.fixture
def out_of_fold(index, record, write) -> Callable[..., Path]:
    """Write an honest table: each row by the run of `run` that held its fold out."""

    def make(run: str, probabilities: Any) -> Path:
        sources = [Source(model=record(run, fold), fold=fold) for fold in range(3)]
        return write(f"{run}.parquet", probabilities, sources, index.folds(3))

    return make
