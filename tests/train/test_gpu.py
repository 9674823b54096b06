"""Training on a GPU: every precision trains, and agrees with the CPU as far as its digits go."""

import dataclasses

import pytest
import torch

from hms_dist.train.loop import run
from hms_dist.train.record import read_metrics

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.mark.parametrize(("precision", "digits"), [("float64", 1e-9), ("float32", 1e-3), ("bf16", 0.1), ("fp16", 0.02)])
def test_the_first_loss_is_that_of_the_cpu(small, precision, digits, monkeypatch):
    from accelerate.state import AcceleratorState

    plain = {"epochs": 1, "model__drop_rate": 0, "model__drop_path_rate": 0}
    on_gpu = small("gpu", precision=precision, **plain)
    run(on_gpu)
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = dataclasses.replace(on_gpu, out=on_gpu.out.with_name("cpu"), precision="float64")
    run(on_cpu)
    losses = [[line["loss"] for line in read_metrics(c.out) if "loss" in line] for c in (on_gpu, on_cpu)]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=digits)
    assert all(loss < 20 for loss in losses[0])
