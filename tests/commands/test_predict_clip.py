"""`hms-dist predict --recording` and `model.predict` on clips of audio: the windows of a shard set of the same clip."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import resample_poly

import hms_dist
from hms_dist.datasets import Dataset, Submission, write_dataset
from hms_dist.predict.partial_results import parts_folder
from hms_dist.results.predictions import read_predictions

RATE_HZ, LENGTH_S = 8000, 5.3
BIRDS = Dataset(
    name="birds", classes=("s0", "s1", "s2", "s3"), target="yes_no", signal="audio", rate_hz=RATE_HZ, window_s=2.0,
    context_s=2.0, annotated_s=0.64, submission=Submission(key="recording_id", column="s{number}", pool="max"),
)  # fmt: skip
CLASSES = list(BIRDS.classes)
RENDER = """
panels:
  log_mel: {class_path: LogMel, init_args: {rate_hz: 8000, window_s: 2, window_samples: 256, fft_samples: 256,
                                            hop_samples: 64, num_mels: 32}}
"""
TRAIN = """
canvas:
  height: 32
  width: 64
  placements:
    - {panel: log_mel, arrangement: stacked, resize: area, top: 0, left: 0, height: 32, width: 64,
       normalise: {class_path: Affine, init_args: {shift: 10, scale: 0.1}}}
model: {name: test_resnet, sliding_window: {pooling: window}}
loss: {name: bce_known}
optim: {lr: 0.01}
num_folds: 2
epochs: 1
global_batch: 8
group_size: 4
"""


@pytest.fixture(scope="module")
def run(call, tmp_path_factory) -> Path:
    """A run trained on a few simulated clips, which are gone."""
    folder = tmp_path_factory.mktemp("birds")
    (folder / "data").mkdir()
    write_dataset(folder / "data", BIRDS)
    (folder / "render.yaml").write_text(RENDER)
    (folder / "train.yaml").write_text(TRAIN)
    clips = ["--audio.clip_s", "3", "--audio.num_test", "1", "--num_recordings", "16", "--seed", "1"]
    call("simulate", "--dataset", folder / "data/dataset.yaml", "--out", folder / "data", *clips)
    call("render", "--config", folder / "render.yaml", "--data", folder / "data", "--out", folder / "set")
    call("train", "--config", folder / "train.yaml", "--shards", folder / "set", "--fold", 0, "--out", folder / "run")
    return folder / "run"


@pytest.fixture
def sound(rng: np.random.Generator) -> np.ndarray:
    """Rising tones in noise, full scale 1."""
    time_s = np.arange(round(LENGTH_S * RATE_HZ)) / RATE_HZ
    return 0.2 * np.sin(2 * np.pi * (500 * time_s + 150 * time_s**2)) + 0.02 * rng.standard_normal(len(time_s))


def test_a_clip_is_the_shard_set_of_it(call, run: Path, sound: np.ndarray, tmp_path: Path, capsys) -> None:
    (tmp_path / "data/test").mkdir(parents=True)
    write_dataset(tmp_path / "data", BIRDS)
    clip = tmp_path / "robin at dawn.FLAC"
    soundfile.write(clip, sound, RATE_HZ, format="FLAC")
    (tmp_path / "data/test/0a.flac").write_bytes(clip.read_bytes())
    call("predict", "--run", run, "--recording", clip, "--out", tmp_path / "clip.parquet")
    line = capsys.readouterr().err.splitlines()[-1]
    assert not parts_folder(tmp_path / "clip.parquet").exists()
    call("render", "--config", run / "render.yaml", "--data", tmp_path / "data", "--split", "test",
         "--out", tmp_path / "set")  # fmt: skip
    call("predict", "--run", run, "--shards", tmp_path / "set", "--out", tmp_path / "set.parquet")

    found, expected = read_predictions(tmp_path / "clip.parquet", BIRDS), read_predictions(tmp_path / "set.parquet")
    assert found["time_s"].tolist() == [1, 2, 3, 4, LENGTH_S - 1]
    expected = expected.sort_values("time_s", ignore_index=True)
    pd.testing.assert_series_equal(found["time_s"], expected["time_s"])
    np.testing.assert_allclose(found[CLASSES], expected[CLASSES], atol=1e-6)
    assert (found[CLASSES].std() > 1e-5).any(), "windows differ"
    pooled = found[CLASSES].max()
    first = pooled.idxmax()
    assert f"robin at dawn.FLAC: 5 windows, max of a class: {first} {pooled[first]:.3f}, " in line

    call("predict", "--run", run, "--recording", tmp_path / "data/test/0a.flac", "--out", tmp_path / "clip.csv")
    submission = read_predictions(tmp_path / "clip.csv", BIRDS)
    assert len(submission) == 1
    np.testing.assert_allclose(submission[CLASSES].iloc[0], pooled, atol=1e-6)

    call("ensemble", "--predictions", tmp_path / "set.parquet", tmp_path / "set2.parquet", "--out",
         tmp_path / "both.parquet", code=2)  # fmt: skip
    (tmp_path / "set2.parquet").write_bytes((tmp_path / "set.parquet").read_bytes())
    call("ensemble", "--predictions", tmp_path / "set.parquet", tmp_path / "set2.parquet", "--out",
         tmp_path / "both.parquet")  # fmt: skip
    assert (
        read_predictions(tmp_path / "both.parquet")["time_s"].tolist()
        == read_predictions(tmp_path / "set.parquet")["time_s"].tolist()
    )


def test_another_rate_is_resampled_and_channels_are_averaged(call, run, sound, tmp_path, rng) -> None:
    fast = np.stack([resample_poly(sound, 2, 1), 0.1 * rng.standard_normal(2 * len(sound))], axis=1)
    soundfile.write(tmp_path / "fast.wav", fast, 2 * RATE_HZ, subtype="FLOAT")
    plain = resample_poly(fast.astype(np.float32).mean(axis=1), 1, 2)
    soundfile.write(tmp_path / "plain.wav", plain, RATE_HZ, subtype="FLOAT")
    tables = []
    for name in ("fast", "plain"):
        words = ["--recording", tmp_path / f"{name}.wav", "--out", tmp_path / f"{name}.parquet", "--every_s", 2]
        call("predict", "--run", run, *words)
        tables.append(read_predictions(tmp_path / f"{name}.parquet", BIRDS))
    assert tables[0]["time_s"].tolist() == [1, 3, LENGTH_S - 1]
    np.testing.assert_allclose(tables[0][CLASSES], tables[1][CLASSES], atol=1e-6)

    model = hms_dist.load_run(run)
    clip = hms_dist.read_clip(tmp_path / "fast.wav", rate_hz=RATE_HZ)
    table = model.predict(clip, every_s=2)
    assert list(table) == ["recording_id", "time_s", *CLASSES]
    assert table["recording_id"].tolist() == ["fast"] * 3
    pd.testing.assert_series_equal(table["time_s"], tables[0]["time_s"])
    np.testing.assert_allclose(table[CLASSES], tables[0][CLASSES], atol=1e-6)
    some = model.predict(clip, start_s=[2.0])
    np.testing.assert_allclose(some[CLASSES], table[CLASSES].iloc[1:2], atol=1e-6)
    assert len(model.predict(clip)) == 5
    with pytest.raises(hms_dist.UserError, match="every_s: expected above 0, at most window_s"):
        model.predict(clip, every_s=3)
    with pytest.raises(hms_dist.UserError, match="drawn from 8000 Hz, found audio of 48000 Hz"):
        model.predict(hms_dist.read_clip(tmp_path / "fast.wav"))
    with pytest.raises(hms_dist.UserError, match=r"start_s: rows of 2 s begin at 0 to 3\.3 s of 'fast', found 4 to 4"):
        model.predict(clip, start_s=[4.0])


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("0a.flac", "--every_s 3", "every_s: expected above 0, at most window_s (2), found 3.0"),
        ("0a.flac", "--every_s 0", "every_s: expected above 0, at most window_s (2), found 0.0"),
        ("0a.flac", "--map A1=T3", "map: is for EEG, 0a.flac is audio; leave it out"),
        ("0a.flac", "--unit mV", "unit: is for EEG, 0a.flac is audio; leave it out"),
        ("0a.flac", "--split train", "split: a recording has no labels; leave --split out"),
        ("robin.flac", "--out a.csv", "robin.flac: a submission names recordings by 1 to 15 hexadecimal digits"),
        ("short.wav", "", "short.wav: is 1.90 s long, expected at least 2 s, the length of the run's windows"),
        ("cut.flac", "", "cut.flac: not a readable flac or wav file"),
        ("none.wav", "", "none.wav: the file is empty; expected flac or wav"),
        ("gone.flac", "", "gone.flac: no such file; check the path"),
        ("night.edf", "", "night.edf: the run was trained on audio (data set birds); expected a name ending in .flac"),
        ("0a.mp3", "", "0a.mp3: the run was trained on audio (data set birds); expected a name ending in .flac"),
    ],
)
def test_a_clip_that_cannot_be_predicted(call, run, sound, tmp_path, monkeypatch, capsys, name, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("0a.flac", sound, RATE_HZ)
    whole = Path("0a.flac").read_bytes()
    Path("robin.flac").write_bytes(whole)
    Path("cut.flac").write_bytes(whole[:2000])
    Path("none.wav").touch()
    soundfile.write("short.wav", sound[: round(1.9 * RATE_HZ)], RATE_HZ)
    out = [] if "--out" in words else ["--out", "a.parquet"]
    call("predict", "--run", run, "--recording", name, *out, *words.split(), code=2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.glob("a.*"))
