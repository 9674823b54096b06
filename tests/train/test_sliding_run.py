"""The sliding-window net as a run: it resumes bit for bit, reports its monitors, predicts again what it validated."""

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hms_dist.canvas.compose import Canvas
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.sliding_window import STRIDE, SlidingWindowConfig
from hms_dist.panels.kaggle_spectrogram import KaggleSpectrogram
from hms_dist.panels.pcen import Pcen
from hms_dist.predict.infer import Predict
from hms_dist.predict.infer import run as predict
from hms_dist.shards.index import read_index
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.learn.step import Stepper
from hms_dist.train.loop import run
from hms_dist.train.optimise.optim import OptimConfig, parameter_groups
from hms_dist.train.optimise.plateau import check_monitor
from hms_dist.train.settings import TrainConfig
from hms_dist.train.task import AnnotatedWindow, open_task


def losses(config):
    return [line["loss"] for line in read_metrics(config.out) if "loss" in line]


def test_what_an_evaluation_reports_and_predict_repeats(sliding, shard_set, tmp_path):
    config = sliding(epochs=1, plateau__monitor="val_positive_log_loss")
    run(config)
    (line,) = [line for line in read_metrics(config.out) if "val_kl" in line]
    assert line["val_positive_log_loss"] > 0
    assert line["val_negative_log_loss"] > 0
    assert 1 / 6 <= line["val_lrap"] <= 1
    AcceleratorState._reset_state(reset_partial_state=True)
    predict(Predict(run=config.out, shards=shard_set, out=tmp_path / "p.parquet"))
    every = pd.read_parquet(tmp_path / "p.parquet").set_index("key")
    held_out = pd.read_parquet(config.out / "predictions.parquet").set_index("key")
    assert len(every) == len(read_index(shard_set / "index.parquet"))
    assert every[list(CLASSES)].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-6)
    assert (every.loc[held_out.index, list(CLASSES)] - held_out[list(CLASSES)]).abs().max(axis=None) < 1e-6


def test_a_stage_continues_with_the_weights_of_an_earlier_one(sliding):
    config = sliding(epochs=1, stages='[{"name": "one"}, {"name": "two", "init": "final:one", "optim": {"lr": 1e-30}}]')
    run(config)
    folders = (config.out / "stages/one", config.out)
    before, after = (load_file(folder / "final/model.safetensors") for folder in folders)
    assert all(name.startswith("backbone.") for name in before)
    learned = [name for name, tensor in before.items() if tensor.ndim > 1]
    assert len(learned) > 10
    for name in learned:
        torch.testing.assert_close(after[name], before[name])


@pytest.mark.parametrize("share", [0.5, 0.99, 1])
def test_a_crop_is_never_wider_than_the_canvas(share):
    task = AnnotatedWindow(config=SlidingWindowConfig(crop_share=share), width=252, window=(100.0, 150.0))
    assert task.crop_width == {0.5: 128, 0.99: 252, 1: 252}[share]


def test_a_stopped_run_resumes_bit_for_bit(sliding, monkeypatch):
    """Crops, pastes and dropout are drawn again as they were."""
    whole, stopped = (sliding(out, checkpoint_every=1, epochs=1) for out in ("whole", "stopped"))
    run(whole)
    real, taken = Stepper.take, []

    def stop(self, batches, step, **options):
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append(step)
        return real(self, batches, step, **options)

    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(Stepper, "take", stop)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    monkeypatch.setattr(Stepper, "take", real)
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.manual_seed(99)
    run(stopped)
    assert losses(stopped) == losses(whole)
    one, other = (load_file(config.out / "final/model.safetensors") for config in (whole, stopped))
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_crop_that_cannot_hold_the_window_is_refused(sliding, sliding_file):
    sliding_file.write_text(sliding_file.read_text().replace("crop_share: 0.7", "crop_share: 0.15"))
    with pytest.raises(UserError, match=r"crop_share: a crop of 32 columns cannot hold columns 6\d.*; raise it"):
        run(sliding())


def test_a_monitor_of_another_task_is_refused(small):
    with pytest.raises(UserError, match="val_lrap"):
        run(small(plateau__monitor="val_lrap", plateau__stop_patience=2))


@pytest.mark.parametrize(("canvas", "window"), [("seed_004", (322, 482)), ("seed_004_kaggle", (472, 488))])
def test_the_recipe_slides_over_its_canvases(repository, canvas, window):
    words = ["--config", str(repository / "configs/train/seed_004.yaml"), "--shards", "none", "--out", "none"]
    config = load(TrainConfig, [*words, "--canvas", str(repository / f"configs/canvas/{canvas}.yaml")])
    panels = {"pcen": Pcen(), "kaggle_spectrogram": KaggleSpectrogram()}
    task = open_task(config, Canvas(config.canvas, {name: panel.spec for name, panel in panels.items()}))
    assert isinstance(task, AnnotatedWindow)
    assert task.window == pytest.approx(window, abs=1)
    assert task.crop_width % STRIDE == 0
    check_monitor(config.plateau, task.monitor_names)


def test_layers_have_the_rates_that_they_have_in_a_plain_model():
    """The head's own rate looks through the net at timm's head."""
    config = OptimConfig(head_lr_factor=5.0)
    plain, sliding = (
        build(ModelConfig(name="resnet10t", sliding_window=option), seed=0) for option in (None, SlidingWindowConfig())
    )
    found = []
    for model in (plain, sliding):
        groups = parameter_groups(config, model)
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
        found.append([(group["lr"], group["weight_decay"], len(group["params"])) for group in groups])
    assert found[0] == found[1]
    assert len({rate for rate, _, _ in found[0]}) == 2
