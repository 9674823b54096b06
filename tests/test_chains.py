"""Two chains from end to end at a small size, through the commands: pseudo-labels and an ensemble (the 16th place), and
stacking (the course report). The two-stage and ablation grids are tested in tests/grid, the search in tests/search."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from hms_dist.cli import main
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.results.lineage import read_sources
from hms_dist.results.metrics import kaggle_kl
from hms_dist.results.predictions import read_predictions
from hms_dist.shards.index import read_index
from hms_dist.train.folder.run_folder import read_config

pytestmark = pytest.mark.slow

SEEDS = (28490463, 28123213, 0)
"""Three of the 16th place's."""


@pytest.fixture(scope="module")
def shards(repository, tmp_path_factory):
    """A shard set with the 16th place's panels, of enough EEGs for a step of high-vote rows without a fold."""
    folder = tmp_path_factory.mktemp("chains")
    config = str(repository / "configs/render/sixteenth_place.yaml")
    assert main(["simulate", "--out", str(folder / "data"), "--num_recordings", "28", "--seed", "11"]) == 0
    assert main(["render", "--config", config, "--data", str(folder / "data"), "--out", str(folder / "set")]) == 0
    return folder / "set"


@pytest.fixture
def call(repository, launcher, monkeypatch, capsys):
    """Calls a command as a process of its own would be; what it printed."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(repository))
    torch.set_num_threads(1)

    def run_command(name, *words):
        words = [*words, "--launch.words", launcher] if name == "grid" else words
        assert main([name, *map(str, words)]) == 0
        torch.use_deterministic_algorithms(False)
        AcceleratorState._reset_state(reset_partial_state=True)
        return capsys.readouterr().out

    return run_command


@pytest.fixture
def refused(call, capsys):
    """Calls a command that must end with exit code 2; its last line."""

    def run_command(*words):
        assert main([str(word) for word in words]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run_command


def quarter_size(path):
    """The 16th place's picture with sides of a quarter, as a file; what is left of it is enough to go through."""
    canvas = yaml.safe_load(Path("configs/canvas/sixteenth_place.yaml").read_text())
    for part in (canvas, *canvas["placements"]):
        part.update({side: part[side] // 4 for side in ("height", "width", "top", "left") if side in part})
    for placement in canvas["placements"]:
        placement["resize"] = "area"
    path.write_text(yaml.safe_dump(canvas))
    return path


class Chain:
    """The 16th place's chain in a folder; its runs have these seeds and hold out `fold`."""

    def __init__(self, folder, shards, fold, seeds, call):
        self.folder, self.shards, self.fold, self.seeds, self.call = folder, shards, fold, seeds, call
        self.index = read_index(shards / "index.parquet")
        self.canvas = quarter_size(folder / "canvas.yaml")

    def grid_words(self, name, recipe, seeds=None, fold=None, **options):
        configs = [f"configs/train/{recipe}.yaml", "configs/train/small.yaml"]
        options = {"num_folds": 3, "epochs": 1, "canvas": str(self.canvas), **options}
        recipes = json.dumps([{"name": name, "configs": configs, "options": options}])
        fold = self.fold if fold is None else fold
        folds = ["--folds", fold if fold == "none" else f"[{fold}]"]
        out = f"{self.folder}/{name}/fold-{{fold}}-seed-{{seed}}"
        return [
            "--recipes",
            recipes,
            "--seeds",
            str(list(seeds or self.seeds)),
            *folds,
            "--shards",
            self.shards,
            "--out",
            out,
        ]

    def runs(self, name, seeds=None, fold=None):
        fold = self.fold if fold is None else fold
        return [self.folder / name / f"fold-{fold}-seed-{seed}" for seed in seeds or self.seeds]

    def trained(self, name, recipe, **options):
        """The runs of a grid."""
        self.call("grid", *self.grid_words(name, recipe, **options))
        return self.runs(name, **{key: options[key] for key in ("seeds", "fold") if key in options})

    def predicted(self, runs, tta="[flip]"):
        """Their predictions of the whole shard set."""
        tables = [self.folder / f"{run.parent.name}-{run.name}.parquet" for run in runs]
        for run, table in zip(runs, tables, strict=True):
            self.call("predict", "--run", run, "--shards", self.shards, "--out", table, "--tta", tta)
            assert sorted(read_predictions(table)["key"]) == sorted(self.index.frame["key"])
        return tables

    def pseudolabelled(self, tables, name="labels.parquet"):
        """Their pseudo-labels, and what was counted."""
        labels = self.folder / name
        words = ["--predictions", *tables, "--shards", self.shards, "--max_votes", "7", "--out", labels]
        return labels, json.loads(self.call("pseudolabel", *words))

    def mean_of(self, tables):
        """Plain mean of tables [rows, 6], in the order of the index."""
        found = [read_predictions(path).set_index("key").loc[self.index.frame["key"], list(CLASSES)] for path in tables]
        return np.mean([table.to_numpy() for table in found], axis=0)


def check_labels(chain, labels, tables, counts):
    """Labels are the mean of the models, of rows with at most 7 votes and of no others."""
    low = chain.index.num_voters <= 7
    assert counts["num_low_vote_rows"] == low.sum() == counts["num_labelled_rows"] + counts["num_dropped_rows"]
    table = read_predictions(labels)
    assert len(table) == counts["num_labelled_rows"] > 0
    places = [chain.index.row_of(key) for key in table["key"]]
    assert low[places].all()
    assert table[list(CLASSES)].to_numpy() == pytest.approx(chain.mean_of(tables)[places], abs=1e-12)


@pytest.mark.parametrize(("fold", "seeds"), [(0, SEEDS), ("none", SEEDS[:2])])
def test_seed_002(fold, seeds, shards, tmp_path, call, refused):
    """Models on high votes, their pseudo-labels, as many models on all rows, their mean, its score and the page."""
    chain = Chain(tmp_path, shards, fold, seeds, call)
    first = chain.trained("stage_1", "sixteenth_place")
    tables = chain.predicted(first)
    labels, counts = chain.pseudolabelled(tables)
    check_labels(chain, labels, tables, counts)
    assert counts["validation_folds_unseen"] == {"3": [] if fold == "none" else [0]}
    overlay = {"overlay.file": str(labels)}
    if fold == 0:
        leaks_are_refused(chain, labels, tables, refused)
    else:
        line = refused("grid", *chain.grid_words("leaky", "sixteenth_place_stage_2", fold=0, **overlay))
        assert f"{labels}: its model {first[0]} (no validation fold) has seen" in line

    second = chain.trained("stage_2", "sixteenth_place_stage_2", **overlay)
    tables = chain.predicted(second)
    for table in tables:
        (source,) = read_sources(table)
        assert {model.run for model in source.model.learnt_from} == set(map(str, first))
    mean = tmp_path / "mean.parquet"
    call("ensemble", "--predictions", *tables, "--out", mean)
    expected = chain.mean_of(tables)
    scores = json.loads(call("score", "--predictions", mean, "--labels", shards, "--rows", "all", "--num_draws", "0"))
    assert scores["kl"] == pytest.approx(kaggle_kl(chain.index.targets, expected), abs=1e-9)
    assert scores["num_rows_without_prediction"] == 0
    assert scores["kl"] <= np.mean([kaggle_kl(chain.index.targets, chain.mean_of([table])) for table in tables]) + 1e-12
    page = tmp_path / "page.html"
    words = ["--runs", *first, *second, "--predictions", mean, "--shards", shards, "--gallery", "0", "--out", page]
    call("report", *words)
    assert all(f"{run.parent.name}/{run.name}" in page.read_text() for run in (*first, *second))


def leaks_are_refused(chain, labels, tables, refused):
    """Predictions of a run of fold 1, for a run of fold 0; and a fit to rows that the models trained on."""
    (foreign,) = chain.trained("foreign", "sixteenth_place", seeds=SEEDS[:1], fold=1)
    leaky, counts = chain.pseudolabelled([*tables[1:], *chain.predicted([foreign], "[]")], "leaky.parquet")
    assert counts["validation_folds_unseen"] == {"3": []}
    words = chain.grid_words("leaky", "sixteenth_place_stage_2", **{"overlay.file": str(leaky)})
    line = refused("grid", *words)
    assert f"{leaky}: its model {foreign} (fold 1 of 3) has seen" in line
    assert "of validation fold 0 of 3" in line
    assert not any(run.exists() for run in chain.runs("leaky"))
    fit = ["--predictions", *tables, "--labels", chain.shards, "--out", chain.folder / "fit.parquet", "--weights"]
    assert "rows have no fold, so a model may have trained on them" in refused("ensemble", *fit, "fit")
    assert f"{labels}: lacks" in refused("pseudolabel", "--predictions", labels, *relabel(chain))


def relabel(chain):
    return ["--shards", chain.shards, "--max_votes", "100", "--out", chain.folder / "again.parquet"]


def test_seed_003(shard_set, tmp_path, call, refused):
    """The baseline and the data-wide model, three folds each; out-of-fold tables, fitted weights, a stack, scores."""
    small = "configs/train/small.yaml"
    recipes = [
        {"name": name, "configs": [f"configs/train/{recipe}.yaml", small], "options": {"num_folds": 3, "epochs": 1}}
        for name, recipe in (("baseline", "seed_003"), ("data_wide", "seed_003_tuned"))
    ]
    out = f"{tmp_path}/{{recipe}}/fold-{{fold}}"
    call("grid", "--recipes", json.dumps(recipes), "--shards", shard_set, "--out", out)
    tables = [tmp_path / f"{name}.parquet" for name in ("baseline", "data_wide")]
    for table in tables:
        runs = [tmp_path / table.stem / f"fold-{fold}" for fold in range(3)]
        assert [read_config(run).fold for run in runs] == [0, 1, 2]
        call("oof", "--runs", *runs, "--out", table)
    fitted, stacked = tmp_path / "fitted.parquet", tmp_path / "stacked"
    fit = ["--weights", "fit", "--labels", shard_set, "--method", "mean"]
    kl = json.loads(call("ensemble", "--predictions", *tables, "--out", fitted, *fit))["kl"]
    table = call("stack", "--predictions", *tables, "--labels", shard_set, "--out", stacked)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    of_all = {line[0]: float(line[-1]) for line in lines[2:]}
    assert list(of_all) == [*map(str, tables), "plain mean", "stack, nested"]

    kl_of = {"plain mean": kl["equal_weights"], **dict(zip(map(str, tables), kl["models"], strict=True))}
    files = {**{str(path): path for path in tables}, "stack, nested": stacked / "predictions.parquet"}
    for name, path in files.items():
        scores = json.loads(call("score", "--predictions", path, "--labels", shard_set, "--num_draws", "0"))
        assert of_all[name] == pytest.approx(scores["kl"], abs=6e-5)
        assert kl_of.get(name, scores["kl"]) == pytest.approx(scores["kl"], abs=1e-9)
    assert of_all["plain mean"] == pytest.approx(kl_of["plain mean"], abs=6e-5)
    found = json.loads(call("score", "--predictions", fitted, "--labels", shard_set, "--num_draws", "0"))
    assert found["kl"] == pytest.approx(kl["fitted_cross_validated"], abs=1e-9)

    new_rows(shard_set, tmp_path, call)
    one_fold = ["--predictions", tmp_path / "baseline/fold-0/predictions.parquet", "--labels", shard_set]
    assert "stacking needs 3 folds" in refused("stack", *one_fold, "--out", tmp_path / "none")


def new_rows(shards, folder, call):
    """The fits applied to tables of one model per recipe, as to a test set, in the order of the fit."""
    tables = [folder / f"new-{name}.parquet" for name in ("baseline", "data_wide")]
    for table in tables:
        run = folder / table.stem.removeprefix("new-") / "fold-0"
        call("predict", "--run", run, "--shards", shards, "--out", table)
    pooled, stacked = folder / "pooled.parquet", folder / "stacked.parquet"
    call("ensemble", "--predictions", *tables, "--out", pooled, "--weights", folder / "fitted.json")
    call("stack", "--predictions", *tables, "--apply", folder / "stacked", "--out", stacked)
    for path in (pooled, stacked):
        assert len(pd.read_parquet(path)) == len(read_index(shards / "index.parquet"))
