"""Training on a GPU: every precision trains, and agrees with the CPU as far as its digits go."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from hms_dist.canvas.graphed import GraphedInputs
from hms_dist.model import gpus
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.learn.step import Stepper
from hms_dist.train.loop import run

STEADY = "resnet18"
"""A net that rounding to bf16 moves by a thousandth; an EfficientNet's first loss it moves by a fifth."""
STEADY_STEPS = {"epochs": 1, "log_every": 1, "precision": "float32", "optim__name": "sgd", "optim__lr": 0.01}
"""Rounding changes the first six losses by less than 1e-6 on a CPU, gradients of twice the size by 1e-2 and more; later
steps, and AdamW, amplify rounding."""
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


def first_losses(config):
    """Losses of the first six steps."""
    losses = [line["loss"] for line in read_metrics(config.out) if "loss" in line][:6]
    assert len(losses) == 6
    return losses


@pytest.mark.parametrize(
    ("precision", "digits"), [("float64", 1e-9), ("float32", 1e-4), ("bf16", 0.02), ("tf32", 3e-3), ("fp16", 3e-3)]
)
def test_the_first_loss_is_that_of_the_cpu(small, precision, digits, monkeypatch):
    from accelerate.state import AcceleratorState

    plain = {"epochs": 1, "model__name": STEADY, "model__drop_rate": 0, "model__drop_path_rate": 0}
    on_gpu = small("gpu", precision=precision, **plain)
    run(on_gpu)
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = dataclasses.replace(on_gpu, out=on_gpu.out.with_name("cpu"), precision="float64")
    run(on_cpu)
    losses = [[line["loss"] for line in read_metrics(c.out) if "loss" in line] for c in (on_gpu, on_cpu)]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=digits)
    assert all(loss < 20 for loss in losses[0])


@pytest.mark.parametrize(
    "options",
    [
        {"compile_mode": None},
        {"compile_mode": "default"},
        {"pass_rows": 2},
        {"compile_mode": "default", "model__name": "tiny_vit_5m_224", "ema__decay": 0.9},
        {"model__grad_checkpointing": True},
        {"freeze__num_layers": 10, "epochs": 2},
        {"optim__name": "sgd", "optim__max_grad_norm": 1.0},
    ],
)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_options_of_speed_do_not_change_what_is_learnt(small, precision, options):
    from accelerate.state import AcceleratorState

    kept = {name: options[name] for name in options if name not in ("pass_rows", "compile_mode")}
    kept = {"model__name": STEADY, "model__drop_rate": 0, "model__drop_path_rate": 0, **kept}
    plain = {"epochs": 1, "precision": precision, **kept}
    run(small("plain", **plain))
    AcceleratorState._reset_state(reset_partial_state=True)
    run(small("fast", **{**plain, **options}))
    one, other = (read_metrics(small(out).out) for out in ("plain", "fast"))
    assert other[0]["loss"] == pytest.approx(one[0]["loss"], rel=0.05)
    names = [load_file(small(out).out / "final/model.safetensors").keys() for out in ("plain", "fast")]
    assert names[0] == names[1]


def test_gradients_are_the_same_with_graphs_and_without_of_one_pass_and_of_several(small):
    """A graph writes its gradients to the same memory in every pass."""
    from accelerate.state import AcceleratorState

    losses = {}
    for name, options in {
        "plain": {"compile_mode": None},
        "one pass": {"compile_mode": "default"},
        "several": {"compile_mode": "default", "pass_rows": 2},
    }.items():
        plain = {"model__name": STEADY, "model__drop_rate": 0, "group_size": 2, **STEADY_STEPS}
        config = small(name, **plain, **options)
        run(config)
        AcceleratorState._reset_state(reset_partial_state=True)
        losses[name] = first_losses(config)
    assert losses["one pass"] == pytest.approx(losses["plain"], rel=2e-3)
    assert losses["several"] == pytest.approx(losses["plain"], rel=2e-3)


def test_a_training_pass_is_compiled_once(small, monkeypatch):
    """Trial passes, the capture and the steps share one compilation."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    compiled, take = [], Stepper.take

    def watched(self, batches, step, **words):
        compiled.append(counters["stats"]["unique_graphs"])
        return take(self, batches, step, **words)

    monkeypatch.setattr(Stepper, "take", watched)
    run(small(model__name=STEADY, compile_mode="default", precision="bf16", epochs=1))
    assert len(compiled) > 2
    assert set(compiled) == {1}


@pytest.mark.parametrize("pass_rows", [None, 2])
@pytest.mark.parametrize("recipe", ["sixteenth_place", "peers"])
def test_losses_are_the_same_with_canvas_and_augmentation_in_a_graph(small, repository, monkeypatch, recipe, pass_rows):
    """The next pass overwrites images and targets of the previous one."""
    from accelerate.state import AcceleratorState

    graphed, compute = [], GraphedInputs.__call__

    def counted(self, *given, **words):
        found = compute(self, *given, **words)
        graphed.append(found is not None)
        return found

    monkeypatch.setattr(GraphedInputs, "__call__", counted)
    losses = {}
    for mode in (None, "auto"):
        options = {"model__name": STEADY, "model__drop_rate": 0, "pass_rows": pass_rows, **STEADY_STEPS}
        augment = repository / f"configs/augment/{recipe}.yaml"
        config = small(f"mode-{mode}", augment=augment, compile_mode=mode, **options)
        run(config)
        AcceleratorState._reset_state(reset_partial_state=True)
        losses[mode] = first_losses(config)
        assert bool(graphed) == (mode is not None)
    assert sum(graphed) > len(graphed) // 2
    assert losses["auto"] == pytest.approx(losses[None], rel=2e-3)


@pytest.mark.parametrize("name", [STEADY, "tiny_vit_5m_224"])
def test_torchs_own_operators_give_the_losses_of_the_fast_ones(small, name, monkeypatch):
    """As on GPUs before sm_80, or without Triton."""
    from accelerate.state import AcceleratorState

    plain = {"model__name": name, "compile_mode": None, **STEADY_STEPS}
    losses = {}
    for is_on in (True, False):
        monkeypatch.setattr(gpus, "ARE_ON", is_on)
        monkeypatch.setattr(gpus, "are_fast", lambda is_on=is_on: is_on)
        config = small(f"fast-{is_on}", **plain)
        run(config)
        AcceleratorState._reset_state(reset_partial_state=True)
        losses[is_on] = first_losses(config)
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)


def test_a_step_does_not_wait_for_the_gpu(small, repository, monkeypatch):
    """Else the host could not run ahead of it. torch raises where it would wait; the first two steps may."""
    taken, take = [], Stepper.take

    def watched(self, batches, step, **words):
        taken.append(step.overall)
        torch.cuda.set_sync_debug_mode("error" if step.overall > 1 else "default")
        try:
            return take(self, batches, step, **words)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Stepper, "take", watched)
    options = {"precision": "bf16", "optim__max_grad_norm": 1.0, "ema__decay": 0.9, "epochs": 1}
    run(small(augment=repository / "configs/augment/sixteenth_place.yaml", **options))
    assert taken[-1] > 2


def test_an_fp16_overflow_skips_the_step_of_the_optimiser_and_of_the_schedule(small, monkeypatch):
    """The scaler begins at a scale at which every gradient overflows."""
    monkeypatch.setattr(torch.amp.GradScaler, "__init__", _loud(torch.amp.GradScaler.__init__))
    config = small(precision="fp16", epochs=1, ema__decay=0.9)
    run(config)
    lines = [line for line in read_metrics(config.out) if "loss" in line]
    assert lines[0]["num_skipped"] == 1
    assert lines[1]["lr"] == lines[0]["lr"]


def _loud(real):
    return lambda self, *words, **options: real(self, *words, **{**options, "init_scale": 2.0**40})
