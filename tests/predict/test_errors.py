"""Every line of the second table of docs/errors.md: the mistake is made, and the line compared."""

import re
from pathlib import Path

import numpy as np
import pytest

ROW = re.compile(r"^\| ([^|]+?) \| `(.+)` \|$", re.MULTILINE)
TEXT = (Path(__file__).parents[2] / "docs/errors.md").read_text()
TABLE = dict(ROW.findall(TEXT[TEXT.index("## From one run to many") : TEXT.index("## Chains of steps")]))


MISTAKES = {
    "two equal seeds": lambda d: d.grid("--seeds", "[1, 2, 1]"),
    "two runs for one folder": lambda d: d.grid("--seeds", "[1, 2]", "--out", "runs/{fold}"),
    "an unknown place in a pattern": lambda d: d.grid("--out", "runs/{model}"),
    "a form in a pattern that the fold has not": lambda d: d.grid("--folds", "none", "--out", "runs/{fold:02d}"),
    "an option that the grid sets": lambda d: d.grid(options='{"seed": 1}'),
    "a number beyond the grid": lambda d: d.grid("--number", "3"),
    "a training program that is not there": lambda d: d.grid("--launch.program", "nowhere.py"),
    "a launcher that is not there": lambda d: d.grid("--launch.words", "[nowhere]"),
    "a grid of an unknown model": lambda d: d.grid(options='{"model.name": "efficientnet_x9"}'),
    "a grid over a run that finished on other data": lambda d: d.finished_elsewhere(),
    "what an ablation compares, as an option": lambda d: d.ablation("--canvases", "a", "--options", "{canvas: b}"),
    "two canvases of one name": lambda d: d.ablation("--canvases", "x/a.yaml", "y/a.yaml"),
    "a search for an unknown option": lambda d: d.search({"sets": "optim.lrate", "low": 0.1, "high": 1}),
    "a range upside down": lambda d: d.search({"sets": "optim.lr", "low": 1, "high": 0.1}),
    "a range and choices": lambda d: d.search({"sets": "optim.lr", "low": 1, "high": 2, "choices": [1]}),
    "a fold twice in a search": lambda d: d.search({"sets": "seed", "choices": [1]}, "--folds", "[0, 0]"),
    "a parameter of the wrong type": lambda d: d.search({"sets": "optim.lr", "low": "a", "high": 1}),
    "a search whose journal is damaged": lambda d: d.search_again("journal.log"),
    "a search whose record is damaged": lambda d: d.search_again("search.json"),
    "joining a run that is not finished": lambda d: d.oof(d.folder),
    "joining some of the folds": lambda d: d.oof(d.trained),
    "joining a fold twice": lambda d: d.oof(d.trained, d.trained),
    "a table of stages of runs without": lambda d: d.command("stages", "--runs", d.trained, "--out", d.folder / "t"),
    "a table of stages with an ending": lambda d: d.command("stages", "--runs", d.trained, "--out", d.folder / "t.csv"),
    "two stages of one name": lambda d: d.stages({"name": "a"}, {"name": "a"}),
    "a stage after one that is not there": lambda d: d.stages({"name": "a", "init": "best:b"}),
    "a stage after the best weights of no fold": lambda d: d.stages(
        {"name": "a"}, {"name": "b", "init": "best:a"}, fold="none"
    ),
    "a stage of pseudo-labels under smoothed votes": lambda d: d.stages(
        {"name": "a"}, {"name": "b", "overlay": {"file": "p.parquet"}}, smooth_below="8"
    ),
    "other options for a stage that is done": lambda d: d.stages_again({"name": "a", "epochs": 3}, {"name": "b"}),
    "other stages than the run began with": lambda d: d.stages_again({"name": "b"}, {"name": "c"}),
    "an unknown augmentation": lambda d: d.augment("Sharpen"),
    "an unknown option of an augmentation": lambda d: d.augment("MixUp", beta=1),
    "an augmentation larger than the canvas": lambda d: d.augment("MotionBlur", size=[3, 255]),
    "mixing in groups of one row": lambda d: d.train("--group_size=1", '--augment.steps=[{"class_path": "MixUp"}]'),
    "exporting into a run folder": lambda d: d.command("export", "--run", d.trained, "--out", d.trained),
    "predicting nothing": lambda d: d.predict(),
    "predicting a clip of audio with a run on EEG": lambda d: d.predict("--recording", d.write("song.wav", "")),
    "an option of EEG with a clip of audio": lambda d: d.predict("--recording", "song.wav", "--map", "A1=T3"),
    "predicting a folder without test.csv": lambda d: d.predict("--data", Path(d.write("train.csv", "")).parent),
    "predicting with weights that are not there": lambda d: d.predict_set("--checkpoint", "step-00000099"),
    "predicting when the best weights are gone": lambda d: d.without_best(),
    "predicting with a mirror image twice": lambda d: d.predict_set("--tta", "[flip, flip]"),
    "predictions in another format": lambda d: d.predict_set("--out", d.folder / "p.txt"),
    "a submission of several rows per EEG": lambda d: d.predict_set("--out", d.folder / "p.csv"),
    "predictions into no folder": lambda d: d.predict_set("--out", d.folder / "no/p.parquet"),
    "pseudo-labels from another shard set": lambda d: d.pseudolabel(d.predictions("a", 0, key="1-1")),
    "pseudo-labels from too few rows": lambda d: d.pseudolabel(
        d.predictions("a", 0, rows=np.flatnonzero(d.index.num_voters > 7))
    ),
    "pseudo-labels of no EEG": lambda d: d.pseudolabel(d.predictions("a", 0), "--max_other", "1.0e-9"),
    "pseudo-labels by models that saw the fold": lambda d: d.train("--overlay.file", d.predictions("a", 1)),
    "pseudo-labels by unknown models": lambda d: d.train("--overlay.file", d.predictions("a")),
    "pseudo-labels by a model that learned from unknown ones": lambda d: d.train(
        "--overlay.file", d.predictions("b", 0, unknown_teacher=str(d.predictions("a")))
    ),
    "pseudo-labels that lack rows": lambda d: d.train("--overlay.file", d.predictions("a", 0, rows=[0])),
    "a filter by models that saw the rows": lambda d: d.train(
        "--filters.predictions", f"[{d.predictions('a', 0, folds=d.index.folds(3))}]", "--filters.model_loss", "1"
    ),
    "tables of different rows": lambda d: d.ensemble([d.predictions("a", 0), d.predictions("b", 0, rows=[0, 1])]),
    "a table twice": lambda d: d.ensemble([d.predictions("a", 0)] * 2),
    "a table without rows": lambda d: d.ensemble([d.corrupted(lambda t: t.iloc[:0])]),
    "a folder in place of a table": lambda d: d.command("score", "--predictions", d.folder, "--labels", d.shards),
    "a table with half a fold": lambda d: d.ensemble([d.corrupted(lambda t: t.assign(fold=0.5))]),
    "a table cut short": lambda d: d.ensemble([d.cut(d.predictions("a", 0))]),
    "a table with a row that is not a probability distribution": lambda d: d.ensemble(
        [d.corrupted(lambda t: t.assign(gpd=t["gpd"].where(t.index > 0)))]
    ),
    "a table with a row twice": lambda d: d.ensemble([d.corrupted(lambda t: t.iloc[[0, 1, 0]])]),
    "an ensemble over one of its tables": lambda d: d.ensemble(
        [d.predictions("b", 0), d.predictions("a", 0)], "--out", d.folder / "a.parquet"
    ),
    "held-out predictions over a run's own": lambda d: d.command(
        "oof", "--runs", d.trained, "--out", d.trained / "predictions.parquet"
    ),
    "a prediction over a run's own": lambda d: d.predict_set("--out", d.trained / "predictions.parquet"),
    "an ensemble into a folder": lambda d: d.ensemble([d.predictions("a", 0)], "--out", d.made("into.parquet")),
    "an unknown way to pool": lambda d: d.ensemble([d.predictions("a", 0)], "--method", "median"),
    "fewer weights than tables": lambda d: d.ensemble(
        [d.predictions("c", 0), d.predictions("e", 0)], "--weights", d.shortened(d.fitted())
    ),
    "a stack into a folder of something else": lambda d: d.stack(
        "--predictions", d.out_of_fold("a"), "--labels", d.shards, "--out", d.folder
    ),
    "an ensemble over the index of a shard set": lambda d: d.ensemble(
        [d.out_of_fold("a")], "--out", d.shards / "index.parquet"
    ),
    "a score over a run's configuration": lambda d: d.command(
        "score", "--predictions", d.out_of_fold("a"), "--labels", d.shards, "--out", d.trained / "config.yaml"
    ),
    "a stack over one of its tables": lambda d: d.stack("--labels", d.shards, "--out", d.made("kept"),
        "--predictions", d.out_of_fold("a").rename(d.folder / "kept/predictions.parquet")),
    "a stack over a file": lambda d: d.stack(
        "--predictions", d.out_of_fold("a"), "--labels", d.shards, "--out", d.write("a.txt", "")
    ),
    "a table of no predictions": lambda d: d.ensemble([Path(d.write("a.txt", "a"))]),
    "submissions into a table": lambda d: d.ensemble([Path(d.write("a.csv", "a"))]),
    "a submission beside several rows per EEG": lambda d: d.ensemble(
        [d.predictions("a", 0), d.submission("b.csv")], "--out", d.folder / "out.csv"
    ),
    "a fit to a submission": lambda d: d.fit(d.submission("a.csv")),
    "a fit to rows without a fold": lambda d: d.fit(d.predictions("a", 0)),
    "a fit to rows that a model trained on": lambda d: d.fit(d.predictions("a", 0, folds=d.index.folds(3))),
    "a fit to tables of unknown models": lambda d: d.fit(d.predictions("a", folds=d.index.folds(3))),
    "a fit without votes": lambda d: d.ensemble([d.out_of_fold("a")], "--weights", "fit"),
    "a fit of ranks": lambda d: d.ensemble(
        [d.out_of_fold("a")], "--weights=fit", "--labels", d.shards, "--method=rank_mean"
    ),
    "weights of more models than tables": lambda d: d.ensemble([d.predictions("c", 0)], "--weights", d.fitted()),
    "weights for tables in another order": lambda d: d.ensemble(
        [d.folder / "b.parquet", d.folder / "a.parquet"] if d.fitted() else [], "--weights", d.folder / "out.json"
    ),
    "weights of another method": lambda d: d.ensemble(
        [d.predictions("c", 0), d.predictions("e", 0)], "--weights", d.fitted(), "--method", "mean"
    ),
    "weights that are none": lambda d: d.ensemble([d.predictions("c", 0)], "--weights", d.write("w.json", "{}")),
    "a stack of too few folds": lambda d: d.stack(
        "--labels", d.shards, "--predictions",
        d.predictions("a", 0, folds=np.zeros(2, np.int64), rows=np.flatnonzero(d.index.folds(3) == 0)[:2]),
    ),
    "a stack neither fitted nor applied": lambda d: d.stack("--predictions", d.out_of_fold("a")),
    "a stack that is not there": lambda d: d.stack("--predictions", d.out_of_fold("a"), "--apply", d.folder / "no"),
    "a report of nothing": lambda d: d.report(),
    "a report under another name": lambda d: d.report("--runs", d.trained, "--out", d.folder / "page.pdf"),
    "a report on a folder without a run": lambda d: d.report("--runs", d.folder),
    "a report on predictions without votes": lambda d: d.report("--predictions", d.predictions("a", 0)),
    "a report on windows without times": lambda d: d.report("--windows", d.predictions("a", 0)),
    "a report with recordings, but without windows": lambda d: d.report("--runs", d.trained, "--data", d.folder),
    "a report on a run twice": lambda d: d.report("--runs", d.trained, d.trained),
    "a report on rows of another shard set": lambda d: d.report(
        "--shards", d.shards, "--predictions", d.predictions("a", 0, key="1-1")
    ),
    "a truth that is a prediction": lambda d: d.command(
        "score", "--predictions", d.predictions("a", 0), "--labels", d.shards, "--truth", d.predictions("b", 0)
    ),
    "a truth that is not there": lambda d: d.command(
        "score", "--predictions", d.predictions("a", 0), "--labels", d.shards, "--truth", d.folder / "truth.parquet"
    ),
}  # fmt: skip


def test_the_table_and_the_tests_name_the_same_mistakes():
    assert set(TABLE) == set(MISTAKES)


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_the_line_is_the_one_in_the_table(name, sandbox, repository, capsys, monkeypatch):
    monkeypatch.chdir(repository)
    assert MISTAKES[name](sandbox) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if re.match(r"hms-dist \w+: ", line)]
    assert len(lines) == 1
    expected = ".*".join(map(re.escape, TABLE[name].split("…")))
    assert re.fullmatch(rf"hms-dist \w+: {expected}", lines[0])
