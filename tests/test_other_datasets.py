"""Data sets other than HMS through the whole chain, by the commands: four classes with votes, and two that are yes, no
or unknown. The recordings are those of other tests; only their labels differ."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from hms_dist.datasets import HMS, Dataset, Submission, read_dataset, write_dataset
from hms_dist.recordings.simulator.write import write_tables
from hms_dist.results.lineage import read_sources
from hms_dist.results.metric_kinds import metric_of
from hms_dist.results.predictions import dataset_of_table, read_predictions, write_predictions
from hms_dist.shards.index import open_set

SHARES = Dataset(
    name="four",
    classes=("ictal", "periodic", "rhythmic", "calm"),
    submission=Submission(key="recording", column="s{number}"),
    label_texts={
        "seizure": "ictal", "lpd": "periodic", "gpd": "periodic", "lrda": "rhythmic", "grda": "rhythmic",
        "other": "calm",
    },
)  # fmt: skip
YES_NO = Dataset(
    name="two",
    classes=("epileptic", "slowing"),
    target="yes_no",
    label_texts={
        "seizure": "epileptic", "lpd": "epileptic", "gpd": "epileptic", "lrda": "slowing", "grda": "slowing",
        "other": "slowing",
    },
)  # fmt: skip
PANELS = """
panels:
  eeg_spectrogram: {class_path: EegSpectrogram}
samples_per_shard: 16
"""
TRAIN = """
canvas:
  height: 64
  width: 64
  placements:
    - {panel: eeg_spectrogram, arrangement: time_down, resize: area, top: 0, left: 0, height: 64, width: 64,
       normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
model: {name: test_efficientnet}
num_folds: 3
epochs: 1
global_batch: 4
group_size: 2
"""


@pytest.fixture(scope="module")
def relabelled(recordings, tmp_path_factory) -> Callable[[Dataset], Path]:
    """The recordings with the labels of another data set, as `hms-dist simulate --dataset` writes them."""

    def make(dataset: Dataset) -> Path:
        folder = tmp_path_factory.mktemp(dataset.name)
        for name in ("train_eegs", "train_spectrograms"):
            (folder / name).symlink_to(recordings / name)
        rows = pd.read_csv(recordings / "train.csv").merge(pd.read_parquet(recordings / "truth.parquet"))
        write_tables(folder, rows.to_dict("records"), dataset, seed=7)
        return folder

    return make


class Chain:
    """The folder of a chain: `data`, `set`, `run-0` to `run-2`, tables."""

    def __init__(self, folder: Path, data: Path, dataset: Dataset, call: Callable[..., None], *train: str) -> None:
        self.folder, self.data, self.dataset, self.call = folder, data, dataset, call
        (folder / "render.yaml").write_text(PANELS)
        (folder / "train.yaml").write_text(TRAIN)
        call("render", "--config", folder / "render.yaml", "--data", data, "--out", folder / "set")
        self.words = ["--config", folder / "train.yaml", "--shards", folder / "set", *train]
        for fold in range(3):
            call("train", *self.words, "--fold", fold, "--out", folder / f"run-{fold}")
        self.runs = [folder / f"run-{fold}" for fold in range(3)]
        self.manifest, self.index = open_set(folder / "set")

    def evaluations(self, run: Path) -> list[dict]:
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if "val_confusion" in line]

    def second_table(self, path: Path, rng: np.random.Generator) -> Path:
        """Another model's table of the same rows and models: noisier."""
        table = read_predictions(self.folder / "oof.parquet", self.dataset)
        names = list(self.dataset.classes)
        noisy = 0.5 * table[names].to_numpy() + 0.5 * rng.dirichlet(np.ones(len(names)), len(table))
        write_predictions(path, table.assign(**dict(zip(names, noisy.T, strict=True))), self.sources, self.dataset)
        return path

    @property
    def sources(self):
        return read_sources(self.folder / "oof.parquet")

    def scored(self, path: Path, *words: object) -> dict:
        out = self.folder / "scores.json"
        given = ["--predictions", path, "--labels", self.folder / "set", "--num_draws", 20, "--out", out]
        self.call("score", *given, "--truth", self.data / "truth.parquet", *words)
        return json.loads(out.read_text())

    def through(self, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
        """Run the commands that both kinds share after the training, from oof to verify."""
        folder, names = self.folder, list(self.dataset.classes)
        call, shards, runs = self.call, self.folder / "set", self.runs
        call("verify", "--shards", shards, "--data", self.data)
        for run in runs:
            assert read_dataset(run) == self.dataset.stored
        call("oof", "--runs", *runs, "--out", folder / "oof.parquet")
        assert dataset_of_table(folder / "oof.parquet") == self.dataset.stored
        assert read_predictions(folder / "oof.parquet")["key"].tolist() == self.index.frame["key"].tolist()
        for out, more in (
            ("all.parquet", ["--shards", shards]),
            ("again.parquet", ["--data", self.data, "--split", "train"]),
        ):
            call("predict", "--run", runs[0], "--out", folder / out, *more)
        found, again = (
            read_predictions(folder / out).set_index("key")[names] for out in ("all.parquet", "again.parquet")
        )
        np.testing.assert_allclose(found, again.loc[found.index], atol=1e-9)
        tables = [folder / "oof.parquet", self.second_table(folder / "second.parquet", rng)]
        labels = ["--labels", shards]
        for method in ("mean", "geometric"):
            out = folder / f"{method}.parquet"
            call("ensemble", "--predictions", *tables, "--weights", "fit", *labels, "--method", method, "--out", out)
            call(
                "ensemble", "--predictions", *tables, "--weights", out.with_suffix(".json"),
                "--out", folder / "applied.parquet",
            )  # fmt: skip
        small = ["--model.max_epochs", "5", "--model.hidden", "[4]"]
        call("stack", "--predictions", *tables, *labels, "--out", folder / "stack", *small)
        call("stack", "--predictions", *tables, "--apply", folder / "stack", "--out", folder / "stacked.parquet")
        metric = metric_of(self.dataset)
        for name in ("oof", "mean", "geometric", "stacked"):
            table = (
                read_predictions(folder / f"{name}.parquet", self.dataset).set_index("key").loc[self.index.frame["key"]]
            )
            scores = self.scored(folder / f"{name}.parquet", "--rows", "all")
            assert scores[metric.name] == pytest.approx(metric.value(self.index.targets, table[names].to_numpy()))
            entry = scores["strata"]["all"]
            assert entry[f"oracle_{metric.name}"] < entry[f"constant_{metric.name}"]
            assert scores[f"{metric.name}"] == entry[metric.name]
        call(
            "report", "--runs", *runs, "--predictions", tables[0], folder / "mean.parquet", "--shards", shards,
            "--truth", self.data / "truth.parquet", "--out", folder / "report.html", "--gallery", "1",
        )  # fmt: skip
        page = re.sub('base64,[^"]*', "", (folder / "report.html").read_text())  # pictures hold any three letters
        title = metric.title[:1].upper() + metric.title[1:]
        for text in (
            f"{title} by class",
            f"Validation {metric.title}",
            f"best {metric.title}",
            f"Lowest {metric.title}",
        ):
            assert text in page, text
        assert page.count("Confusion of ") == 2 * 5  # three runs and two tables, each with a caption and a label
        assert "Not shown" not in page
        assert all(name in page for name in names)
        assert not any(name in page for name in HMS.classes[1:5])
        capsys.readouterr()
        call("status", "--runs", folder, "--json")
        states = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        assert [state[f"best_{metric.name}"] is not None for state in states] == [True] * 3
        call(
            "show",
            "--shards",
            shards,
            "--out",
            folder / "picture.png",
            "--canvas",
            folder / "run-0/canvas.yaml",
            "--axes",
        )

    def submission(self) -> pd.DataFrame:
        """A submission of the first row of each EEG."""
        table = read_predictions(self.folder / "oof.parquet").drop_duplicates("eeg_id")
        write_predictions(self.folder / "submission.csv", table, (), self.dataset)
        again = read_predictions(self.folder / "submission.csv", self.dataset).set_index("eeg_id")
        np.testing.assert_allclose(again.loc[table["eeg_id"]], table.set_index("eeg_id")[list(self.dataset.classes)])
        return pd.read_csv(self.folder / "submission.csv")


@pytest.mark.slow
def test_four_classes_go_through_the_chain(relabelled, call, tmp_path, rng, capsys) -> None:
    chain = Chain(tmp_path, relabelled(SHARES), SHARES, call)
    assert chain.manifest.dataset == SHARES.stored
    assert chain.index.votes.shape == (len(chain.index), 4)
    np.testing.assert_allclose(chain.index.targets.sum(axis=1), 1)
    table = pd.read_csv(chain.data / "train.csv")
    assert [name for name in table if name.endswith("_vote")] == list(SHARES.vote_columns)
    (line,) = chain.evaluations(chain.runs[0])
    assert line["val_kl"] == pytest.approx(sum(line[f"val_kl_{name}"] for name in SHARES.classes))
    assert np.array(line["val_confusion"]).shape == (4, 4)
    chain.through(rng, capsys)
    out = tmp_path / "labels.parquet"
    predictions = [chain.runs[0] / "predictions.parquet", tmp_path / "all.parquet"][1:]
    call("pseudolabel", "--predictions", *predictions, "--shards", tmp_path / "set", "--out", out)
    pseudo = read_predictions(out)
    np.testing.assert_allclose(pseudo[list(SHARES.classes)].sum(axis=1), 1)
    call("train", *chain.words, "--overlay.file", out, "--overlay.max_votes", "7", "--out", tmp_path / "second")
    assert chain.submission().columns.tolist() == ["recording", "s0", "s1", "s2", "s3"]
    write_dataset(chain.data, replace(SHARES, annotated_s=5.0))
    capsys.readouterr()
    call("render", "--config", tmp_path / "render.yaml", "--data", chain.data, "--out", tmp_path / "set", code=2)
    assert "made from other input (dataset.annotated_s: 5.0, was 10.0); --rebuild" in capsys.readouterr().err


@pytest.mark.slow
def test_classes_that_are_yes_no_or_unknown_go_through_the_chain(relabelled, call, tmp_path, rng, capsys) -> None:
    chain = Chain(tmp_path, relabelled(YES_NO), YES_NO, call, "--loss.name", "bce_known")
    targets = chain.index.targets
    table = pd.read_csv(chain.data / "train.csv").set_index(["eeg_id", "eeg_sub_id"])
    expected = table.loc[list(zip(chain.index.ids("eeg_id"), chain.index.ids("eeg_sub_id"), strict=True))]
    np.testing.assert_array_equal(targets, expected[list(YES_NO.vote_columns)])
    assert 0.1 < np.isnan(targets).mean() < 0.6
    (line,) = chain.evaluations(chain.runs[0])
    assert {"val_log_loss", "val_auroc", "val_auprc", "val_balanced_accuracy", "val_lwlrap"} <= line.keys()
    assert json.loads((chain.runs[0] / "status.json").read_text())["best"]["val_log_loss"] == line["val_log_loss"]
    chain.through(rng, capsys)
    scores = chain.scored(tmp_path / "oof.parquet", "--threshold", "0.3")
    assert scores["threshold"] == 0.3
    assert scores["classes"]["slowing"]["num_yes"] == (targets[:, 1] == 1).sum()
    out = tmp_path / "labels.parquet"
    call("pseudolabel", "--predictions", tmp_path / "all.parquet", "--shards", tmp_path / "set", "--out", out)
    pseudo = read_predictions(out).set_index("key")[list(YES_NO.classes)]
    mine = targets[chain.index.frame["key"].isin(pseudo.index)]
    assert len(pseudo) == np.isnan(targets).any(axis=1).sum()
    known = np.isfinite(mine)
    np.testing.assert_array_equal(pseudo.to_numpy()[known], mine[known])
    given = ["--overlay.file", out, "--overlay.missing", "votes", "--selection.min_votes", "0"]
    call("train", *chain.words, *given, "--out", tmp_path / "second")
    assert chain.submission().columns.tolist() == ["eeg_id", *YES_NO.vote_columns]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("dataset", [SHARES, YES_NO], ids=lambda dataset: dataset.name)
def test_searches_grids_and_comparisons_go_by_the_metric_of_the_set(
    dataset, relabelled, call, launcher, repository, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(repository))
    metric, loss = metric_of(dataset), "kl" if dataset.target == "shares" else "bce_known"
    others = ["seed001_cv"] if dataset.target == "shares" else ["auroc", "auprc"]
    data, launch = relabelled(dataset), ["--launch.words", launcher]
    (tmp_path / "render.yaml").write_text(PANELS)
    (tmp_path / "train.yaml").write_text(f"{TRAIN}loss: {{name: {loss}}}\n")
    (tmp_path / "space.yaml").write_text("lr: {sets: optim.lr, low: 0.001, high: 0.01, log: true}\n")
    call("render", "--config", tmp_path / "render.yaml", "--data", data, "--out", tmp_path / "set")
    given = ["--shards", tmp_path / "set", *launch]
    configs = ["--configs", tmp_path / "train.yaml"]
    call(
        "search", *given, *configs, "--space", tmp_path / "space.yaml", "--out", tmp_path / "study",
        "--num_trials", 2, "--num_startup", 3, "--folds", "[0]",
    )  # fmt: skip
    trials = pd.read_csv(tmp_path / "study/trials.csv")
    best = (tmp_path / "study/best.yaml").read_text().splitlines()[0]
    assert best.endswith(f"mean best validation {metric.title} {trials[metric.monitor].min():.4f}.")
    canvas = tmp_path / "canvas.yaml"
    canvas.write_text(yaml.safe_dump(yaml.safe_load(TRAIN)["canvas"]))
    models = ["--models", "test_efficientnet", "--canvases", canvas]
    (tmp_path / "stages.yaml").write_text("stages: [{name: all}, {name: later, init: best:all}]\n")
    recipes = [*configs, tmp_path / "stages.yaml"] if dataset is SHARES else configs
    call("ablation", *given, *recipes, *models, "--out", tmp_path / "ablation")
    table = pd.read_csv(tmp_path / "ablation/ablation.csv")
    assert table["model"].tolist() == ["test_efficientnet", "constant"]
    assert {metric.name, *others} <= set(table)
    runs = sorted((tmp_path / "ablation/runs").glob("*/fold-*"))
    first = [] if dataset is SHARES else ["--first", *runs]
    call("stages", *first, "--runs", *runs, "--out", tmp_path / "stages")
    stages = pd.read_csv(tmp_path / "stages.csv")
    names = ["all", "later"] if dataset is SHARES else ["stage_1", "stage_2"]
    assert [f"{stage} {metric.name}" for stage in names] == list(stages.columns[2:4])
    assert stages[f"{names[1]} {metric.name}"].iloc[-1] == pytest.approx(table[metric.name][0])
