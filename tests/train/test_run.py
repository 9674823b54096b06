"""One rank, end to end: the files of a run, equal results of equal runs, and a stopped run that resumes bit for bit."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hms_dist.config.load import load
from hms_dist.core.errors import JobError, UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.panels import DEFAULT_PANELS
from hms_dist.panels.eeg_spectrogram import EegSpectrogram
from hms_dist.predict.infer import Predict
from hms_dist.predict.infer import run as predict
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.results.metrics import kaggle_kl
from hms_dist.shards.index import read_index
from hms_dist.train import loop
from hms_dist.train.data.run_data import epoch_rows, open_run_data
from hms_dist.train.folder.model_card import read_card
from hms_dist.train.folder.owner import Ownership
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.folder.run_folder import stored_weights
from hms_dist.train.folder.stop import StopRequest
from hms_dist.train.learn.step import Stepper
from hms_dist.train.loop import Trainer, run
from hms_dist.train.ranks.world import open_world
from hms_dist.train.settings import TrainConfig


def weights(config, folder="final"):
    return load_file(config.out / folder / "model.safetensors")


def assert_same(one, other):
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def again(config):
    AcceleratorState._reset_state(reset_partial_state=True)
    run(config)


def test_what_a_run_leaves_behind(small, shard_set):
    config = small()
    run(config)
    index = read_index(shard_set / "index.parquet")
    rows = open_run_data(config).validation_rows
    names = {"config.yaml", "canvas.yaml", "metrics.jsonl", "checkpoints", "best", "final", "predictions.parquet"}
    assert names | {"status.json", "environment.json", "train.log", "render.yaml"} == {
        path.name for path in config.out.iterdir()
    }
    status = json.loads((config.out / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("finished", 0)
    lines = read_metrics(config.out)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert all(np.isfinite(line["loss"]) and 0 <= line["data_wait_share"] <= 1 for line in steps)
    check_phases(config, lines, len(rows))
    best = min(line["val_kl"] for line in lines if "val_kl" in line)
    table = pd.read_parquet(config.out / "predictions.parquet")
    assert table["key"].tolist() == index.frame["key"].iloc[rows].tolist()
    assert table["fold"].tolist() == [0] * len(rows)
    probabilities = table[list(CLASSES)].to_numpy()
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert kaggle_kl(index.targets[rows], probabilities) == pytest.approx(best, abs=1e-6)
    check_cards(config, index, rows, best)


def check_cards(config, index, rows, best):
    """The card of the best weights has their held-out figures, that of the final ones those of the last epoch."""
    card = read_card(config.out / "best")
    assert card["training"]["shards"] == json.loads((config.out / "best/meta.json").read_text())["shards"]
    assert card["training"]["num_rows"] + len(rows) == len(index)
    assert (card["training"]["folds"], card["run"]["fold"]) == ([1, 2], 0)
    figures = card["held_out"]
    assert figures["num_patients"] == len(np.unique(index.ids("patient_id")[rows]))
    assert figures["kl"]["value"] == pytest.approx(best, abs=1e-9)
    assert figures["kl"]["interval"][0] < best < figures["kl"]["interval"][1]
    text = (config.out / "best/model_card.md").read_text()
    for words in ("Not a medical device", f"{best:.4f} (", f"| Trained on | {card['training']['num_rows']} rows of"):
        assert words in text
    last = [line["val_kl"] for line in read_metrics(config.out) if "val_kl" in line][-1]
    assert read_card(config.out / "final")["held_out"]["kl"]["value"] == pytest.approx(last, abs=1e-9)
    (config.out / "best/model_card.json").write_text(json.dumps({**card, "epochs": 100}))
    with pytest.raises(UserError, match=r"model_card.json: its SHA-256 is not the one in hashes.json"):
        read_card(config.out / "best")


def check_phases(config, lines, num_rows):
    """Every epoch, evaluation and checkpoint has its seconds in metrics.jsonl and in the log; every evaluated batch its
    KL, whose mean over rows is the evaluation's."""
    log = (config.out / "train.log").read_text()
    epochs = [line["epoch_s"] for line in lines if "epoch_s" in line]
    assert len(epochs) == config.epochs == log.count(": trained in ")
    assert min(epochs) > 0
    sizes = [min(config.group_size, num_rows - first) for first in range(0, num_rows, config.group_size)]
    for line in (line for line in lines if "val_kl" in line):
        assert line["evaluation_s"] > 0
        assert np.average(line["val_batch_kl"], weights=sizes) == pytest.approx(line["val_kl"], rel=1e-9)
        assert f"validation batch {len(sizes)} of {len(sizes)}: KL {line['val_batch_kl'][-1]:.4f}" in log
    assert sum("checkpoint_s" in line for line in lines) == config.epochs - 1, "each in the first line after it"
    assert json.loads((config.out / "status.json").read_text())["checkpoint_s"] >= 0, "the last one"
    assert log.count(": checkpoint in ") == config.epochs


def test_no_patient_is_on_both_sides(small):
    data = open_run_data(small())
    patients = data.index.ids("patient_id")
    assert not set(patients[data.train_rows]) & set(patients[data.validation_rows])
    assert len(data.train_rows) + len(data.validation_rows) == len(data.index)
    everything = open_run_data(small(fold="none"))
    assert len(everything.train_rows) == len(data.index)
    assert not len(everything.validation_rows)


def test_same_seed_same_weights_and_another_seed_others(small, finished):
    run(small("same", epochs=1))
    again(small("other", epochs=1, seed=1))
    assert_same(weights(finished), weights(small("same", epochs=1)))
    one, other = weights(finished), weights(small("other", epochs=1))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_predict_repeats_the_validation_and_marks_what_was_held_out(one_epoch, shard_set, tmp_path):
    predict(Predict(run=one_epoch, shards=shard_set, out=tmp_path / "p.parquet"))
    every = pd.read_parquet(tmp_path / "p.parquet").set_index("key")
    held_out = pd.read_parquet(one_epoch / "predictions.parquet").set_index("key")
    assert len(every) == len(read_index(shard_set / "index.parquet"))
    assert set(every.index[every["fold"].notna()]) == set(held_out.index)
    difference = every.loc[held_out.index, list(CLASSES)] - held_out[list(CLASSES)]
    assert difference.abs().max(axis=None) < 1e-6


@pytest.fixture(scope="module")
def whole(call, small_file, shard_set, tmp_path_factory):
    """A run that was not stopped, of two epochs; it is only read."""
    words = ["--config", str(small_file), "--shards", str(shard_set), "--checkpoint_every=1"]
    words += ["--out", str(tmp_path_factory.mktemp("whole") / "run")]
    call("train", *words)
    return load(TrainConfig, words)


@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_a_stopped_run_resumes_bit_for_bit(small, whole, stop_after, monkeypatch):
    stopped = small("stopped", checkpoint_every=1)
    real, taken = Stepper.take, []

    def stop(self, batches, step, **options):
        if len(taken) == stop_after:
            raise KeyboardInterrupt
        taken.append(step)
        return real(self, batches, step, **options)

    monkeypatch.setattr(Stepper, "take", stop)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    assert json.loads((stopped.out / "status.json").read_text())["state"] == "interrupted"
    monkeypatch.setattr(Stepper, "take", real)
    torch.manual_seed(99)
    again(stopped)
    assert_same(weights(whole), weights(stopped))
    losses = [[line["loss"] for line in read_metrics(c.out) if "loss" in line] for c in (whole, stopped)]
    assert losses[0] == losses[1]
    for folder in ("best", "final"):
        one, other = (read_card(config.out / folder) for config in (whole, stopped))
        assert {**one, "run": 0} == {**other, "run": 0}


def test_a_finished_run_has_nothing_left_to_do(finished, monkeypatch):
    before = weights(finished)
    monkeypatch.setattr(Stepper, "take", lambda *_, **__: pytest.fail("a finished run trained on"))
    run(finished)
    assert_same(before, weights(finished))


def test_a_monitor_without_consequences_need_not_be_measured(small):
    config = small(epochs=1, plateau__monitor="val_lrap")
    run(config)
    assert json.loads((config.out / "status.json").read_text())["state"] == "finished"


@pytest.mark.usefixtures("finished")
def test_a_run_folder_of_another_configuration_is_refused(small):
    with pytest.raises(UserError, match=r"holds a run whose optim and epochs differ"):
        again(small(epochs=2, optim__lr=0.5))
    with pytest.raises(UserError, match="holds a run already"):
        again(small(epochs=1, resume="never"))
    again(small(epochs=1, reader_threads=1))


@pytest.mark.usefixtures("finished")
def test_another_shard_set_is_refused_at_resume(small, recordings, tmp_path):
    render(Render(data=recordings, out=tmp_path / "other", samples_per_shard=16, seed=1))
    with pytest.raises(UserError, match="not the shard set that"):
        again(small(epochs=1, shards=tmp_path / "other"))
    panels = {**DEFAULT_PANELS, "eeg_spectrogram": EegSpectrogram(max_hz=15.0)}
    render(Render(data=recordings, out=tmp_path / "otherwise", samples_per_shard=16, panels=panels))
    with pytest.raises(UserError, match="its eeg_spectrogram were rendered with other options"):
        again(small(epochs=1, shards=tmp_path / "otherwise", other_shards="true"))
    again(small(epochs=1, shards=tmp_path / "other", other_shards="true"))


def test_training_on_all_rows_has_a_final_model_and_no_best(small):
    config = small(epochs=1, fold="none")
    run(config)
    assert (config.out / "final/model.safetensors").exists()
    assert not (config.out / "best").exists()
    assert not (config.out / "predictions.parquet").exists()
    assert read_card(config.out / "final")["held_out"] is None
    assert "the run trained on all patients" in (config.out / "final/model_card.md").read_text()


def test_ranks_that_accelerate_does_not_see_are_refused(monkeypatch):
    """A launcher that started two ranks, and an accelerate that assumes a single process."""
    open_world("float32", 60)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="the launcher started 2 ranks but accelerate sees 1"):
        open_world("float32", 60)


def test_a_refusal_before_the_start_leaves_the_folder_free(small):
    with pytest.raises(UserError, match="selection leaves 0 of"):
        run(small(selection__min_votes=1000))
    assert not small().out.exists()
    again(small(epochs=1))


@pytest.mark.usefixtures("finished")
def test_a_mistake_on_a_finished_run_does_not_touch_its_record(small, tmp_path):
    before = {p.name: p.read_bytes() for p in small().out.iterdir() if p.is_file()}
    with pytest.raises(UserError, match="no such folder"):
        again(small(epochs=1, shards=tmp_path / "nowhere"))
    assert before == {p.name: p.read_bytes() for p in small().out.iterdir() if p.is_file()}


def test_a_nan_loss_ends_the_run(small):
    config = small(optim__lr=1e12, epochs=8)
    message = r"the loss is (?:nan|inf) at step (\d+) on rows (\d+-\d+(?:, \d+-\d+)*); look at .*lower optim.lr"
    with pytest.raises(JobError, match=message) as error:
        run(config)
    step, named = re.search(message, str(error.value)).groups()
    data = open_run_data(config)
    epoch, place = divmod(int(step) - 1, data.steps_of[0])
    planned = epoch_rows(config, data, epoch)[4 * place : 4 * place + 4]
    keys = named.split(", ")
    assert len(set(keys)) == len(keys)
    assert set(keys) <= set(data.index.frame["key"].iloc[planned])
    status = json.loads((config.out / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert all("loss" not in line or np.isfinite(line["loss"]) for line in read_metrics(config.out))


def test_weights_can_be_read_by_others(one_epoch):
    umask = os.umask(0)
    os.umask(umask)
    for path in (one_epoch / "best").iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_predicting_on_another_recipe_is_refused(one_epoch, recordings, tmp_path):
    panels = {**DEFAULT_PANELS, "eeg_spectrogram": EegSpectrogram(reference="record")}
    render(Render(data=recordings, out=tmp_path / "other", panels=panels))
    with pytest.raises(UserError, match="its eeg_spectrogram were rendered with other options"):
        predict(Predict(run=one_epoch, shards=tmp_path / "other", out=tmp_path / "p.parquet"))


def test_predict_finds_the_best_weights_between_two_renames(finished, shard_set, tmp_path):
    (finished.out / "best").rename(finished.out / ".best.old")
    assert stored_weights(finished.out).name == "best"
    predict(Predict(run=finished.out, shards=shard_set, out=tmp_path / "p.parquet"))


def test_the_loss_is_the_mean_over_the_global_batch(small, monkeypatch):
    """One group of 4, or 4 groups of 1, without norms and draws that depend on the group: the same step."""
    losses = {}
    for size in (1, 4):
        config = small(
            f"m{size}", epochs=1, group_size=size, precision="float64", model__name="test_convnext",
            flip_probability=0.5,
        )  # fmt: skip
        config = _without_draws(config)
        again(config)
        losses[size] = [line["loss"] for line in read_metrics(config.out) if "loss" in line]
    assert losses[1] == pytest.approx(losses[4], abs=1e-10)


def _without_draws(config):
    import dataclasses

    return dataclasses.replace(config, model=dataclasses.replace(config.model, drop_rate=0.0, drop_path_rate=0.0))


def test_evaluation_pads_without_a_trace(small, rng):
    """Every group size predicts the same rows, once each, in order."""
    config = small(precision="float64")
    data = open_run_data(config)
    world = open_world("float64", 60)
    trainer = Trainer(config, data, world, Ownership(config.out, None), StopRequest(config.out))
    rows = rng.permutation(len(data.index))[:7]
    model, task = trainer.learner.stepper.model, trainer.learner.task
    found = [
        loop.predict_rows(model, data.plain, rows, world, task=task, size=size, threads=2) for size in (1, 3, 7, 16)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-12)
