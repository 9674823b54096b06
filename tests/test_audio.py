"""Audio through the whole chain, by the commands: simulated clips in RFCX's layout, to the submission."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_dist.datasets import RFCX, Dataset, Submission, read_dataset, write_dataset
from hms_dist.results.metrics import label_ranking
from hms_dist.results.predictions import read_predictions
from hms_dist.results.yes_no import recording_lwlrap
from hms_dist.shards.index import open_set

BIRDS = Dataset(
    name="birds", classes=("s0", "s1", "s2", "s3"), target="yes_no", signal="audio", rate_hz=8000, window_s=2.0,
    context_s=2.0, annotated_s=0.64,
    submission=Submission(key="recording_id", column="s{number}", pool="max"),
)  # fmt: skip
FRAMES = "rate_hz: 8000, window_s: 2, window_samples: 256, fft_samples: 256, hop_samples: 64, num_mels: 32"
RENDER = f"""
panels:
  pcen: {{class_path: AudioPcen, init_args: {{{FRAMES}}}}}
  waveform: {{class_path: Waveform, init_args: {{rate_hz: 8000, window_s: 2, margin_s: 0.1}}}}
samples_per_shard: 32
"""
TRAIN = f"""
canvas:
  height: 32
  width: 251
  drawn:
    drawn_pcen: {{class_path: DrawnPcen, init_args: {{drawn_from: waveform, {FRAMES}}}}}
  placements:
    - {{panel: drawn_pcen, arrangement: stacked, resize: exact, top: 0, left: 0, height: 32, width: 251,
       normalise: {{class_path: Affine, init_args: {{scale: 0.5}}}}}}
model: {{name: resnet10t, drop_rate: 0.5, sliding_window: {{pooling: window, paste_probability: 0.5}}}}
loss: {{name: bce_known}}
optim: {{lr: 0.001}}
num_folds: 2
epochs: 1
global_batch: 8
group_size: 4
flip_probability: 0.0
plateau: {{monitor: val_lrap, mode: max, drop_factor: 0.5, stop_patience: 3}}
"""


def test_the_competitions_folder_needs_no_description(tmp_path: Path) -> None:
    (tmp_path / "train_tp.csv").touch()
    assert read_dataset(tmp_path) == RFCX
    assert (RFCX.num_classes, RFCX.window_samples, RFCX.submission.pool) == (24, 480_000, "max")


@pytest.mark.slow
def test_from_clips_to_the_submission(call, tmp_path: Path, capsys) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_dataset(data, BIRDS)
    (tmp_path / "render.yaml").write_text(RENDER)
    (tmp_path / "train.yaml").write_text(TRAIN)
    clips = ["--audio.clip_s", "3.5", "--audio.num_test", "3", "--num_recordings", "24", "--seed", "1"]
    call("simulate", "--dataset", data / "dataset.yaml", "--out", data, *clips)
    recipe = ["--config", tmp_path / "render.yaml", "--data", data]
    for split in ("train", "test"):
        call("render", *recipe, "--split", split, "--out", tmp_path / split)
        call("verify", "--shards", tmp_path / split, "--data", data)
    manifest, index = open_set(tmp_path / "train")
    assert manifest.dataset == BIRDS
    assert (np.isfinite(index.targets).sum(axis=1) == 1).all()
    folds = index.frame.groupby("eeg_id")["fold_of_2"].nunique()
    assert (folds == 1).all(), "a recording is in one fold"
    middle = index.annotated_s
    boxes = index.frame[["t_min", "t_max"]].to_numpy().mean(axis=1) - index.frame["eeg_label_offset_seconds"]
    np.testing.assert_allclose(middle, boxes)
    assert (abs(middle - 1) > 1e-3).any(), "rows at the ends of a clip are moved inwards"
    assert ((middle > 0) & (middle < 2)).all()

    before = {path.name: path.read_bytes() for path in (tmp_path / "train").iterdir()}
    (tmp_path / "train/index.parquet").write_bytes(b"damaged")
    (tmp_path / "train/shard-000000.tar").write_bytes(before["shard-000000.tar"][:-2000])
    call("verify", "--shards", tmp_path / "train", "--data", data, code=2)
    call("verify", "--shards", tmp_path / "train", "--data", data, "--repair")
    assert {path.name: path.read_bytes() for path in (tmp_path / "train").iterdir()} == before

    shards = ["--config", tmp_path / "train.yaml", "--shards", tmp_path / "train"]
    runs = [tmp_path / f"run-{fold}" for fold in range(2)]
    for fold, run in enumerate(runs):
        call("train", *shards, "--fold", fold, "--out", run)
    call("oof", "--runs", *runs, "--out", tmp_path / "oof.parquet")
    lines = map(json.loads, (runs[0] / "metrics.jsonl").read_text().splitlines())
    (line,) = [line for line in lines if "val_log_loss" in line]
    held_out = read_predictions(runs[0] / "predictions.parquet").set_index("key")
    rows = [index.row_of(key) for key in held_out.index]
    found, truth = held_out[list(BIRDS.classes)].to_numpy(), index.targets[rows]
    assert line["val_lwlrap"] == pytest.approx(recording_lwlrap(index.ids("eeg_id")[rows], truth, found))
    one = (truth == 1).any(axis=1)
    assert line["val_lrap"] == pytest.approx(label_ranking(truth[one] == 1, found[one]))
    known = np.isfinite(truth) & (truth == 1)
    assert line["val_positive_log_loss"] == pytest.approx(-np.log(found[known]).mean(), rel=1e-4)

    tables = [tmp_path / f"test-{fold}.parquet" for fold in range(2)]
    for run, table in zip(runs, tables, strict=True):
        call("predict", "--run", run, "--shards", tmp_path / "test", "--out", table)
    call("ensemble", "--predictions", *tables, "--out", tmp_path / "submission.csv")
    submission = pd.read_csv(tmp_path / "submission.csv", dtype={"recording_id": str})
    assert submission.columns.tolist() == ["recording_id", "s0", "s1", "s2", "s3"]
    assert submission["recording_id"].tolist() == sorted(path.stem for path in (data / "test").iterdir())
    mean = sum(read_predictions(table)[list(BIRDS.classes)] for table in tables) / 2
    pooled = mean.groupby(read_predictions(tables[0])["eeg_id"]).max()
    np.testing.assert_allclose(submission.drop(columns="recording_id"), pooled, atol=1e-6)
    again = read_predictions(tmp_path / "submission.csv", BIRDS)
    assert again["eeg_id"].tolist() == sorted(index_of(tmp_path / "test"))

    call("ensemble", "--predictions", *tables, "--pool_rows", "mean", "--out", tmp_path / "mean.csv")
    by_mean = pd.read_csv(tmp_path / "mean.csv").drop(columns="recording_id")
    np.testing.assert_allclose(by_mean, mean.groupby(read_predictions(tables[0])["eeg_id"]).mean(), atol=1e-6)
    words = ["--predictions", *tables, "--pool_rows"]
    call("ensemble", *words, "mean", "--out", tmp_path / "mean.parquet", code=2)
    assert "pool_rows: a .parquet table has every row" in capsys.readouterr().err
    call("ensemble", *words, "none", "--out", tmp_path / "none.csv", code=2)
    assert "a submission takes one row per EEG, found several" in capsys.readouterr().err

    call("predict", "--run", runs[0], "--data", data, "--out", tmp_path / "direct.csv")
    direct = read_predictions(tmp_path / "direct.csv", BIRDS).set_index("eeg_id")
    expected = read_predictions(tables[0]).groupby("eeg_id")[list(BIRDS.classes)].max()
    np.testing.assert_allclose(direct, expected.loc[direct.index], atol=1e-6)

    (data / "train_fp.csv").unlink()
    capsys.readouterr()
    call("render", *recipe, "--out", tmp_path / "train", code=2)
    assert "made from other input (table_sha256" in capsys.readouterr().err
    path = next((data / "test").iterdir())
    path.write_bytes(path.read_bytes()[:500])
    call("render", *recipe, "--split", "test", "--out", tmp_path / "damaged", code=2)
    assert f"{path}: not a readable flac or wav file" in capsys.readouterr().err


def test_panels_of_another_signal_are_refused(call, tmp_path: Path, capsys) -> None:
    write_dataset(tmp_path, BIRDS)
    (tmp_path / "train").mkdir()
    box = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n0a,0,1,1,1,2,2\n"
    for name in ("train_tp.csv", "train_fp.csv"):
        (tmp_path / name).write_text(box.replace("0a", "0b") if "fp" in name else box)
    for config, message in (
        ("seed_004", "panels.pcen: Pcen is drawn from eeg, data set birds is audio; choose another panel"),
        ("rfcx", "panels.waveform: Waveform is drawn with rate_hz 48000, data set birds has 8000; give the panel that"),
    ):
        call("render", "--config", config, "--data", tmp_path, "--out", tmp_path / "set", code=2)
        assert message in capsys.readouterr().err


def index_of(folder: Path) -> set[int]:
    return set(open_set(folder)[1].ids("eeg_id").tolist())
