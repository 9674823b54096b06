"""Chains that run: what is done is skipped, what has changed is due again with all that follows from it."""

import json
import os
import re
import threading
from dataclasses import asdict

import pytest
import yaml

from hms_dist.cli import main
from hms_dist.cluster import pipeline
from hms_dist.cluster.pipeline import Pipeline, run
from hms_dist.cluster.pipeline_spec import Chain, PipelineStep, tasks_of
from hms_dist.cluster.task_cache import configurations, made_from, note, open_tasks
from hms_dist.config.load import load
from hms_dist.core.errors import JobError, UserError
from hms_dist.jobs.lease import Owner
from hms_dist.jobs.processes import launched
from hms_dist.results.predictions import read_predictions


@pytest.fixture
def made(tmp_path):
    """A chain a -> b (over a list) -> c (over it) -> d, all done by hand."""
    (tmp_path / "inner.yaml").write_text("x: 1")
    (tmp_path / "c.yaml").write_text("canvas: inner.yaml")
    (tmp_path / "table").write_text("rows")
    steps = (
        PipelineStep(name="a", command=f"a --config {tmp_path}/c.yaml", makes="{out}/a", reads=("{data}/table",)),
        PipelineStep(name="b", command="b {n} --workers {cpus}", makes="{out}/b{n}", each="n", after=("a",)),
        PipelineStep(name="c", command="c {n}", makes="{out}/c{n}", each="n", after=("b",)),
        PipelineStep(name="d", command="d", makes="{out}/d", after=("c",)),
    )
    chain = Chain(data=str(tmp_path), out=tmp_path, lists={"n": (0, 1)}, steps=steps)
    for every in tasks_of(chain).values():
        for task in every:
            origin = made_from(task)
            task.makes.write_text(task.title)
            note(task, chain.out, origin)
    return chain


def left(chain):
    return {name: [task.number for task in every] for name, every in open_tasks(tasks_of(chain), chain.out).items()}


def test_a_chain_that_is_done_has_nothing_left(made):
    assert left(made) == {}


ALL = {"a": [0], "b": [0, 1], "c": [0, 1], "d": [0]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / "inner.yaml").write_text("x: 2"), ALL),
        (lambda folder: (folder / "table").write_text("more rows"), ALL),
        (lambda folder: (folder / "b1").unlink(), {"b": [1], "c": [1], "d": [0]}),
        (lambda folder: (folder / "c0").write_text("by hand"), {"c": [0], "d": [0]}),
        (lambda folder: (folder / "steps/d-0.json").write_text("{"), {"d": [0]}),
    ],
)
def test_what_changed_is_due_with_all_that_follows(made, tmp_path, change, expected):
    change(tmp_path)
    assert left(made) == expected


def test_configuration_files_are_found_through_one_another(repository, tmp_path):
    (tmp_path / "canvas.yaml").touch()
    (tmp_path / "mine.yaml").write_text("{canvas: canvas.yaml, augment: peers}")
    words = ("grid", "--config", "seed_000", f'--x=[{{"configs": ["demo", "{tmp_path}/mine.yaml"]}}]')
    ours = {path for path in configurations(words) if path.is_relative_to(tmp_path)}
    packaged = {path.relative_to(repository).as_posix() for path in {*configurations(words)} - ours}
    assert ours == {tmp_path / "mine.yaml", tmp_path / "canvas.yaml"}
    assert packaged == {
        "configs/grid/seed_000.yaml", "configs/train/seed_000.yaml", "configs/canvas/seed_001_kaggle.yaml",
        "configs/train/demo.yaml", "configs/canvas/demo.yaml",
        "configs/augment/peers.yaml", "configs/render/peers.yaml",
    }  # fmt: skip


@pytest.fixture
def config(tmp_path):
    """The options of a chain that simulates two folders of one recording, and then a third."""
    steps = [
        {
            "name": "simulate",
            "command": "simulate --out {data}/{seed} --num_recordings 1 --seed {seed} --workers {cpus}",
            "makes": "{data}/{seed}/train.csv",
            "each": "seed",
        },
        {
            "name": "copy",
            "command": "simulate --out {out}/copy --num_recordings 1",
            "makes": "{out}/copy/train.csv",
            "after": ["simulate"],
            "job": "render",
        },
    ]
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump({"lists": {"seed": [3, 4]}, "steps": steps}, width=1000))
    return ["--config", str(path), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]


def test_one_task_then_the_rest_then_nothing(config, tmp_path, capsys):
    assert main(["pipeline", *config, "--list"]) == 0
    assert capsys.readouterr().out == "simulate finish 0,1 -\ncopy render - simulate\n"
    run(load(Pipeline, [*config, "--step", "simulate", "--task", "1"]))
    assert (tmp_path / "data/4/train.csv").exists()
    assert not (tmp_path / "data/3").exists()
    main(["pipeline", *config, "--list"])
    assert capsys.readouterr().out == "simulate finish 0 -\ncopy render - simulate\n"
    run(load(Pipeline, config))
    main(["pipeline", *config, "--list"])
    assert capsys.readouterr().out == ""
    before = (tmp_path / "out/copy/train.csv").stat()
    run(load(Pipeline, config))
    assert (tmp_path / "out/copy/train.csv").stat() == before


def test_a_step_whose_files_are_missing_is_refused(config, tmp_path):
    missing = f"step copy: no file {tmp_path}/data/3/train.csv; run step simulate 3 first"
    with pytest.raises(UserError, match=re.escape(missing)):
        run(load(Pipeline, [*config, "--step", "copy"]))
    text = (tmp_path / "chain.yaml").read_text().replace("each: seed", "each: seed\n  reads: ['{data}/none.csv']")
    (tmp_path / "chain.yaml").write_text(text)
    missing = f"step simulate 3: no file {tmp_path}/data/none.csv; check --data"
    for words in ([], ["--list"]):  # a cluster learns of it before anything is submitted
        with pytest.raises(UserError, match=re.escape(missing)):
            run(load(Pipeline, [*config, *words]))


def test_a_task_that_somebody_is_at_is_refused_and_a_dead_owners_is_taken_over(config, tmp_path):
    other = Owner("elsewhere", "other", 1, "17", "n")
    path = tmp_path / "out/steps/copy-0.claim"
    path.parent.mkdir(parents=True)
    for seed in (3, 4):
        (tmp_path / f"data/{seed}").mkdir(parents=True)
        (tmp_path / f"data/{seed}/train.csv").touch()
    path.write_text(json.dumps(asdict(other)))
    beating = threading.Event()

    def beat():
        while not beating.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(UserError, match="step copy: process 1 on elsewhere, job 17 is working on it; wait for its end"):
        run(load(Pipeline, [*config, "--step", "copy"]))
    beating.set()
    thread.join()
    os.utime(path, (0, 0))
    run(load(Pipeline, [*config, "--step", "copy"]))
    assert not path.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "--out {data}/{seed}",
            "--out /proc/none",
            "step simulate 3 ended with exit code 2; its message is above",
        ),
        (
            "{seed}/train.csv",
            "{seed}/trian.csv",
            "step simulate 3 succeeded, but did not write DATA/3/trian.csv; correct `makes` or the command",
        ),
    ],
)
def test_a_command_that_fails_or_makes_nothing_ends_the_chain(config, tmp_path, old, new, message):
    path = tmp_path / "chain.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(JobError, match=re.escape(message.replace("DATA", str(tmp_path / "data")))):
        run(load(Pipeline, config))
    assert not (tmp_path / "data/4").exists()


def test_words_that_a_step_would_refuse_are_refused_before_any_step_runs(config, tmp_path):
    """On a cluster, before anything is submitted. A configuration that the chain makes is not there to be read yet."""
    path = tmp_path / "chain.yaml"
    good = path.read_text()
    path.write_text(good.replace("copy --num_recordings 1", "copy --num_recordings many"))
    for words in ([], ["--list"]):
        with pytest.raises(
            UserError, match=r"^step copy: simulate: --num_recordings: expected a whole number, found 'many'$"
        ):
            run(load(Pipeline, [*config, *words]))
    assert not (tmp_path / "data").exists()
    path.write_text(good.replace("copy --num_recordings 1", "copy --num_recordings 1 --config {out}/made.yaml"))
    run(load(Pipeline, [*config, "--list"]))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/made.yaml").write_text("sede: 1")
    with pytest.raises(UserError, match=r"^step copy: simulate: .*made.yaml: unknown"):
        run(load(Pipeline, [*config, "--list"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step", "x"], "step: no 'x'; one of: simulate, copy"),
        (["--step", "copy", "--list"], "step: list prints all steps; leave one of them out"),
        (["--task", "1"], "task: counts the tasks of a step; give --step"),
        (["--step", "simulate", "--task", "2"], "--task: expected 0 to 1, found 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(config, words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        run(load(Pipeline, [*config, *words]))


@pytest.fixture
def forked_steps(launcher, monkeypatch):
    """Steps run as forks of a process that has imported torch; the tests above start them as packaged."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(pipeline, "launched", lambda command: launched([*json.loads(launcher), *command[1:]]))


@pytest.mark.slow
@pytest.mark.usefixtures("forked_steps")
def test_from_recordings_to_the_report_on_one_machine(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    words = [
        "--config",
        "configs/pipeline/small.yaml",
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "out"),
    ]
    run(load(Pipeline, words))
    assert "Lowest KL" in (tmp_path / "out/report.html").read_text()
    assert len(read_predictions(tmp_path / "out/ensemble.parquet")) == 48
    assert len(read_predictions(tmp_path / "out/submission.csv")) == 12, "a row per EEG"
    assert main(["pipeline", *words, "--list"]) == 0
    assert capsys.readouterr().out == ""
