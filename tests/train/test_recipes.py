"""Every recipe: its header states what it reproduces and how it differs, and it trains, small, from end to end."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS
from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
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
MERGED = ("small", "fine_tune", "rfcx_tp_only")
"""Recipes that are merged after another one."""
RECIPES = sorted(path.stem for path in (CONFIGS / "train").glob("*.yaml") if path.stem not in MERGED)
AUDIO = ("rfcx_resnet34",)
"""Recipes of audio, which no set of EEG suits; tests/test_audio.py trains such a network."""
WORLDS = (1, 2, 3, 4, 8)
SMALL_NETS = {
    "tiny_vit": '{"name": "tiny_vit_5m_224", "kwargs": {"embed_dims": [16, 32, 48, 64], "num_heads": [1, 2, 3, 4]}}',
    "resnet": '{"name": "resnet10t", "kwargs": {"channels": [16, 32, 48, 64]}}',
    "tf_efficientnet": '{"name": "test_efficientnet"}',
}
"""First letters of a recipe's network -> a small one of its family."""
FIRST_OF_ITS_BATCH = ("demo", "fourth_place", "seed_000")
"""Recipes with batches of 16, 32 and 8 rows, which three ranks cannot share."""
MORE = {
    "fourth_place": ["--selection.min_votes_schedule=[[0, 1], [1, 2]]", "--epochs=2"],
    "seed_000": ["--epochs=1"],
}
"""Further options with which a recipe runs in one or two epochs."""


@cache
def recipe(name):
    return load(TrainConfig, ["--config", name, "--shards", "s", "--out", "o"])


def test_every_recipe_is_tried():
    assert sorted([*RENDERED, *AUDIO]) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_its_header_states_what_it_is(name):
    lines = (CONFIGS / f"train/{name}.yaml").read_text().splitlines()
    header = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    assert len(header) > 80
    assert "Differs" in header or "Reproduces nothing published" in header
    assert recipe(name)


@pytest.mark.parametrize("name", RECIPES)
def test_ranks_share_its_rows_or_the_error_names_how_many_do(name):
    batching = recipe(name).batching
    fitting = [num_ranks for num_ranks in WORLDS if batching.global_batch % num_ranks == 0]
    assert {1, 2, 4, 8} <= set(fitting)
    for num_ranks in WORLDS:
        if num_ranks not in fitting:
            with pytest.raises(UserError) as refusal:
                batching.check_world(num_ranks)
            named = re.search(r"; start ([\d, or]+) ranks, or change global_batch$", str(refusal.value))
            assert set(map(int, re.findall(r"\d+", named[1]))) >= set(fitting)
            assert all(batching.global_batch % int(number) == 0 for number in re.findall(r"\d+", named[1]))
            continue
        batching.check_world(num_ranks)
        passes = [batching.passes(rank, num_ranks) for rank in range(num_ranks)]
        places = [sorted(np.concatenate([one.places for one in of_rank])) for of_rank in passes]
        assert np.array_equal(np.ravel(places), np.arange(batching.global_batch))
        assert {len(of_rank) for of_rank in places} == {batching.global_batch // num_ranks}
        assert len({of_rank[-1].is_split for of_rank in passes}) == 1


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
@pytest.mark.parametrize("name", RENDERED)
def test_it_trains_small(name, rendered, tmp_path, rng):
    torch.set_num_threads(1)
    shards = rendered(RENDERED[name])
    words = ["--config", str(CONFIGS / f"train/{name}.yaml"), "--config", str(CONFIGS / "train/small.yaml")]
    words += ["--shards", str(shards), "--out", str(tmp_path / "run"), "--num_folds", "3", "--epochs", "1"]
    if name == "seed_004":
        words += ["--model.name", "resnet10t", '--model.kwargs={"channels": [16, 32, 48, 64], "stem_width": 8}']
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


@pytest.fixture(scope="module")
def shards_of(shared):
    """Shard sets of a row of each of 60 EEGs, by a render recipe; votes of all classes, few for every sixth row."""

    def record(folder):
        simulate(Simulate(out=folder, num_recordings=60, seed=7))
        table = pd.read_csv(folder / "train.csv").drop_duplicates("eeg_id")
        votes = np.zeros((len(table), len(HMS.classes)), int)
        number = np.arange(len(table))
        votes[number, number % 6], votes[number, (number + 1) % 6] = 9, 3
        votes[number // 6 % 6 == 5] //= 3
        table[list(HMS.vote_columns)] = votes
        table.to_csv(folder / "rows.csv", index=False)

    def make(name):
        data = shared("sixty", record)
        words = ["--config", name, "--data", str(data), "--table", str(data / "rows.csv")]
        return shared(f"sixty-{name}", lambda out: render(load(Render, [*words, "--out", str(out)])))

    return make


def small_canvas(name, path):
    """Write the canvas of a recipe, reduced so that its shorter side has 64 pixels or a few more."""
    canvas = yaml.safe_load((CONFIGS / f"canvas/{name}.yaml").read_text())
    factor = min(canvas["height"], canvas["width"]) // 64
    for part in (canvas, *canvas["placements"]):
        part.update({key: part[key] // factor for key in ("top", "left", "height", "width") if key in part})
    for placement in canvas["placements"]:
        placement["resize"] = "area"
    path.write_text(yaml.safe_dump(canvas))
    return path


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", RENDERED)
def test_it_is_one_run_on_any_number_of_ranks(name, repository, shards_of, tmp_path, rng):
    """With its own rows, groups, selection, loss and augmentation; in float64, on a small canvas with a small net."""
    options = yaml.safe_load((CONFIGS / f"train/{name}.yaml").read_text())
    net = next(net for family, net in SMALL_NETS.items() if options["model"]["name"].startswith(family))
    shards = shards_of(RENDERED[name])
    words = ["--config", name, f"--canvas={small_canvas(options['canvas'], tmp_path / 'canvas.yaml')}"]
    words += [f"--shards={shards}", "--epochs=1", "--precision=float64", "--log_every=1", "--reader_threads=1"]
    words += ["--model.weights=none", *[f"--model.{key}={json_of(value)}" for key, value in json.loads(net).items()]]
    words += MORE.get(name, [])
    if name == "sixteenth_place_stage_2":
        words += [f"--overlay.file={tables(shards, tmp_path, rng)}"]
    if name == "seed_000_model_loss":
        words += ["--num_folds=3", f"--filters.predictions=[{tables(shards, tmp_path, rng)}]"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository), "ACCELERATE_USE_CPU": "1"}
    run(load(TrainConfig, [*words, f"--out={tmp_path / 'alone'}"]))
    alone = lines_of(tmp_path / "alone")
    for num_ranks in WORLDS[1:]:
        fits = options["global_batch"] % num_ranks == 0
        if not fits and name not in FIRST_OF_ITS_BATCH:
            continue  # refused in the same words
        out = tmp_path / f"on-{num_ranks}"
        launch = [f"{os.path.dirname(sys.executable)}/torchrun", "--standalone", f"--nproc_per_node={num_ranks}"]
        done = subprocess.run(
            [*launch, "-m", "hms_dist", "train", *words, f"--out={out}"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        if not fits:
            assert done.returncode != 0
            assert f"global_batch: {options['global_batch']} rows cannot be shared equally by 3 ranks" in done.stderr
            assert not out.exists()
            continue
        assert done.returncode == 0, done.stderr[-5000:]
        assert is_finished(out)
        found = lines_of(out)
        assert len(found) == len(alone) > 1
        for one, other in zip(found, alone, strict=True):
            for key in other.keys() & {"loss", "val_kl", "lr"}:
                assert one[key] == pytest.approx(other[key], abs=1e-8), (num_ranks, other)


def lines_of(out):
    """Lines of metrics.jsonl of a run and its stages."""
    return [line for folder in (out, *sorted(out.glob("stages/*"))) for line in read_metrics(folder)]


def json_of(value):
    return value if isinstance(value, str) else json.dumps(value)
