"""`hms-dist report`: numbers on the page are those of the tables; what is missing is printed; mistakes are refused."""

import base64
import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.special import rel_entr

from hms_dist.canvas.compose import CanvasConfig
from hms_dist.cli import main
from hms_dist.config.load import load, save
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.report.page_gallery import best_and_worst
from hms_dist.results.metric_kinds import KlMetric
from hms_dist.results.metrics import consensus_confusion
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.shards.index import read_index
from hms_dist.train.settings import TrainConfig

METRIC = KlMetric(CLASSES)


@pytest.fixture
def index(shard_set):
    return read_index(shard_set / "index.parquet")


@pytest.fixture
def make_run(small_file, shard_set, index, tmp_path, rng):
    """A run folder as training leaves it, with made-up predictions of fold 0."""

    def make(name: str = "run", seed: int = 0, state: str = "finished", **status: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        words = ["--config", str(small_file), "--shards", str(shard_set), "--out", str(folder), "--seed", str(seed)]
        config = load(TrainConfig, words)
        save(config, folder / "config.yaml")
        save(config.canvas, folder / "canvas.yaml")
        command = ["train.py", "--config", "configs/train/demo.yaml", "--config=x/small.yaml", "--seed", "1"]
        (folder / "environment.json").write_text(json.dumps({"command": command}))
        (folder / "status.json").write_text(json.dumps({"state": state, "time": 1.0, **status}))
        rows = np.flatnonzero(index.folds(3) == 0)
        found = rng.dirichlet(np.ones(6), len(rows))
        truth, counts = index.targets[rows], consensus_confusion(index.targets[rows], found).tolist()
        lines = [
            {"epoch": 0, "step": 1, "loss": 1.5, "lr": 0.001, "images_per_s": 10.0, "data_wait_share": 0.25},
            {"epoch": 0, "step": 2, "loss": 1.2, "lr": 0.002, "images_per_s": 40.0, "data_wait_share": 0.05},
            {"epoch": 0, "step": 2, **METRIC.monitors(truth, found), "val_confusion": counts},
            {"epoch": 1, "step": 4, "loss": 1.1, "lr": 0.001, "images_per_s": 30.0, "data_wait_share": 0.0},
            {"epoch": 1, "step": 4, **METRIC.monitors(truth, np.roll(truth, 1, axis=1)), "val_confusion": counts},
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        table = prediction_table(index.frame.iloc[rows], np.zeros(len(rows), int), found)
        write_predictions(folder / "predictions.parquet", table)
        return folder

    return make


@pytest.fixture
def report(shard_set, tmp_path):
    """The page that the command writes."""

    def write(*words: object) -> str:
        out = tmp_path / "report.html"
        assert main(["report", "--out", str(out), *map(str, words)]) == 0
        return out.read_text()

    return write


def cells(page: str, caption: str) -> list[list[str]]:
    """The text of a table's cells, line by line, without its head."""
    body = re.search(rf"<caption>{re.escape(caption)}</caption>.*?<tbody>(.*?)</tbody>", page, re.S)
    assert body, caption
    lines = re.findall(r"<tr>(.*?)</tr>", body[1], re.S)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", line)] for line in lines]


def found_in(run: Path, index) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of votes, predictions and numbers of votes of a run's rows."""
    table = pd.read_parquet(run / "predictions.parquet").merge(index.frame, on="key", suffixes=("", "_"))
    votes = table[[f"{name}_vote" for name in CLASSES]].to_numpy(float)
    return votes / votes.sum(1, keepdims=True), table[list(CLASSES)].to_numpy(), votes.sum(1)


def test_the_table_of_runs(make_run, report, index) -> None:
    run, other = make_run("one", seed=5), make_run("two", seed=6, state="failed", message="the loss is nan")
    page = report("--runs", run, other)
    truth, found, _ = found_in(run, index)
    best = rel_entr(truth, found).sum(1).mean()
    first, second = cells(page, "Runs")
    assert first[:7] == ["one", "demo + small", "5", "0", f"{best:.4f}", "1", "2 of 2"]
    assert first[7:] == ["test_efficientnet", "30.0", "10.0%", "\N{EM DASH}", "finished"]
    assert second[2] == "6"
    assert second[-1] == "failed"
    assert "two, failed: the loss is nan" in page


def test_scores_of_runs_and_tables(make_run, report, index, shard_set, recordings) -> None:
    runs = [make_run("one"), make_run("two")]
    truth_file = recordings / "truth.parquet"
    page = report("--runs", *runs, "--shards", shard_set, "--truth", truth_file, "--gallery", 0)
    oracle = pd.read_parquet(truth_file).set_index(["eeg_id", "eeg_sub_id"])[list(CLASSES)]
    tables = [found_in(run, index) for run in runs]
    keys = pd.read_parquet(runs[0] / "predictions.parquet").set_index(["eeg_id", "eeg_sub_id"]).index
    lines = iter(cells(page, "KL by number of votes"))
    for name, (truth, found, voters) in zip(("one", "two"), tables, strict=True):
        for rows, mask in (("all", voters > 0), ("votes 1 to 7", voters < 8), ("votes from 8", voters > 7)):
            if not mask.any():
                continue
            model = rel_entr(truth, found).sum(1)[mask].mean()
            constant = rel_entr(truth, truth.mean(0)).sum(1)[mask].mean()
            best = rel_entr(truth, np.clip(oracle.loc[keys].to_numpy(), 1e-15, 1 - 1e-15)).sum(1)[mask].mean()
            gap = (constant - model) / (constant - best)
            numbers = [f"{model:.4f}", f"{constant:.4f}", f"{best:.4f}", f"{gap:.1%}"]
            assert next(lines) == [name, rows, str(mask.sum()), *numbers, "yes"]
    kls = [rel_entr(truth, found).sum(1).mean() for truth, found, _ in tables]
    mean = rel_entr(tables[0][0], (tables[0][1] + tables[1][1]) / 2).sum(1).mean()
    expected = [f"{np.mean(kls):.4f}", f"{min(kls):.4f}", f"{mean:.4f}", f"{min(kls) - mean:+.4f}"]
    assert cells(page, "Gain of ensembles") == [["one, two", "plain mean", str(len(tables[0][0])), *expected]]


def test_classes_and_confusion(make_run, report, index, shard_set, tmp_path) -> None:
    run = make_run()
    table = tmp_path / "mean.parquet"
    pd.read_parquet(run / "predictions.parquet").sample(frac=1, random_state=1).to_parquet(table)
    words = ["--runs", run, "--predictions", table, run / "predictions.parquet", "--shards", shard_set]
    page = report(*words, "--gallery", 0)
    assert report(*words, "--gallery", 0) == page  # intervals repeat
    truth, found, _ = found_in(run, index)
    parts = rel_entr(truth, found).mean(0)
    expected = [f"{part:.4f}" for part in [*parts, parts.sum()]]
    *own, constant = cells(page, "Part of each class in the KL")
    assert own == [["run", *expected], ["mean.parquet", *expected]]
    parts = rel_entr(truth, truth.mean(0)).mean(0)
    assert constant == ["constant", *(f"{part:.4f}" for part in [*parts, parts.sum()])]
    counts = pd.crosstab(truth.argmax(1), found.argmax(1)).reindex(range(6), axis=0).reindex(range(6), axis=1)
    for name in ("run", "mean.parquet"):
        shown = [list(map(int, line[1:])) for line in cells(page, f"Confusion of {name}")]
        np.testing.assert_array_equal(shown, counts.fillna(0).to_numpy())


def test_the_gallery_shows_the_best_and_the_worst_rows(make_run, report, index, shard_set) -> None:
    pytest.importorskip("matplotlib")
    run = make_run()
    page = report("--runs", run, "--shards", shard_set, "--gallery", 1)
    truth, found, voters = found_in(run, index)
    loss = rel_entr(truth, found).sum(1)
    keys = pd.read_parquet(run / "predictions.parquet")["key"].to_numpy()
    eegs = np.array([key.split("-")[0] for key in keys])
    of = truth.argmax(1)
    shown = re.findall(r"<h3>(\w+), (\w+) 1: ([\d-]+)</h3>\s+<p>KL ([\d.]+), votes: (\d+)", page)
    marks = re.findall(r'<article data-classes="(\w+)" data-kind="(\w+)" data-right="(\w+)">', page)
    expected = []
    for number, name in enumerate(CLASSES):
        mine = np.flatnonzero(of == number)
        best, worst = best_and_worst(loss[mine], eegs[mine], 1)
        expected += [(name, "worst", mine[place]) for place in worst] + [(name, "best", mine[place]) for place in best]
    places = [place for _, _, place in expected]
    assert [(item[0], item[1]) for item in shown] == [(name, kind) for name, kind, _ in expected]
    assert [item[2] for item in shown] == list(keys[places])
    assert [item[3] for item in shown] == [f"{loss[place]:.4f}" for place in places]
    assert [int(item[4]) for item in shown] == list(voters[places])
    right = ["right" if found[place].argmax() == of[place] else "wrong" for place in places]
    assert marks == [(name, kind, word) for (name, kind, _), word in zip(expected, right, strict=True)]
    rows = cells(page, f"Votes and prediction of {keys[places[0]]}")
    assert [line[2:] for line in rows] == [
        [f"{share:.1%}", f"{guess:.1%}"] for share, guess in zip(truth[places[0]], found[places[0]], strict=True)
    ]
    assert page.count('<img alt="Canvas of ') == page.count('<img alt="Panels of ') == len(places)
    assert "Not shown: attributions: " in page  # the run has no weights


def test_what_is_missing_is_stated(make_run, report, shard_set) -> None:
    run = make_run()
    (run / "metrics.jsonl").unlink()
    (run / "status.json").unlink()
    page = report("--runs", run)
    assert cells(page, "Runs")[0][4] == "\N{EM DASH}"
    assert cells(page, "Runs")[0][-1] == "unknown"
    for words in (
        "training loss: no run has logged it.",
        "no run has validated, and no table could be scored.",
        "it needs predictions beside votes; give --shards",
        "no two tables predict the same rows.",
        "it needs a run that has validated and the shard set",
    ):
        assert f"Not shown: {words}" in page
    assert "<svg" not in page
    page = report("--runs", run, "--shards", shard_set, "--gallery", 0)
    assert {len(line) for line in cells(page, "KL by number of votes")} == {6}


def test_a_canvas_that_the_shard_set_cannot_fill(make_run, report, shard_set, tmp_path) -> None:
    run = make_run()
    text = "{height: 32, width: 32, placements: [{panel: other, top: 0, left: 0, height: 32, width: 32}]}"
    (tmp_path / "c.yaml").write_text(text)
    save(load(CanvasConfig, ["--config", str(tmp_path / "c.yaml")]), run / "canvas.yaml")
    assert "the canvas of run cannot be drawn (canvas: panel &#39;other&#39; is not in the shard set" in report(
        "--runs", run, "--shards", shard_set
    )


def test_stages_precede_their_run_and_names_distinguish_runs(make_run, report) -> None:
    run, other = make_run("a/run"), make_run("b/run")
    make_run("a/run/stages/first")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "stages.yaml").write_text(json.dumps({**config, "stages": [{"name": "first"}, {"name": "second"}]}))
    page = report("--runs", run, other)
    assert [line[0] for line in cells(page, "Runs")] == ["stages/first", "a/run", "b/run"]


def test_names_are_text_and_nothing_is_loaded(make_run, report) -> None:
    page = report("--runs", make_run('<b>&x" y='))
    assert cells(page, "Runs")[0][0] == "&lt;b&gt;&amp;x&#34; y="
    assert "<b>" not in page
    assert 'x" y=' not in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert page.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "runs: nothing to report; give --runs, --predictions or --windows"),
        ("--runs RUN --out x.htm", "out: expected a name ending in .html, found x.htm"),
        ("--runs RUN --out no/x.html", "no: no such folder; make it, or choose another --out"),
        ("--runs RUN --out SHUT.html", "is a folder; choose another --out"),
        ("--runs RUN RUN", "runs: one of them is given twice; name each once"),
        ("--runs RUN --gallery -1", "gallery: expected 0 or more, found -1"),
        ("--runs RUN/..", "not a run folder (no config.yaml); check --runs"),
        ("--predictions a.parquet", "predictions: comparing them with votes needs the shard set; give --shards"),
        ("--predictions a.csv --shards SET", "predictions: expected names ending in .parquet, found a.csv"),
        ("--predictions a.parquet --shards SET", "a.parquet: no such file; check the path"),
        ("--runs RUN --truth t.parquet", "truth: comparing it with votes needs the shard set; give --shards"),
        ("--runs RUN --shards SET --truth TRUTH", "give the truth of the data it was rendered from"),
        ("--runs RUN --shards SET --truth OTHER", "is a table of predictions; expected the truth.parquet of simulated"),
        ("--predictions OTHER --shards SET", "row 1-0 is not in"),
        ("--runs CHANGED --shards SET", "predictions.parquet: 1 rows of its fold are missing and 0 are of other folds"),
        ("--runs ELSEWHERE --shards SET", "elsewhere: was trained on another shard set than"),
    ],
)
def test_mistakes_are_refused(make_run, shard_set, tmp_path, capsys, words: str, message: str) -> None:
    other = tmp_path / "other.parquet"
    ids = pd.DataFrame({"key": ["1-0"], "eeg_id": [1], "eeg_sub_id": [0]})
    write_predictions(other, prediction_table(ids, None, np.full((1, 6), 1 / 6)))
    pd.read_parquet(other).drop(columns="fold").to_parquet(tmp_path / "foreign.parquet")
    (tmp_path / "shut.html").mkdir()
    changed, elsewhere = make_run("changed"), make_run("elsewhere")
    table = pd.read_parquet(changed / "predictions.parquet")
    table.iloc[1:].to_parquet(changed / "predictions.parquet")
    (elsewhere / "best").mkdir()
    (elsewhere / "best/meta.json").write_text('{"shards": "another"}')
    names = {
        "CHANGED": changed,
        "ELSEWHERE": elsewhere,
        "SHUT": tmp_path / "shut",
        "RUN": make_run(),
        "SET": shard_set,
        "OTHER": other,
        "TRUTH": tmp_path / "foreign.parquet",
    }
    for name, path in names.items():
        words = words.replace(name, str(path))
    given = words.split() if "--out" in words else [*words.split(), "--out", str(tmp_path / "r.html")]
    assert main(["report", *given]) == 2
    line = capsys.readouterr().err.strip()
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("status.json", "status.json: not readable as JSON"),
        ("stages.yaml", "stages.yaml: not valid YAML"),
        ("predictions.parquet", "predictions.parquet: not a readable table"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(make_run, shard_set, tmp_path, capsys, name: str, message: str) -> None:
    run = make_run()
    (run / name).write_text("{")
    words = ["--runs", str(run), "--shards", str(shard_set), "--out", str(tmp_path / "r.html")]
    assert main(["report", *words]) == 2
    assert message in capsys.readouterr().err
    for content in ("", "[1]"):
        (run / name).write_text(content)
        assert main(["report", *words]) == 2
        assert f"{name}: " in capsys.readouterr().err


def test_the_gallery_needs_matplotlib(make_run, shard_set, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["report", "--runs", str(make_run()), "--shards", str(shard_set), "--out", str(tmp_path / "r.html")]
    assert main(words) == 2
    assert "pip install 'hms-dist[report]', or give --gallery 0" in capsys.readouterr().err
    assert main([*words, "--gallery", "0"]) == 0
