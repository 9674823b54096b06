"""Trackers: TensorBoard and Weights & Biases get the values of metrics.jsonl, without a network."""

import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.train.folder import trackers
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.folder.trackers import check_trackers, flat, scalars
from hms_dist.train.loop import run


def test_tensorboard_holds_the_numbers_of_the_metrics(small):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = small(epochs=1, trackers='["tensorboard"]')
    run(config)
    (file,) = (config.out / "trackers/hms_dist").glob("events.out.*")
    found = events.EventAccumulator(str(file))
    found.Reload()
    lines = read_metrics(config.out)
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        (step, pytest.approx(loss, rel=1e-6)) for step, loss in losses
    ]
    assert {f"val_kl_{name}" for name in CLASSES} <= set(found.Tags()["scalars"])


def test_wandb_stays_on_this_machine(small, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config = small(epochs=1, trackers='["wandb"]')
    run(config)
    assert list((config.out / "trackers/wandb").glob("offline-run-*/run-*.wandb"))


def test_a_tracker_that_cannot_start_reports_why(small, monkeypatch):
    pytest.importorskip("wandb").teardown()  # of an earlier test of this process
    monkeypatch.setenv("WANDB_MODE", "bogus")
    with pytest.raises(UserError, match=r"^trackers: wandb cannot start \(.*mode.*\); set WANDB_MODE=offline"):
        run(small(epochs=1, trackers='["wandb"]'))


def test_a_tracker_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"trackers: wandb is not installed; pip install 'hms-dist\[trackers\]'"):
        check_trackers(["wandb"])
    check_trackers([])


def test_options_become_flat_and_plain():
    assert flat({"a": {"b": 1, "c": None}, "d": [1, 2]}) == {"a.b": 1, "a.c": "None", "d": "[1, 2]"}


def test_only_numbers_are_tracked():
    assert scalars({"loss": 1, "val_confusion": [[1, 2]], "name": "x"}) == {"loss": 1.0}
