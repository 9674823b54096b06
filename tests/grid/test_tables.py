"""The score of the wavelet ablation, and tables of runs against independently computed values."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.config.recipes import ROOT
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.grid.ablation import Ablation
from hms_dist.grid.grid import planned
from hms_dist.grid.oof import assembled
from hms_dist.grid.tables import as_markdown, write_table
from hms_dist.results.lineage import Source, read_sources
from hms_dist.results.metrics import kaggle_kl, seed001_cv
from hms_dist.results.predictions import read_predictions, write_predictions
from hms_dist.shards.index import read_index
from hms_dist.train.folder.record import read_metrics


def test_seed001_cv_is_torchs_loss_of_probabilities_taken_for_logits(rng):
    truth = rng.multinomial(rng.integers(1, 20, 50), np.ones(6) / 6) / 1.0
    truth /= truth.sum(axis=1, keepdims=True)
    found = rng.dirichlet(np.ones(6), 50)
    logs = torch.log_softmax(torch.from_numpy(found), dim=1)
    expected = torch.nn.KLDivLoss(reduction="batchmean")(logs, torch.from_numpy(truth)).item()
    assert seed001_cv(truth, found) == pytest.approx(expected, abs=1e-12)


def test_seed001_cv_hardly_moves():
    truth = np.eye(6)
    assert seed001_cv(truth, truth) == pytest.approx(np.log(np.e + 5) - 1)
    assert seed001_cv(truth, np.roll(truth, 1, axis=1)) == pytest.approx(np.log(np.e + 5))
    assert seed001_cv(truth, np.full((6, 6), 1 / 6)) == pytest.approx(np.log(6))


def test_a_table_as_markdown_and_csv(tmp_path):
    table = pd.DataFrame({"name": ["a", "b"], "seen": [True, False], "kl": [0.123456789, float("nan")]})
    write_table(tmp_path / "new/table", table)
    assert (tmp_path / "new/table.md").read_text() == (
        "| name | seen | kl |\n| --- | --- | ---: |\n| a | True | 0.1235 |\n| b | False |  |\n"
    )
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new/table.csv"), table)
    assert as_markdown(table).count("\n") == 4


def truth_of(shards, table):
    index = read_index(shards / "index.parquet")
    rows = [index.row_of(key) for key in table["key"]]
    return index.targets[rows], table[list(CLASSES)].to_numpy()


def test_the_packaged_ablation_is_seven_combinations_of_two_models_and_three_folds(tmp_path):
    """All seven combinations of the three features, for each model and fold. They are not trained here."""
    words = ["--config", "configs/grid/seed_001_ablation.yaml", "--shards", "s", "--out", str(tmp_path / "out")]
    seen = []
    for run in planned(load(Ablation, words).grid):
        options = dict(word[2:].split("=", 1) for word in run.words if "=" in word)
        placements = yaml.safe_load((ROOT / f"canvas/{options['canvas']}.yaml").read_text())["placements"]
        seen.append((options["model.name"], frozenset(place["panel"] for place in placements), run.fold))
    features = ("kaggle_spectrogram", "eeg_spectrogram", "wavelet_statistics")
    combinations = [frozenset(some) for number in (1, 2, 3) for some in itertools.combinations(features, number)]
    expected = set(itertools.product(("tf_efficientnet_b0", "efficientnet_b4"), combinations, range(3)))
    assert set(seen) == expected
    assert len(seen) == len(expected) == 42


@pytest.mark.slow
def test_the_ablation_of_seed_001(features, launcher, tmp_path, capsys, edited):
    """A table of two of its canvases with one model and three folds."""
    words = [
        "--config",
        "configs/grid/seed_001_ablation.yaml",
        "--shards",
        str(features),
        "--out",
        str(tmp_path / "out"),
    ]
    words += ["--configs", "configs/train/seed_001.yaml", "configs/train/small.yaml", "--models", "[test_efficientnet]"]
    words += ["--canvases", "configs/canvas/seed_001_kaggle.yaml", "configs/canvas/seed_001_eeg_wavelet.yaml"]
    words += ["--options", "{epochs: 1}", "--launch.words", launcher]
    assert main(["ablation", *words]) == 0
    table = pd.read_csv(tmp_path / "out/ablation.csv")
    panels = {"kaggle_spectrogram", "eeg_spectrogram", "wavelet_statistics"}
    assert set(table) == {"model", "canvas", *panels, "kl", "seed001_cv", "images_per_s"}
    assert table["model"].tolist() == ["test_efficientnet"] * 2 + ["constant"]
    by_canvas = table.set_index("canvas")
    assert by_canvas.loc["seed_001_kaggle", ["kaggle_spectrogram", "eeg_spectrogram"]].tolist() == [True, False]
    assert by_canvas.loc["seed_001_eeg_wavelet", ["eeg_spectrogram", "wavelet_statistics"]].tolist() == [True, True]
    assert table["kl"][0] <= table["kl"][1]
    for canvas in ("seed_001_kaggle", "seed_001_eeg_wavelet"):
        runs = [tmp_path / f"out/runs/test_efficientnet-{canvas}/fold-{fold}" for fold in range(3)]
        joined = pd.concat([read_predictions(run / "predictions.parquet") for run in runs])
        truth, found = truth_of(features, joined)
        assert by_canvas.loc[canvas, "kl"] == pytest.approx(kaggle_kl(truth, found), abs=1e-12)
        assert by_canvas.loc[canvas, "seed001_cv"] == pytest.approx(seed001_cv(truth, found), abs=1e-12)
        speeds = [[line["images_per_s"] for line in read_metrics(run) if "loss" in line] for run in runs]
        assert by_canvas.loc[canvas, "images_per_s"] == pytest.approx(np.mean([np.median(s) for s in speeds]))
    assert capsys.readouterr().out == (tmp_path / "out/ablation.md").read_text()
    oof_of_runs(features, runs, joined, tmp_path, edited)


def oof_of_runs(shards, runs, joined, tmp_path, edited):
    """The out-of-fold table of those runs, and every reason to reject it."""
    out = tmp_path / "oof.parquet"
    assert main(["oof", "--runs", *map(str, runs), "--out", str(out)]) == 0
    table, index = read_predictions(out), read_index(shards / "index.parquet")
    assert table["key"].tolist() == index.frame["key"].tolist()
    assert table["fold"].tolist() == index.folds(3).tolist()
    expected = joined.set_index("key").loc[table["key"], list(CLASSES)]
    assert np.array_equal(table[list(CLASSES)], expected)
    assert [source.fold for source in read_sources(out)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"no run holds out fold 1 of 3, so .* rows have no prediction"):
        assembled([runs[0], runs[2]])
    with pytest.raises(UserError, match=f"{runs[0]}: holds out fold 0, as {runs[0]} does"):
        assembled([*runs, runs[0]])
    config = (runs[1] / "config.yaml").read_text()
    edited(runs[1] / "config.yaml", "num_folds: 3", "num_folds: 4")
    with pytest.raises(UserError, match="holds out a fold of 4, the first run one of 3"):
        assembled(runs)
    (runs[1] / "config.yaml").write_text(config)
    edited(runs[1] / "config.yaml", "fold: 1", "fold: none")
    with pytest.raises(UserError, match="trained on all rows"):
        assembled(runs)
    (runs[1] / "config.yaml").write_text(config)
    meta = (runs[1] / "best/meta.json").read_text()
    (runs[1] / "best/meta.json").write_text(json.dumps({**json.loads(meta), "shards": "x"}))
    with pytest.raises(UserError, match=r"best/meta.json: its SHA-256 is not the one in hashes.json; restore it"):
        assembled(runs)
    (runs[1] / "best/hashes.json").unlink()
    with pytest.raises(UserError, match="was trained on another shard set"):
        assembled(runs)
    (runs[1] / "best/meta.json").write_text(meta[:-9])
    with pytest.raises(UserError, match=r"best/meta.json: not readable as JSON .*; restore it from a copy, or train"):
        assembled(runs)
    (runs[1] / "best/meta.json").write_text(meta)
    kept = pd.read_parquet(runs[1] / "predictions.parquet")
    kept.to_parquet(runs[1] / "predictions.parquet")
    with pytest.raises(UserError, match="does not record which models made it"):
        assembled(runs)
    leaky = [Source(model=replace(one.model, fold=1), fold=1) for one in read_sources(out) if one.fold != 1]
    write_predictions(runs[1] / "predictions.parquet", kept, leaky)
    with pytest.raises(UserError, match=r"has seen \d+ of the \d+ patients that it predicts as fold 1"):
        assembled(runs)
    pd.concat([kept[1:], table[table["fold"] == 0][:1]]).to_parquet(runs[1] / "predictions.parquet")
    with pytest.raises(UserError, match="1 rows of its fold are missing and 1 are of other folds"):
        assembled(runs)
    (runs[2] / "status.json").write_text(json.dumps({"state": "stopped"}))
    with pytest.raises(UserError, match="not a finished run"):
        assembled(runs)


@pytest.mark.slow
def test_the_two_stages_of_seed_000(features, launcher, tmp_path, capsys):
    recipes = json.dumps([{"name": "a", "configs": ["configs/train/seed_000.yaml", "configs/train/small.yaml"],
                           "options": {"num_folds": 3, "epochs": 1}}])  # fmt: skip
    words = ["--recipes", recipes, "--shards", str(features), "--out", f"{tmp_path}/{{fold}}", "--seeds", "[20]"]
    assert main(["grid", *words, "--launch.words", launcher]) == 0
    runs = [tmp_path / str(fold) for fold in range(3)]
    capsys.readouterr()
    assert main(["stages", "--runs", *map(str, runs), "--out", str(tmp_path / "stages")]) == 0
    table = pd.read_csv(tmp_path / "stages.csv")
    assert table["fold"].tolist() == ["0", "1", "2", "overall"]
    for stage, folders in (("stage_1", [run / "stages/stage_1" for run in runs]), ("stage_2", runs)):
        parts = [read_predictions(folder / "predictions.parquet") for folder in folders]
        for row, part in zip(table.to_dict("records"), [*parts, pd.concat(parts)], strict=True):
            assert row["rows"] == len(part)
            assert row[f"{stage} kl"] == pytest.approx(kaggle_kl(*truth_of(features, part)), abs=1e-12)
            assert row[f"{stage} seed001_cv"] == pytest.approx(seed001_cv(*truth_of(features, part)), abs=1e-12)
    first = [run / "stages/stage_1" for run in runs]
    again = ["--first", *map(str, first), "--runs", *map(str, runs), "--out", str(tmp_path / "apart")]
    assert main(["stages", *again]) == 0
    assert (tmp_path / "apart.csv").read_bytes() == (tmp_path / "stages.csv").read_bytes()
    assert main(["stages", "--runs", *map(str, first), "--out", str(tmp_path / "x")]) == 2
    assert "has no stages; give the runs of the first stage as --first" in capsys.readouterr().err
