"""`load_run`: the probabilities of `hms-dist predict`, from shard sets, recordings and canvases."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

import hms_dist
from hms_dist.api.tables import with_dataset
from hms_dist.cli import main
from hms_dist.datasets import Dataset
from hms_dist.panels.kaggle_spectrogram import KaggleSpectrogram
from hms_dist.results.predictions import prediction_table, read_predictions


def of_command(run, shards, out, forget, *words):
    assert main(["predict", "--run", str(run), "--shards", str(shards), "--out", str(out), *words]) == 0
    forget()
    return read_predictions(out)


@pytest.fixture(scope="module")
def model(trained):
    return hms_dist.load_run(str(trained))


def test_a_shard_set_is_predicted_as_the_command_does(model, trained, shard_set, tmp_path, forget):
    table = model.predict(shard_set, tta=["flip"])
    assert_frame_equal(table, of_command(trained, shard_set, tmp_path / "a.parquet", forget, "--tta", "flip"))
    rows = [7, 2]
    some = model.predict(hms_dist.open_shards(shard_set), tta=["flip"], rows=rows)
    assert_frame_equal(some, table.iloc[rows].reset_index(drop=True), rtol=1e-6)


def test_mixed_precision_is_that_of_the_run(trained, shard_set, tmp_path, edited, forget):
    shutil.copytree(trained, tmp_path / "run")
    edited(tmp_path / "run/config.yaml", "precision: float32", "precision: bf16")
    table = hms_dist.load_run(tmp_path / "run").predict(shard_set)
    assert_frame_equal(table, of_command(tmp_path / "run", shard_set, tmp_path / "a.parquet", forget))


def test_a_recording_is_predicted_as_its_rows(model, recordings, shard_set):
    index = hms_dist.open_shards(shard_set).index
    rows = np.flatnonzero(index["eeg_id"] == index["eeg_id"].iloc[0])
    recording = hms_dist.read_recording(recordings, eeg_id=int(index["eeg_id"].iloc[0]))
    starts = index["eeg_label_offset_seconds"].iloc[rows].tolist()
    others = index["spectrogram_label_offset_seconds"].iloc[rows].tolist()
    table = model.predict(recording, tta=["flip", "reverse"], start_s=starts, spectrogram_start_s=others)
    assert list(table) == ["eeg_id", "time_s", *model.classes]
    assert np.allclose(table["time_s"], np.array(starts) + 25)
    expected = model.predict(shard_set, tta=["flip", "reverse"], rows=rows)
    assert np.allclose(table[list(model.classes)], expected[list(model.classes)], atol=1e-6)
    with pytest.raises(hms_dist.UserError, match=f"spectrogram_start_s: expected one a window, {len(starts)}, found 0"):
        model.predict(recording, start_s=starts, spectrogram_start_s=[])
    with pytest.raises(hms_dist.UserError, match="spectrogram"):
        model.predict(recording, start_s=starts, spectrogram_start_s=[1e6] * len(starts))
    every = model.predict(recording, every_s=10)
    assert np.allclose(np.diff(every["time_s"]), 10)
    assert every["time_s"].iloc[-1] + 25 <= len(recording.eeg) / 200 < every["time_s"].iloc[-1] + 35


def test_a_file_is_predicted_as_the_command_predicts_its_windows(model, trained, edf_file, tmp_path, forget):
    words = ["--run", trained, "--recording", edf_file, "--out", tmp_path / "a.parquet", "--every_s", "10"]
    assert main(["predict", *map(str, words)]) == 0
    forget()
    expected = pd.read_parquet(tmp_path / "a.parquet")
    recording = hms_dist.read_recording(edf_file)
    inside = (expected["time_s"] >= 25) & (expected["time_s"] <= len(recording.eeg) / 200 - 25)
    table = model.predict(recording, start_s=expected["time_s"][inside] - 25)
    classes = list(model.classes)
    assert np.allclose(table[classes], expected.loc[inside, classes], atol=0.01)  # filters begin elsewhere
    again = hms_dist.read_recording(edf_file, reading={"reference": "average"})
    assert np.allclose(np.nanmean(again.eeg[:, :19], axis=1), 0, atol=1e-3)


def test_the_spectrogram_of_a_file_is_that_of_import(edf_file, tmp_path):
    words = ["--data", edf_file, "--out", tmp_path / "set", "--labels", "none", "--every_s", "10", "--pictures", "0"]
    assert main(["import", *map(str, words)]) == 0
    rows = pd.read_csv(tmp_path / "set/test.csv")
    imported = hms_dist.read_recording(tmp_path / "set", eeg_id=int(rows["eeg_id"][0]), split="test")
    recording, panel, row = hms_dist.read_recording(edf_file), KaggleSpectrogram(), rows.iloc[len(rows) // 2]
    offset = row["spectrogram_label_offset_seconds"]
    theirs = hms_dist.draw(imported, panel, start_s=0.0, spectrogram_start_s=offset)
    ours = hms_dist.draw(recording, panel, start_s=offset - 25)
    assert np.allclose(ours.astype(np.float32), theirs.astype(np.float32), atol=0.01, equal_nan=True)
    assert np.isfinite(ours.astype(np.float32)).any()


def test_canvases_are_predicted_as_their_rows_and_gradients_reach_the_picture(model, shard_set):
    shards = hms_dist.open_shards(shard_set)
    images, _, rows = next(shards.stream(model.canvas, batch_size=5))
    expected = model.predict(shards, rows=rows)[list(model.classes)].to_numpy()
    assert np.allclose(model.predict(images).to_numpy(), expected, atol=1e-6)
    assert np.allclose(model.predict(images.numpy()).to_numpy(), expected, atol=1e-6)
    images.requires_grad_()
    model(images)[:, 0].sum().backward()
    assert images.grad.abs().max() > 0
    assert len(model.predict(images[:0])) == 0


def test_a_sliding_window_network_is_predicted_as_the_command_does(trained_sliding, shard_set, tmp_path, forget):
    model = hms_dist.load_run(trained_sliding)
    table = model.predict(shard_set)
    assert_frame_equal(table, of_command(trained_sliding, shard_set, tmp_path / "a.parquet", forget))
    images, _, rows = next(hms_dist.open_shards(shard_set).stream(model.canvas, batch_size=3))
    assert np.allclose(model(images).detach(), table.iloc[rows][list(model.classes)], atol=1e-6)


def test_weights_are_in_the_state_once(model):
    assert all(name.startswith("network.") for name in model.state_dict())
    assert len(list(model.parameters())) == len(list(model.network.parameters()))
    assert not model.training


def test_tables_are_scored_and_pooled_as_files_are(model, shard_set, tmp_path, forget, trained):
    table = of_command(trained, shard_set, tmp_path / "a.parquet", forget)
    scores = hms_dist.score(tmp_path / "a.parquet", shard_set, num_draws=0)
    assert hms_dist.score(model.predict(shard_set), str(shard_set), num_draws=0)["kl"] == pytest.approx(scores["kl"])
    other = model.predict(shard_set, tta=["flip"])
    pooled = hms_dist.ensemble([tmp_path / "a.parquet", other], out=tmp_path / "pooled.parquet")
    classes = list(model.classes)
    assert np.allclose(pooled[classes], (table[classes] + other[classes]) / 2)
    assert_frame_equal(pooled, read_predictions(tmp_path / "pooled.parquet"))


def test_a_fit_writes_its_weights(out_of_fold, index, shard_set, tmp_path, rng):
    paths = [out_of_fold(name, rng.dirichlet(np.ones(6), len(index))) for name in "ab"]
    hms_dist.ensemble(paths, out=tmp_path / "fit.parquet", weights="fit", labels=shard_set)
    applied = hms_dist.ensemble(paths, weights=tmp_path / "fit.json")
    assert len(applied) == len(index)


def test_tables_of_other_classes_keep_their_data_set(index, rng):
    dataset = Dataset(name="other", classes=("spike", "slowing"), target="yes_no")
    values = rng.random((2, len(index), 2))
    tables = [with_dataset(prediction_table(index.frame, None, each, dataset), dataset) for each in values]
    pooled = hms_dist.ensemble(tables)
    assert np.allclose(pooled[["spike", "slowing"]], values.mean(axis=0))
    again = hms_dist.ensemble([pooled, pooled])
    assert np.allclose(again[["spike", "slowing"]], values.mean(axis=0))


MISTAKES = {
    "no run": (lambda m, s: hms_dist.load_run(s), "not a run folder"),
    "no such weights": (
        lambda m, s: hms_dist.load_run(m.run, checkpoint="step-00009999"),
        "no weights 'step-00009999'",
    ),
    "another size": (lambda m, s: m(torch.zeros(2, 1, 8, 8)), r"expected \[n, 1, 64, 64\], found \[2, 1, 8, 8\]"),
    "mirror images of canvases": (lambda m, s: m.predict(torch.zeros(1, 1, 64, 64), tta=["flip"]), "no mirror images"),
    "another fit": (lambda m, s: hms_dist.ensemble([s / "no.parquet"], weights="fit"), "give --weights fit and"),
    "no table": (lambda m, s: hms_dist.score(s / "no.parquet", s), "no such file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake, model, shard_set):
    call, words = MISTAKES[mistake]
    with pytest.raises(hms_dist.UserError, match=words) as raised:
        call(model, shard_set)
    assert "\n" not in str(raised.value)
