"""The public API: lazily imported names, recordings, panels and shard sets."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

import hms_dist
from hms_dist.canvas.augment import draw_flips
from hms_dist.canvas.options import CanvasConfig
from hms_dist.config.load import resolved
from hms_dist.panels.eeg_spectrogram import EegSpectrogram
from hms_dist.panels.pcen import Pcen
from hms_dist.panels.waveform import Waveform
from hms_dist.train.data.run_data import open_shards

IMPORT = """
import time
began = time.process_time()
import hms_dist
print(time.process_time() - began)
import sys
assert callable(hms_dist.train)
print(sorted({"torch", "pandas", "numpy", "timm", "pyarrow"} & set(sys.modules)))
"""
CANVAS = {
    "height": 32, "width": 64,
    "placements": [
        {"panel": "eeg_spectrogram", "arrangement": "time_down", "resize": "area", "top": 0, "left": 0, "height": 32,
         "width": 64, "normalise": {"class_path": "Affine", "init_args": {"shift": 80, "scale": 0.0125}}}
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def shards(shard_set):
    return hms_dist.open_shards(str(shard_set))


def test_importing_takes_less_than_a_tenth_of_a_second_and_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.splitlines()
    assert float(seconds) < 0.1
    assert heavy == "[]"


def test_every_name_is_there_documented_and_listed():
    assert set(hms_dist.__all__) <= set(dir(hms_dist))
    for name in hms_dist.__all__:
        assert getattr(hms_dist, name).__doc__, name
    assert not hasattr(hms_dist, "no_such_name")


def test_train_can_be_called_though_it_is_a_package():
    assert callable(hms_dist.train)
    assert hms_dist.train is sys.modules["hms_dist.train"]
    assert sys.modules["hms_dist.train.data.run_data"].open_shards is open_shards


def test_panels_of_a_recording_are_those_of_the_shard_set(recordings, shards):
    row = shards.index.iloc[len(shards) // 2]
    recording = hms_dist.read_recording(recordings, eeg_id=int(row["eeg_id"]))
    starts = {
        "start_s": row["eeg_label_offset_seconds"],
        "spectrogram_start_s": row["spectrogram_label_offset_seconds"],
    }
    drawn = hms_dist.draw(recording, "default", **starts)
    sample = shards[row["key"]]
    assert drawn.keys() == sample.panels.keys()
    for name, panel in sample.panels.items():
        assert panel.dtype == drawn[name].dtype
        assert np.array_equal(panel, drawn[name], equal_nan=panel.dtype == np.float16)
    assert sample.votes.tolist() == row.filter(like="_vote").tolist()
    many = hms_dist.draw(recording, EegSpectrogram(), start_s=[0.0, starts["start_s"]], spectrogram_start_s=[0, 0])
    assert np.array_equal(many[1], drawn["eeg_spectrogram"])


def test_a_file_of_a_recording_is_read_as_from_its_folder(recordings):
    path = next((recordings / "train_eegs").iterdir())
    one, other = hms_dist.read_recording(path), hms_dist.read_recording(str(recordings), eeg_id=int(path.stem))
    assert np.array_equal(one.eeg, other.eeg, equal_nan=True)
    assert one.spectrogram_id == other.spectrogram_id


def test_samples_by_key_and_by_row(shards):
    assert shards[3].key == shards[shards.index["key"].iloc[3]].key == shards.index["key"].iloc[3]
    assert shards[-1].key == shards.index["key"].iloc[-1]
    with pytest.raises(IndexError):
        shards[len(shards)]
    assert np.allclose(shards.targets.sum(axis=1), 1)


def test_a_stream_delivers_each_row_once_composed_and_flipped_by_its_key(shards, shard_set):
    rows = np.arange(1, len(shards), 2)
    opened = open_shards(shard_set, resolved(CanvasConfig, CANVAS), flips=True)
    seen = []
    for images, targets, of_batch in shards.stream(CANVAS, batch_size=4, rows=rows, seed=5, flip_probability=0.5):
        flips = draw_flips(of_batch, seed=5, epoch=0, probability=0.5)
        panels = {name: torch.from_numpy(array) for name, array in opened.reader.read(of_batch, flips.numpy()).items()}
        assert torch.equal(images, opened.canvas(panels, flips))
        assert np.allclose(targets, shards.targets[of_batch])
        seen += of_batch.tolist()
    assert len(seen) == len(set(seen)) == len(rows) // 4 * 4
    assert set(seen) <= set(rows.tolist())
    other = [batch.rows.tolist() for batch in shards.stream(CANVAS, batch_size=4, rows=rows, seed=5, epoch=1)]
    assert np.concatenate(other).tolist() != seen


def test_a_stream_augments_and_mixes_targets(shards):
    steps = {"reverse_probability": 1.0, "steps": [{"class_path": "MixUp", "init_args": {"probability": 1.0}}]}
    plain = list(shards.stream(CANVAS, batch_size=8))
    mixed = list(shards.stream(CANVAS, batch_size=8, augment=steps))
    for one, other in zip(plain, mixed, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        assert not torch.equal(one.images, other.images)
        assert np.allclose(other.targets.sum(1), 1)


def test_rows_of_a_clip_are_drawn_by_panels_of_audio(tmp_path, rng):
    samples = np.rint(rng.uniform(-1, 1, 12_000) * 20_000) / 32768
    soundfile.write(tmp_path / "clip.wav", samples, 4000, subtype="PCM_16")
    clip = hms_dist.read_clip(tmp_path / "clip.wav", rate_hz=4000)
    panel = Waveform(rate_hz=4000, window_s=1.0, margin_s=0.0)
    rows = hms_dist.draw(clip, panel, start_s=[0.0, 1.5])
    assert np.array_equal(rows[1, 0] / 32768, samples[6000:10_000])
    assert np.array_equal(hms_dist.draw(clip, {"w": panel}, start_s=1.5)["w"], rows[1])
    for panels, start_s, message in (
        (panel, 2.5, "start_s: rows of 1 s begin at 0 to 2 s of 'clip', found 2.5"),
        (Waveform(window_s=1.0), 0.0, "panels: '' is drawn from 48000 Hz, found audio of 4000 Hz"),
        (Pcen(), 0.0, "panels: '' is drawn from EEG, found audio"),
    ):
        with pytest.raises(hms_dist.UserError) as refusal:
            hms_dist.draw(clip, panels, start_s=start_s)
        assert message in str(refusal.value)


MISTAKES = {
    "a recording that is not there": (lambda s, d: hms_dist.read_recording(d, eeg_id=1), "no row for EEG 1"),
    "no id": (lambda s, d: hms_dist.read_recording(d), "expected the eeg_id"),
    "an id twice": (lambda s, d: hms_dist.read_recording(d / "1.parquet", eeg_id=1), "leave out eeg_id"),
    "another file": (lambda s, d: hms_dist.read_recording(d / "1.parquet"), "expected DATA/train_eegs"),
    "no such recipe": (lambda s, d: hms_dist.draw(of(d), "defualt"), "did you mean default"),
    "a window after the end": (lambda s, d: hms_dist.draw(of(d), "default", start_s=1e6), "check eeg_label_offset"),
    "a negative start": (lambda s, d: hms_dist.draw(of(d), "default", start_s=-1), "expected 0 or more seconds"),
    "other starts": (
        lambda s, d: hms_dist.draw(of(d), "default", start_s=[0, 1], spectrogram_start_s=0), "as many as start_s",
    ),
    "no such key": (lambda s, d: s["1-1"], "no sample '1-1'"),
    "no such set": (lambda s, d: hms_dist.open_shards(d), "the set is not complete"),
    "no such canvas": (lambda s, d: s.stream("dem", batch_size=2), "did you mean demo"),
    "another canvas": (lambda s, d: next(s.stream("scalogram", batch_size=2)), "is not in the shard set"),
    "too large a batch": (lambda s, d: s.stream("demo", batch_size=10_000), "10000"),
    "no batch": (lambda s, d: s.stream("demo", batch_size=0), "expected at least 1"),
    "no statistics": (lambda s, d: s.stream("seed_003_data_wide", batch_size=2), "take the canvas.yaml of a run"),
    "an augmentation that does not fit": (
        lambda s, d: s.stream(CANVAS, batch_size=2, augment="sixteenth_place"), "does not fit the canvas",
    ),
    "an option that training lacks": (lambda s, d: hms_dist.train("demo", shards=d, out=d, epoch=1), "epochs"),
}  # fmt: skip


def of(data):
    return hms_dist.read_recording(next((data / "train_eegs").iterdir()))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake, shards, recordings):
    call, words = MISTAKES[mistake]
    with pytest.raises(hms_dist.UserError, match=words) as raised:
        call(shards, recordings)
    assert "\n" not in str(raised.value)
