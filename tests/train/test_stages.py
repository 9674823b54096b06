"""Stages: each a run of its own, the last one the product; weights handed on, done ones left alone."""

import dataclasses
import json

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hms_dist.config import load
from hms_dist.errors import UserError
from hms_dist.train import loop
from hms_dist.train.folder.record import is_finished, read_metrics
from hms_dist.train.folder.run_folder import read_config, stored_weights
from hms_dist.train.learn.step import Stepper
from hms_dist.train.loop import run
from hms_dist.train.optimise.optim import OptimConfig
from hms_dist.train.optimise.schedules import ScheduleConfig
from hms_dist.train.settings import TrainConfig
from hms_dist.train.stage_config import StageConfig
from hms_dist.train.stages import open_stages, stage_runs

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


def test_pretrained_starts_anew(small):
    config = staged(small(epochs=1), StageConfig(name="first"), StageConfig(name="second", optim=STILL))
    run(config)
    alone = small("alone", epochs=1)
    AcceleratorState._reset_state(reset_partial_state=True)
    run(dataclasses.replace(alone, optim=STILL))
    one, other = parameters(config.out / "final"), parameters(alone.out / "final")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_stopped_in_the_second_stage_it_goes_on_there(small, monkeypatch):
    def make(out):
        stages = StageConfig(name="first", epochs=1), StageConfig(name="second", init="final:first")
        return staged(small(out, checkpoint_every=1), *stages)

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


def test_the_run_says_which_stage_it_is_in(small, monkeypatch):
    seen = []
    real = loop.Trainer.fit

    def fit(self):
        seen.append(json.loads((small().out / "status.json").read_text()).get("stage"))
        return real(self)

    monkeypatch.setattr(loop.Trainer, "fit", fit)
    run(staged(small(epochs=1), StageConfig(name="first"), StageConfig(name="second")))
    assert seen[0] == "first"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (['[{"name": "a"}, {"name": "a"}]'], r"stages.name: 'a' stands twice"),
        (
            ['[{"name": "a", "init": "best:b"}]'],
            r"stages.init: 'a' starts from 'b', which is no earlier stage \(none\)",
        ),
        (['[{"name": "a", "init": "worst:b"}]'], r"expected pretrained, best:NAME or final:NAME, found 'worst:b'"),
        (['[{"name": "a b"}]'], r"stages.name: 'a b' cannot name a folder"),
        (['[{"name": "a", "epochs": 0}]'], r"stages.epochs: expected at least 1 or null, found 0"),
        (
            ['[{"name": "a"}, {"name": "b", "init": "best:a"}]', "--fold=none"],
            r"stages.init: 'b' starts from best weights, fold is none; use final:a",
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
