"""Pipelines as text: their tasks, the dependencies between tasks, and rejected specifications."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from hms_dist.cluster.pipeline import Pipeline
from hms_dist.cluster.pipeline_spec import Chain, PipelineStep, tasks_of
from hms_dist.cluster.task_cache import configurations
from hms_dist.config.load import load
from hms_dist.config.recipes import names

TRAIN = PipelineStep(name="train", command="grid --seeds [{seed}] --out {out}/{{x}}", makes="{out}/{seed}", each="seed")
MEAN = PipelineStep(
    name="mean", command="ensemble --predictions {out}/{seed}.p --x {data}", makes="{out}/mean", after=("train",)
)


def chain(*steps, **lists):
    return Chain(data="D", out=Path("O"), lists=lists or {"seed": (3, 5)}, steps=steps)


def test_a_step_over_a_list_has_a_task_for_each_value_and_other_steps_read_all():
    tasks = tasks_of(chain(TRAIN, MEAN))
    assert [(task.number, task.title) for task in tasks["train"]] == [(0, "train 3"), (1, "train 5")]
    assert tasks["train"][1].words == ("grid", "--seeds", "[5]", "--out", "O/{x}")
    assert tasks["train"][1].makes == Path("O/5")
    (mean,) = tasks["mean"]
    assert mean.words == ("ensemble", "--predictions", "O/3.p", "O/5.p", "--x", "D")
    assert mean.before == tuple(tasks["train"])


def test_a_task_of_a_step_over_the_same_list_waits_only_for_its_value():
    predict = PipelineStep(name="predict", command="p {cpus}", makes="{out}/p{seed}", each="seed", after=("train",))
    other = replace(predict, name="other", each="slice", makes="{out}/o{slice}")
    tasks = tasks_of(chain(TRAIN, predict, other, seed=(3, 5), slice=(0, 1)))
    assert [task.before for task in tasks["predict"]] == [(one,) for one in tasks["train"]]
    assert all(task.before == tuple(tasks["train"]) for task in tasks["other"])
    assert tasks["predict"][0].words == ("p", "{cpus}")


def test_two_lists_in_a_word_give_every_pair():
    step = PipelineStep(name="a", command="x {seed}-{fold}", makes="m")
    (task,) = tasks_of(chain(step, seed=(1, 2), fold=(0, "none")))["a"]
    assert set(task.words[1:]) == {"1-0", "1-none", "2-0", "2-none"}


@pytest.mark.parametrize("name", ["small", "sixteenth_place"])
def test_the_packaged_pipelines_are_valid(name, repository):
    config = load(
        Pipeline, ["--config", str(repository / f"configs/pipeline/{name}.yaml"), "--data", "D", "--out", "O"]
    )
    tasks = tasks_of(config)
    steps = [step for step in tasks if step not in ("simulate", "one_row")]
    assert steps == [
        "render", "finish", "verify", "test", "stage_1", "predict_1",
        "pseudolabel", "stage_2", "predict_2", "ensemble", "predict_test", "submission", "report",
    ]  # fmt: skip
    slices = [shlex.join(task.words) for task in tasks["render"]]
    assert all(f"--job {number}/{len(slices)}" in text for number, text in enumerate(slices))
    for stage in ("stage_1", "stage_2"):
        for task in tasks[stage]:
            for word in task.words:
                if word.startswith("[{"):
                    assert set(json.loads(word)[0]["configs"]) <= set(names("train"))
    labels = str(tasks["pseudolabel"][0].makes)
    assert all(labels in " ".join(task.words) for task in tasks["stage_2"])
    assert {task.makes.name for task in tasks["report"]} == {"report.html"}
    assert {str(task.makes) for task in tasks["predict_2"]} <= set(tasks["ensemble"][0].words)
    assert {str(task.makes) for task in tasks["predict_test"]} <= set(tasks["submission"][0].words)
    assert str(tasks["submission"][0].makes) == "O/submission.csv"
    predicted = [task for step in ("predict_1", "predict_2", "predict_test") for task in tasks[step]]
    assert all("--tta flip" in shlex.join(task.words) for task in predicted), "as the seed predicts"


def test_the_demo_names_existing_recipes_and_describes_its_tasks(repository):
    given = ["--config", str(repository / "configs/pipeline/demo.yaml"), "--data=D", "--out=O"]
    tasks = [task for every in tasks_of(load(Pipeline, given)).values() for task in every]
    assert [task.step for task in tasks] == [
        "simulate", "render", "verify", "show", "train", "predict", "score", "report",
    ]  # fmt: skip
    assert all(task.purpose for task in tasks)
    found = {path.relative_to(repository).as_posix() for task in tasks for path in configurations(task.words)}
    assert {
        "configs/render/default.yaml", "configs/canvas/sixteenth_place.yaml", "configs/train/demo.yaml",
        "configs/accelerate/cpu2.yaml",
    } <= found  # fmt: skip


def test_the_seeds_of_the_16th_place_are_those_of_its_grid(repository):
    pipeline = load(
        Pipeline, ["--config", str(repository / "configs/pipeline/sixteenth_place.yaml"), "--data=D", "--out=O"]
    )
    grid = (repository / "configs/grid/sixteenth_place.yaml").read_text()
    seeds = re.search(r"^seeds: (\[.*\])", grid, re.MULTILINE)
    assert list(pipeline.lists["seed"]) == json.loads(seeds.group(1))
    assert len(pipeline.lists["final"]) == 6
    assert set(pipeline.lists["final"]) <= set(pipeline.lists["seed"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PipelineStep(name="a b", command="x", makes="m"),
            "steps.name: expected letters, digits and _, found 'a b'",
        ),
        (
            lambda: PipelineStep(name="a", command="x 'y", makes="m"),
            "steps.command: that of step 'a' cannot be split: ",
        ),
        (
            lambda: PipelineStep(name="a", command=" ", makes="m"),
            "steps.command: that of step 'a' is empty; expected words of hms-dist",
        ),
        (chain, "steps: expected at least one"),
        (lambda: chain(TRAIN, TRAIN), "steps: two are named 'train'; give each its own name"),
        (lambda: chain(MEAN, TRAIN), "steps.after: 'train' of step 'mean' is not an earlier step"),
        (lambda: chain(replace(TRAIN, each="s")), "steps.each: no list 's' for step 'train'"),
        (
            lambda: chain(replace(TRAIN, command="x {sead}")),
            "steps: step 'train': 'x {sead}' names {sead}; one of: {data}, {out}, {cpus}, {seed}",
        ),
        (
            lambda: chain(replace(TRAIN, makes="{seed}", each=None)),
            "steps: step 'train': '{seed}' names {seed}; one of: {data}, {out}",
        ),
        (lambda: chain(replace(TRAIN, makes="{out")), "steps: step 'train': '{out' ("),
        (
            lambda: chain(replace(TRAIN, command="x {seed:03d}")),
            "steps: step 'train': 'x {seed:03d}' (Unknown format code 'd' for object of type 'str'); ",
        ),
        (lambda: chain(TRAIN, seed=(1, 1)), "lists.seed: expected different values, at least one, found [1, 1]"),
        (lambda: chain(TRAIN, seed=()), "lists.seed: expected different values, at least one, found []"),
        (lambda: chain(TRAIN, out=(1,)), "lists: 'out' cannot name a list; choose another name"),
    ],
)
def test_errors_name_the_option(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
