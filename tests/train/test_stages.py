"""Stages: each is a run, and the last one is the product; weights are passed on, finished stages are not touched."""

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.report.status import find_runs, look
from hms_dist.train import loop
from hms_dist.train.folder.record import is_finished, read_metrics
from hms_dist.train.folder.run_folder import begin_folder, read_config, stored_weights
from hms_dist.train.learn.step import Stepper
from hms_dist.train.loop import run
from hms_dist.train.optimise.optim import OptimConfig
from hms_dist.train.optimise.schedules import ScheduleConfig
from hms_dist.train.settings import TrainConfig
from hms_dist.train.stage_config import StageConfig
from hms_dist.train.stages import check_folders, open_stages, stage_runs

STILL = OptimConfig(lr=1e-30, weight_decay=0.0)


def staged(config, *stages, **options):
    return dataclasses.replace(config, stages=stages, **options)


def parameters(folder):
    tensors = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if "running" not in name and "num_batches" not in name}


def test_a_run_without_stages_is_its_own_only_run(small):
    assert stage_runs(small()) == [small()]


def test_what_a_stage_leaves_open_is_the_runs(small):
    config = staged(
        small(),
        StageConfig(name="all", epochs=1),
        StageConfig(name="sure", init="best:all", optim=STILL, schedule=ScheduleConfig(warmup_share=0.5)),
    )
    first, second = stage_runs(config)
    assert first == dataclasses.replace(small(), out=config.out / "stages/all", epochs=1)
    assert second.out == config.out
    assert second.epochs == config.epochs
    assert (second.optim, second.schedule.warmup_share) == (STILL, 0.5)
    assert second.model.weights == str(config.out / "stages/all/best/model.safetensors")


def test_a_stage_starts_from_the_average_if_the_run_keeps_one(small):
    config = staged(small(ema__decay=0.5), StageConfig(name="a"), StageConfig(name="b", init="final:a"))
    assert stage_runs(config)[1].model.weights.endswith("stages/a/final/ema.safetensors")


def test_weights_are_handed_on_and_the_last_stage_is_the_product(small):
    config = staged(
        small(epochs=1),
        StageConfig(name="first", epochs=2),
        StageConfig(name="second", init="best:first", optim=STILL),
    )
    run(config)
    before, after = parameters(config.out / "stages/first/best"), parameters(config.out / "final")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert stored_weights(config.out) == config.out / "best"
    assert is_finished(config.out)
    assert is_finished(config.out / "stages/first")
    assert read_config(config.out).stages == ()
    whole = load(TrainConfig, ["--config", str(config.out / "stages.yaml")])
    assert [stage.name for stage in whole.stages] == ["first", "second"]
    assert [
        len({line["epoch"] for line in read_metrics(out)}) for out in (config.out / "stages/first", config.out)
    ] == [
        2,
        1,
    ]


def test_pretrained_starts_from_the_initial_weights(small):
    config = staged(small(epochs=1), StageConfig(name="first"), StageConfig(name="second", optim=STILL))
    run(config)
    alone = small("alone", epochs=1)
    AcceleratorState._reset_state(reset_partial_state=True)
    run(dataclasses.replace(alone, optim=STILL))
    one, other = parameters(config.out / "final"), parameters(alone.out / "final")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_stopped_in_the_second_stage_it_continues_there(small, monkeypatch):
    def make(out):
        stages = StageConfig(name="first", epochs=1), StageConfig(name="second", init="final:first")
        return staged(small(out, epochs=1, checkpoint_every=1), *stages)

    run(make("whole"))
    stopped = make("stopped")
    real = Stepper.take

    def stop(self, batches, step, **options):
        if self.config.out == stopped.out and step.overall == 3:
            raise KeyboardInterrupt
        return real(self, batches, step, **options)

    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(Stepper, "take", stop)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    monkeypatch.setattr(Stepper, "take", real)
    assert [stage.out for stage in open_stages(stopped)] == [stopped.out]
    before = {p: p.stat().st_mtime_ns for p in (stopped.out / "stages").rglob("*")}
    AcceleratorState._reset_state(reset_partial_state=True)
    run(stopped)
    assert {p: p.stat().st_mtime_ns for p in (stopped.out / "stages").rglob("*")} == before
    one, other = (load_file(out / "final/model.safetensors") for out in (make("whole").out, stopped.out))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_stage_is_compared_too(small, monkeypatch):
    """The run is killed between its stages: then only the first one's folder shows how it began."""
    first, second = StageConfig(name="first"), StageConfig(name="second", init="final:first")
    config = staged(small(epochs=1), first, second)
    real = loop.begin_stage

    def killed(session, stage):
        if stage.out == config.out:
            raise SystemError
        return real(session, stage)

    monkeypatch.setattr(loop, "begin_stage", killed)
    with pytest.raises(SystemError):
        run(config)
    assert is_finished(config.out / "stages/first")
    before = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}
    never = {"resume": "never"}
    for other, message in (
        (staged(config, first, second, seed=1), "/first: holds a run whose seed differ; choose another --out, or"),
        (staged(config, StageConfig(name="first", epochs=2), second), "/first: holds a run whose epochs differ"),
        (staged(config, first, second, **never), "/first: holds a run already; choose another --out"),
        (staged(config, StageConfig(name="one"), StageConfig(name="second")), "/run: holds a run whose stages differ"),
        (staged(config), "/run: holds a run whose stages differ"),
    ):
        with pytest.raises(UserError, match=message):
            run(other)
    assert {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()} == before
    monkeypatch.setattr(loop, "begin_stage", real)
    AcceleratorState._reset_state(reset_partial_state=True)
    run(config)
    assert is_finished(config.out)


def test_a_run_that_moved_is_the_same_run(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = [StageConfig(name="a"), StageConfig(name="b", init="best:a"), StageConfig(name="c", init="best:b")]
    config = staged(small(), *stages, out=Path("run"))
    for stage in stage_runs(config):
        stage.out.mkdir(parents=True, exist_ok=True)
        begin_folder(stage)
    check_folders(staged(config, *stages, out=tmp_path / "run"))
    Path("elsewhere").mkdir()
    moved = Path("run").rename("elsewhere/run")
    check_folders(staged(config, *stages, out=moved))
    monkeypatch.chdir("elsewhere")
    check_folders(config)
    final = dataclasses.replace(stages[1], init="final:a")
    with pytest.raises(UserError, match="stages/b: holds a run whose model differ"):
        check_folders(staged(config, stages[0], final, stages[2]))


def test_the_run_records_the_stage_it_is_in(small, monkeypatch):
    out, seen = small().out, []
    real = loop.Trainer.fit

    def fit(self):
        printed = json.loads((out / "status.json").read_text()).get("stage")
        now = look(out)
        seen.append((list(find_runs(out.parent)), printed, now.state, now.stage, now.epochs))
        return real(self)

    monkeypatch.setattr(loop.Trainer, "fit", fit)
    run(staged(small(epochs=1), StageConfig(name="first", epochs=2), StageConfig(name="second")))
    assert seen[0] == ([out], "first", "running", "first", 2)
    assert seen[1][0] == [out]
    assert seen[1][3:] == ("second", 1)
    assert (look(out).state, look(out).stage) == ("finished", "second")


def test_a_job_script_sees_a_run_begin_in_its_first_stage(small, monkeypatch, repository):
    """A node lost there is distinguished from a run that was rejected."""
    script = (repository / "slurm/train.sbatch").read_text()
    shell = re.search(r"^begun\(\).*$", script, re.MULTILINE)[0]
    config = staged(small(), StageConfig(name="first"), StageConfig(name="second"))

    def begun():
        given = ["bash", "-euc", f"run={config.out}\n{shell}\nbegun"]
        return subprocess.run(given, capture_output=True, text=True, check=True).stdout

    def fit(_):
        raise SystemError

    monkeypatch.setattr(loop.Trainer, "fit", fit)
    seen = [begun()]
    for _ in range(2):
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(SystemError):
            run(config)
        seen.append(begun())
    assert not (config.out / "config.yaml").exists()
    assert len(set(seen)) == 3
    with pytest.raises(UserError, match="seed differ"):
        run(dataclasses.replace(config, seed=1))
    assert begun() == seen[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (['[{"name": "a"}, {"name": "a"}]'], r"stages.name: 'a' appears twice"),
        (
            ['[{"name": "a", "init": "best:b"}]'],
            r"stages.init: 'a' starts from 'b', which is not an earlier stage \(none\)",
        ),
        (['[{"name": "a", "init": "worst:b"}]'], r"expected pretrained, best:NAME or final:NAME, found 'worst:b'"),
        (['[{"name": "a b"}]'], r"stages.name: 'a b' cannot name a folder"),
        (['[{"name": "a", "epochs": 0}]'], r"stages.epochs: expected at least 1 or null, found 0"),
        (
            ['[{"name": "a"}, {"name": "b", "init": "best:a"}]', "--fold=none"],
            r"stages.init: 'b' starts from best weights, fold is none; use final:a",
        ),
        (
            ['[{"name": "a"}, {"name": "b", "overlay": {"file": "p.parquet"}}]', "--loss.smooth_below=8"],
            r"stages: 'b': loss.smooth_below: smooths votes, and overlay replaces them; leave one of them out",
        ),
    ],
)
def test_stages_that_cannot_be(small_file, words, message, tmp_path):
    given = ["--config", str(small_file), "--shards", "s", "--out", str(tmp_path), f"--stages={words[0]}", *words[1:]]
    with pytest.raises(UserError, match=message):
        load(TrainConfig, given)


def test_what_a_later_stage_cannot_do_is_refused_at_the_start(small):
    from hms_dist.stream.rows.selections import SelectionConfig

    config = staged(small(), StageConfig(name="a"), StageConfig(name="b", selection=SelectionConfig(min_votes=1000)))
    with pytest.raises(UserError, match="selection leaves 0 of"):
        run(config)
    assert not config.out.exists()


def test_a_step_skipped_in_one_stage_does_not_count_in_the_next(small, monkeypatch):
    """accelerate asks every optimiser that it knows whether it skipped its last step."""
    config = staged(
        small(epochs=1, model__name="test_efficientnet", ema__decay=0.5), StageConfig(name="a"), StageConfig(name="b")
    )
    take, optimizers = Stepper.take, []

    def skipping(self, batches, step, **options):
        optimizers.append(self.optimizer)
        self.optimizer._is_overflow = self.optimizer is optimizers[0]
        return take(self, batches, step, **options)

    monkeypatch.setattr(Stepper, "take", skipping)
    run(config)
    for out, all_skipped in ((config.out / "stages/a", True), (config.out, False)):
        state = json.loads(next((out / "checkpoints").glob("step-*/state.json")).read_text())
        num_steps = sum(1 for line in read_metrics(out) if "loss" in line)
        assert state["num_skipped"] == (num_steps if all_skipped else 0)
        counted = load_file(out / "final/ema.safetensors")["blocks.0.0.bn1.num_batches_tracked"]
        assert counted == (0 if all_skipped else num_steps)
