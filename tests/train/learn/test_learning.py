"""Options of training: averages, frozen layers, plateaus, row weights, skipped steps."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from timm.layers import DropPath
from torch import nn
from torch._dynamo.utils import counters

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.model.build import build
from hms_dist.model.group_norms import GroupNorms
from hms_dist.model.pass_rows import draw_words, whole_groups
from hms_dist.predict.infer import Predict
from hms_dist.predict.infer import run as predict
from hms_dist.results.metric_kinds import KlMetric
from hms_dist.train.data.run_data import epoch_rows, open_run_data
from hms_dist.train.folder.owner import Ownership
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.folder.stop import StopRequest
from hms_dist.train.learn.network import build_network
from hms_dist.train.learn.step import Stepper
from hms_dist.train.loop import Trainer, run
from hms_dist.train.ranks.world import open_world


def again(config):
    AcceleratorState._reset_state(reset_partial_state=True)
    run(config)


def weights(config, name="model", folder="final"):
    return load_file(config.out / folder / f"{name}.safetensors")


def column(config, name):
    return [line[name] for line in read_metrics(config.out) if name in line]


def trainer_of(config, world=None):
    """A trainer with a new run folder, which is never asked to stop."""
    data = open_run_data(config)
    world = world or open_world(config.precision, 60)
    return Trainer(config, data, world, Ownership(config.out, None), StopRequest(config.out))


EMA = {"ema__decay": 0.9, "ema__warmup": True}
MANY = {
    **EMA, "optim__head_lr_factor": 2,
    "schedule__name": "one_cycle", "schedule__momentum_range": "[0.8,0.9]", "plateau__drop_factor": 0.5,
    "plateau__patience": 0, "plateau__threshold": 9, "freeze__num_layers": 5,
    "loss__vote_power": 1, "checkpoint_every": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "stop_after", [3, pytest.param(2, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]
)
def test_a_run_with_every_option_resumes_bit_for_bit(small, stop_after, monkeypatch):
    """A moving average, parameter groups, a schedule with momentum, frozen layers and a plateau together."""
    whole, stopped = (small(out, epochs=3, **MANY) for out in ("whole", "stopped"))
    run(whole)
    real, taken = Stepper.take, []

    def stop(self, batches, step, **options):
        if len(taken) == stop_after:
            raise KeyboardInterrupt
        taken.append(step)
        return real(self, batches, step, **options)

    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(Stepper, "take", stop)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    monkeypatch.setattr(Stepper, "take", real)
    again(stopped)
    for name in ("model", "ema"):
        torch.testing.assert_close(weights(whole, name), weights(stopped, name), rtol=0, atol=0)
    for name in ("loss", "lr", "ema_decay", "val_kl"):
        assert column(whole, name) == column(stopped, name)


def test_the_average_is_evaluated_exported_and_predicts(small, shard_set, tmp_path):
    config = small(ema__evaluate_raw=True, loss__name="bce", **EMA)
    run(config)
    raw, averaged = weights(config, folder="best"), weights(config, "ema", folder="best")
    assert raw.keys() == averaged.keys()
    assert any(not torch.equal(raw[name], averaged[name]) for name in raw)
    assert len(column(config, "val_kl")) == len(column(config, "val_kl_raw")) == 2
    assert column(config, "val_kl") != column(config, "val_kl_raw")
    num_steps = len(column(config, "loss"))
    decays = [min(0.9, (1 + n) / (10 + n)) for n in range(1, num_steps + 1)]
    assert column(config, "ema_decay") == pytest.approx(decays, abs=1e-6)
    AcceleratorState._reset_state(reset_partial_state=True)
    predict(Predict(run=config.out, shards=shard_set, out=tmp_path / "p.parquet"))
    every = pd.read_parquet(tmp_path / "p.parquet").set_index("key")
    held_out = pd.read_parquet(config.out / "predictions.parquet").set_index("key")
    difference = every.loc[held_out.index, list(CLASSES)] - held_out[list(CLASSES)]
    assert difference.abs().max(axis=None) < 1e-6


def test_an_average_once_an_epoch_moves_once_an_epoch(small):
    config = small(epochs=2, ema__every="epoch", keep_checkpoints=9, **EMA)
    run(config)
    folders = sorted((config.out / "checkpoints").glob("step-*"))
    states = [load_file(folder / "model.safetensors") for folder in folders]
    start = trainer_of(small("start")).learner.raw_model.state_dict()
    for name, tensor in weights(config, "ema").items():
        if tensor.is_floating_point():
            expected = start[name].double()
            for n, state in enumerate(states, start=1):
                decay = (1 + n) / (10 + n)
                expected = decay * expected + (1 - decay) * state[name].double()
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)


def test_frozen_layers_do_not_change(small):
    config = small(epochs=2, freeze__num_layers=8, keep_checkpoints=9)
    trainer = trainer_of(config)
    first = {name: tensor.clone() for name, tensor in trainer.learner.raw_model.state_dict().items()}
    frozen = {n.rpartition(".")[0] for n, p in trainer.learner.raw_model.named_parameters() if not p.requires_grad}
    assert len(frozen) == 8
    trainer.fit()
    states = [load_file(f / "model.safetensors") for f in sorted((config.out / "checkpoints").glob("step-*"))]
    for name, tensor in first.items():
        if name.rpartition(".")[0] in frozen:
            assert torch.equal(states[0][name], tensor), name
            assert torch.equal(states[1][name], tensor), name
        elif name.endswith(("weight", "running_mean")):
            assert not torch.equal(states[0][name], tensor), name


def test_a_plateau_drops_the_rate_and_ends_the_run_for_good(small, monkeypatch):
    monkeypatch.setattr(KlMetric, "monitors", lambda metric, *_: dict.fromkeys(metric.monitor_names, 1.0))
    config = small(
        epochs=9, schedule__name="constant", optim__lr=0.001, plateau__drop_factor=0.5, plateau__patience=0,
        plateau__stop_patience=2, plateau__monitor="val_kl_lpd",
    )  # fmt: skip
    run(config)
    status = json.loads((config.out / "status.json").read_text())
    assert (status["state"], status["stopped_early"]) == ("finished", True)
    rates = {line["epoch"]: line["lr"] for line in read_metrics(config.out) if "lr" in line}
    assert rates == {0: 0.001, 1: 0.001, 2: 0.0005}
    before = weights(config)
    monkeypatch.setattr(Stepper, "take", lambda *_, **__: pytest.fail("a finished run trained on"))
    again(config)
    torch.testing.assert_close(weights(config), before, rtol=0, atol=0)


def test_a_monitor_that_the_run_does_not_have_is_refused_before_the_first_step(small):
    with pytest.raises(UserError, match=r"plateau.monitor: unknown 'val_kl_raw'; one of: val_kl, val_kl_seizure, "):
        trainer_of(small(plateau__stop_patience=1, plateau__monitor="val_kl_raw"))
    with pytest.raises(UserError, match="plateau: needs the scores of a validation fold, fold is none"):
        small(plateau__stop_patience=1, fold="none")


def test_accumulation_equals_one_large_batch_with_row_weights(small):
    """A network without batch norms: one group of 4, or 4 groups of 1 in one pass or in 4."""
    found = {}
    for size, pass_rows in ((1, 1), (1, 4), (4, 4)):
        config = small(
            f"m{size}-{pass_rows}", epochs=1, group_size=size, pass_rows=pass_rows, precision="float64",
            model__name="test_convnext",
            loss__vote_power=1, loss__vote_steps="[[1,0.25],[8,1]]", loss__smooth_below=8,
            optim__max_grad_norm=0.1,
        )  # fmt: skip
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, drop_rate=0.0, drop_path_rate=0.0))
        again(config)
        found[size, pass_rows] = (column(config, "loss"), weights(config))
    for each in ((1, 4), (4, 4)):
        assert found[1, 1][0] == pytest.approx(found[each][0], abs=1e-10)
        torch.testing.assert_close(found[1, 1][1], found[each][1], rtol=0, atol=1e-10)


def test_passes_change_neither_norms_nor_draws(small):
    """A network with batch norms and dropout: groups of 2 in separate passes, or 2 groups in one pass."""
    found = {}
    for pass_rows in (2, 4):
        config = small(f"p{pass_rows}", epochs=1, pass_rows=pass_rows, precision="float64", optim__name="sgd")
        again(config)
        found[pass_rows] = (column(config, "loss"), weights(config))
    assert found[2][0] == pytest.approx(found[4][0], abs=1e-10)
    torch.testing.assert_close(found[2][1], found[4][1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("pass_rows", [2, 4])
def test_the_loss_of_a_step_is_the_weighted_mean_of_its_rows(small, monkeypatch, pass_rows):
    config = small(epochs=1, loss__vote_power=1, pass_rows=pass_rows)
    trainer = trainer_of(config)
    seen, its_rows = [], []
    real = type(trainer.learner.task).loss_rows

    def watched(self, model, images, targets, rows, key):
        losses = real(self, model, images, targets, rows, key)
        assert len(losses) == rows.num_own == pass_rows
        seen.append(losses.detach().double().numpy())
        its_rows.append(rows.rows)
        return losses

    monkeypatch.setattr(type(trainer.learner.task), "loss_rows", watched)
    rows = epoch_rows(config, trainer.data, 0)
    trainer.fit()
    np.testing.assert_array_equal(np.concatenate(its_rows), rows)
    votes = trainer.data.index.num_voters[rows].astype(float).reshape(-1, 4)
    expected = np.average(np.concatenate(seen).reshape(-1, 4), weights=votes, axis=1)
    assert column(config, "loss") == pytest.approx(expected, rel=1e-6)


def test_a_step_that_overflows_moves_nothing_but_the_cursor(small, monkeypatch):
    """With a gradient scaler, one gradient is infinite in step 1: schedule, average and norms skip that step."""
    config = small(epochs=1, **EMA)
    world = open_world(config.precision, 60)
    world.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer = trainer_of(config, world)
    learner, real, states, overflow = trainer.learner, Stepper.take, [], []
    next(learner.raw_model.parameters()).register_hook(lambda gradient: gradient * np.inf if overflow else gradient)

    def take(self, batches, step, **options):
        overflow[:] = [True] * (step.overall == 1)
        outcome = real(self, batches, step, **options)
        state = {**learner.raw_model.state_dict(), **{f"ema.{n}": t for n, t in learner.ema.tensors.items()}}
        states.append({name: tensor.clone() for name, tensor in state.items()})
        return outcome

    monkeypatch.setattr(Stepper, "take", take)
    trainer.fit()
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    assert any(not torch.equal(states[2][name], states[1][name]) for name in states[1])
    assert learner.ema.num_updates == len(states) - 1
    rates = column(config, "lr")
    assert rates[2] == rates[1] != rates[0]
    (checkpoint,) = (config.out / "checkpoints").glob("step-*/state.json")
    assert json.loads(checkpoint.read_text())["num_skipped"] == 1
    assert world.accelerator.scaler.get_scale() == 4.0


def test_invalid_labels_are_rejected_before_the_run_folder_is_created(small, monkeypatch):
    from hms_dist.shards.index import Index

    broken = property(lambda self: np.full((len(self), 6), 0.5))
    monkeypatch.setattr(Index, "targets", broken)
    with pytest.raises(UserError, match=r"labels: row \d+-\d+: expected six probabilities with a sum of 1, found 0.5"):
        run(small())
    assert not small().out.exists()


@pytest.mark.usefixtures("torch_rng")
def test_a_network_by_rows_has_the_plain_models_names_weights_and_outputs(small):
    """Also with channels-last memory, as on a GPU."""
    config = small()
    plain = build(config.model, config.seed, size=(64, 64)).eval()
    network, _ = build_network(config, open_world("float32", 60))
    network.eval()
    images = torch.randn(2, 1, 64, 64)
    assert network.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(network.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert not any(type(module) in (nn.BatchNorm2d, nn.Dropout, DropPath) for module in network.modules())
    torch.testing.assert_close(network(images), plain(images), rtol=1e-4, atol=1e-5)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), plain(images), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("torch_rng")
def test_a_network_trains_the_same_with_channels_last(small):
    network, rows = build_network(small(precision="float64"), open_world("float64", 60))
    images, norms = torch.randn(4, 1, 64, 64, dtype=torch.float64), GroupNorms(network, rows)
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=memory_format).train()
        rows.begin(whole_groups(2, 2), draw_words(0, 0, 0, range(4)))
        norms.begin_step()
        norms.begin_pass()
        outputs = network(images.to(memory_format=memory_format))
        outputs.square().sum().backward()
        found.append((outputs, [parameter.grad.contiguous() for parameter in network.parameters()]))
        network.zero_grad()
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", ["tf32", "float32"])
def test_short_products_are_allowed_in_tf32_alone(precision):
    open_world(precision, 60)
    try:
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
    finally:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.slow
def test_a_compiled_run_is_the_plain_run_within_rounding(small):
    options = {"epochs": 1, "model__name": "resnet10t", "model__drop_rate": 0, "model__drop_path_rate": 0, **EMA}
    plain, compiled = small("plain", **options), small("compiled", compile_mode="default", **options)
    run(plain)
    torch.compiler.reset()
    counters.clear()
    again(compiled)
    assert counters["stats"]["unique_graphs"] > 0
    for name in ("model", "ema"):
        assert weights(plain, name).keys() == weights(compiled, name).keys()
    assert column(compiled, "loss")[0] == pytest.approx(column(plain, "loss")[0], rel=1e-4)
