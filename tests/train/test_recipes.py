"""Every recipe: its header states what it reproduces and how it differs, and it trains, small, from end to end."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hms_dist.config.load import load
from hms_dist.results.lineage import ModelRecord, Source
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.shards.index import read_index
from hms_dist.train.folder.record import is_finished, read_metrics
from hms_dist.train.loop import run
from hms_dist.train.settings import TrainConfig

CONFIGS = Path(__file__).parents[2] / "configs"
RENDERED = {
    "demo": "default",
    "fourth_place": "public_baseline",
    "proof_efficientnet": "default",
    "proof_tiny_vit": "default",
    "public_baseline": "public_baseline",
    "seed_000": "seed_001",
    "seed_000_model_loss": "seed_001",
    "seed_000_stage_1": "seed_001",
    "seed_001": "seed_001",
    "seed_003": "default",
    "seed_003_generated": "seed_003",
    "seed_003_rebalanced": "default",
    "seed_003_tuned": "default",
    "seed_004": "seed_004",
    "sixteenth_place": "sixteenth_place",
    "sixteenth_place_stage_2": "sixteenth_place",
    "third_place": "public_baseline",
}
"""Recipe -> the render recipe that its header names."""
RECIPES = sorted(path.stem for path in (CONFIGS / "train").glob("*.yaml") if path.stem != "small")


def test_every_recipe_is_tried():
    assert sorted(RENDERED) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_its_header_says_what_it_is(name):
    lines = (CONFIGS / f"train/{name}.yaml").read_text().splitlines()
    header = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    assert len(header) > 80
    assert "Differs" in header or "Reproduces nothing published" in header
    assert load(TrainConfig, ["--config", str(CONFIGS / f"train/{name}.yaml"), "--shards", "s", "--out", "o"])


def tables(shards, tmp_path, rng):
    """Pseudo-labels and out-of-fold predictions for every row of a shard set: made up, but whole, and as if by models
    that saw neither fold 0 nor the row's own."""
    index = read_index(shards / "index.parquet")
    folds, patients = index.folds(3), index.ids("patient_id")
    sources = [
        Source(
            fold=fold,
            model=ModelRecord(
                run=f"fold{fold}", weights="", shards="", fold=fold, num_folds=3, seed=0,
                patients=frozenset(patients[~np.isin(folds, [0, fold])].tolist()),
            ),
        )
        for fold in range(3)
    ]  # fmt: skip
    found = rng.dirichlet(np.ones(6), len(index))
    path = tmp_path / "table.parquet"
    write_predictions(path, prediction_table(index.frame, folds, found), sources)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_small(name, rendered, tmp_path, rng):
    torch.set_num_threads(1)
    shards = rendered(RENDERED[name])
    words = ["--config", str(CONFIGS / f"train/{name}.yaml"), "--config", str(CONFIGS / "train/small.yaml")]
    words += ["--shards", str(shards), "--out", str(tmp_path / "run"), "--num_folds", "3", "--epochs", "1"]
    if name == "seed_004":
        words += ["--model.name", "resnet10t"]
    if name == "fourth_place":
        words += ["--selection.min_votes_schedule", "[[0, 1], [1, 2]]", "--epochs", "2"]
    if name == "seed_003_rebalanced":  # which leaves three rows of these recordings
        words += ["--global_batch", "2"]
    if name == "sixteenth_place_stage_2":
        words += ["--overlay.file", str(tables(shards, tmp_path, rng))]
    if name == "seed_000_model_loss":
        words += ["--filters.predictions", f"[{tables(shards, tmp_path, rng)}]"]
    config = load(TrainConfig, words)
    run(config)
    assert is_finished(config.out)
    assert all(np.isfinite(line["loss"]) for line in read_metrics(config.out) if "loss" in line)
    if config.fold == "none":
        assert not (config.out / "best").exists()
    else:
        status = json.loads((config.out / "status.json").read_text())
        assert len(pd.read_parquet(config.out / "predictions.parquet")) > 0
        assert status["best"]["val_kl"] > 0
    assert (config.out / "final/ema.safetensors").exists() == (config.ema.decay is not None)
