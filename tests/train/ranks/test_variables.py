"""Environment variables that would change a run are rejected, or have no effect and cause a warning."""

import pytest
import torch

from hms_dist.core.errors import UserError
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.loop import run
from hms_dist.train.ranks.variables import ENGINES, check_variables, overruled
from hms_dist.train.ranks.world import computed_precision

BY_LAUNCH = {
    "ACCELERATE_USE_CPU": "True", "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default", "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False", "WORLD_SIZE": "2", "PMI_SIZE": "2",
    "ACCELERATE_USE_FSDP": "false", "NVIDIA_TF32_OVERRIDE": "0", "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
}  # fmt: skip
"""As accelerate launch sets them, and others' harmless values."""


@pytest.mark.parametrize("precision", ["bf16", "fp16", "float32", "float64"])
def test_variables_of_accelerate_launch_are_accepted(precision):
    check_variables(precision, BY_LAUNCH)
    assert overruled(precision, BY_LAUNCH) == []


@pytest.mark.parametrize(
    ("name", "value", "precision", "message"),
    [
        *((name, "true", "bf16", f"{name}=true: {engine} is not supported") for name, engine in ENGINES.items()),
        ("ACCELERATE_USE_FSDP", "1", "bf16", "FSDP is not supported"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "bf16", "fp8 is not supported"),
        ("ACCELERATE_TORCH_DEVICE", "cuda:1", "bf16", "each rank takes a device of its own"),
        ("PMI_SIZE", "4", "bf16", "an MPI job without a launcher of ranks; start the ranks by torchrun"),
        ("NVIDIA_TF32_OVERRIDE", "1", "float32", "contradicts precision float32"),
        ("NVIDIA_TF32_OVERRIDE", "0", "tf32", "contradicts precision tf32"),
        ("DNNL_DEFAULT_FPMATH_MODE", "any", "float32", "rounds the products of float32 on CPUs"),
    ],
)
def test_unsupported_variables_are_rejected_by_name(name, value, precision, message):
    with pytest.raises(UserError, match=rf"environment variable {name}={value}: .*; (unset|start)") as error:
        check_variables(precision, {name: value})
    assert message in str(error.value)


def test_variables_without_effect_cause_a_warning():
    found = {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_DYNAMO_BACKEND": "inductor",
        "ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_CLIPPING": "1.0",
    }  # fmt: skip
    lines = overruled("float32", found)
    assert len(lines) == 4
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4 has no effect: global_batch and group_size decide" in lines
    assert "ACCELERATE_MIXED_PRECISION=bf16 has no effect: precision decides, and is float32" in lines
    assert len(overruled("bf16", found)) == 3


def test_a_run_is_the_same_under_variables_that_have_no_effect(small, monkeypatch, caplog):
    from accelerate.state import AcceleratorState

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = {
        "epochs": 1, "model__name": "test_efficientnet", "optim__name": "sgd", "optim__lr": 0.05, "precision": "fp16",
    }  # fmt: skip
    run(small("plain", **options))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert "precision fp16: not supported by this device (cpu), using float32" in caplog.text
    assert "1 rank(s) on cpu" in caplog.text
    assert " 7 steps, float32, compiled: no" in caplog.text
    for name, value in (
        ("GRADIENT_ACCUMULATION_STEPS", "4"),
        ("DYNAMO_BACKEND", "INDUCTOR"),
        ("MIXED_PRECISION", "bf16"),
    ):
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    monkeypatch.setenv("ACCELERATE_DYNAMO_USE_FULLGRAPH", "maybe")
    run(small("changed", **options))
    assert caplog.text.count("has no effect") == 3
    one, other = (
        [line["loss"] for line in read_metrics(small(name).out) if "loss" in line] for name in ("plain", "changed")
    )
    assert one == other


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        (None, ("bf16", "float32", "float32", "float32", "float64")),  # a CPU
        ((6, 0), ("fp16", "fp16", "float32", "float32", "float64")),  # P100
        ((7, 5), ("fp16", "fp16", "float32", "float32", "float64")),  # T4
        ((8, 0), ("bf16", "fp16", "tf32", "float32", "float64")),  # A100
        ((9, 0), ("bf16", "fp16", "tf32", "float32", "float64")),  # H200
    ],
)
def test_a_device_computes_in_a_precision_that_it_has(has, expected):
    assert tuple(computed_precision(name, has) for name in ("bf16", "fp16", "tf32", "float32", "float64")) == expected


DIFFERENT_DEVICES = """
import os
from hms_dist.core.errors import UserError
from hms_dist.train.ranks import world
world.computed_precision = lambda precision, has: ("bf16", "fp16")[int(os.environ["RANK"])]
try:
    world.open_world("bf16", 60)
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_ranks_whose_devices_compute_in_different_precisions_are_refused(ranks, tmp_path):
    script = tmp_path / "open.py"
    script.write_text(DIFFERENT_DEVICES)
    found = ranks(2, script)
    line = "precision bf16: the ranks' devices differ, they would compute in bf16, fp16 (ranks 0 to 1)"
    assert found.count(line) == 2
