"""Training on pictures that are drawn from a stored signal equals training on stored pictures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from accelerate.state import AcceleratorState

from hms_dist.canvas.options import CanvasConfig
from hms_dist.config.load import from_dict, load
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.train.data.run_data import open_shards
from hms_dist.train.data.statistics import filled, row_moments
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.loop import run
from hms_dist.train.settings import TrainConfig

RATE_HZ, NUM_CLIPS = 4000, 8
SIZE = "rate_hz: 4000, window_s: 1.0"
MEL = f"{SIZE}, fft_samples: 256, window_samples: 256, hop_samples: 64, num_mels: 32"
RENDER = f"""
panels:
  waveform: {{class_path: Waveform, init_args: {{{SIZE}, margin_s: 0.5}}}}
  log_mel: {{class_path: LogMel, init_args: {{{MEL}}}}}
  pcen: {{class_path: AudioPcen, init_args: {{{MEL}}}}}
samples_per_shard: 16
"""
TRAIN = """
canvas:
  height: 64
  width: 64
  placements:
    - {panel: pcen, arrangement: stacked, top: 0, left: 0, height: 64, width: 64,
       normalise: {class_path: Affine, init_args: {scale: 0.5}}}
model: {name: test_convnext, drop_path_rate: 0.0}
loss: {name: bce_known}
num_folds: 2
epochs: 3
global_batch: 8
group_size: 8
log_every: 1
flip_probability: 0.0
"""
DRAWN = f"""  drawn:
    pcen: {{class_path: DrawnPcen, init_args: {{drawn_from: waveform, {MEL}}}}}
"""
LOG_PLACE = """{panel: log_mel, arrangement: stacked, top: 0, left: 0, height: 32, width: 63,
  normalise: {class_path: DataWide, init_args: {low_ln: -23.0, high_ln: 16.0}}}"""
LOG_DRAWN = f", drawn: {{log_mel: {{class_path: DrawnLogMel, init_args: {{drawn_from: waveform, {MEL}}}}}}}"
SIGNAL_STEPS = """
augment:
  signal_steps:
    - {class_path: SignalShift, init_args: {rows: positive, probability: 1.0}}
    - {class_path: SignalShift, init_args: {rows: negative, probability: 1.0, max_s: 0.25}}
    - {class_path: SignalReverse, init_args: {rows: negative}}
    - {class_path: SignalPaste, init_args: {rows: negative, max_s: 0.3}}
    - {class_path: MixUp, init_args: {probability: 0.7, alpha: 4.0}}
    - {class_path: SignalMixUp, init_args: {rows: negative, alpha: 4.0}}
    - {class_path: SignalPasteOther, init_args: {probability: 0.7}}
"""
SMALL_RECIPE = (
    TRAIN.replace(
        "model: {name: test_convnext, drop_path_rate: 0.0}", f"{DRAWN}model: {{name: test_resnet, weights: none}}"
    ).replace("epochs: 3", "epochs: 2")
    + "optim: {lr: 1.0e-4}\nprecision: float64\nreader_threads: 1\n"
)
"""Merged after configs/train/rfcx_resnet34.yaml: two steps per epoch, each of one group, which two ranks share."""


@pytest.fixture(scope="module")
def audio_set(shared, rng_of) -> Path:
    """Eight clips of 3 s at 4 kHz, each with two calls that are there and two that are not."""

    def make(folder: Path) -> None:
        rng, data = rng_of("audio_set"), folder / "data"
        (data / "train").mkdir(parents=True)
        (data / "dataset.yaml").write_text(
            "{name: birds, classes: [s0, s1], target: yes_no, signal: audio, rate_hz: 4000, window_s: 1, "
            "annotated_s: 0.3, test_step_s: 0.5}"
        )
        rows: dict[str, list[tuple[object, ...]]] = {"tp": [], "fp": []}
        for clip in range(NUM_CLIPS):
            time_s = np.arange(3 * RATE_HZ) / RATE_HZ
            samples = 0.02 * rng.standard_normal(len(time_s))
            for kind, number in (("tp", 0), ("tp", 1), ("fp", 0), ("fp", 1)):
                start_s = round(float(rng.uniform(0, 2.6)), 2)
                rows[kind].append((f"{clip:09x}", number, 1, start_s, 400.0, start_s + 0.3, 1500.0))
                if kind == "tp":
                    inside = (time_s >= start_s) & (time_s < start_s + 0.3)
                    samples += 0.3 * inside * np.sin(2 * np.pi * (500 + 700 * number) * time_s)
            soundfile.write(data / "train" / f"{clip:09x}.wav", samples.clip(-1, 1), RATE_HZ, subtype="PCM_16")
        names = ["recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max"]
        for kind, found in rows.items():
            pd.DataFrame(found, columns=names).to_csv(data / f"train_{kind}.csv", index=False)
        (folder / "render.yaml").write_text(RENDER)
        words = ["--config", str(folder / "render.yaml"), "--data", str(data), "--out", str(folder / "set")]
        render(load(Render, [*words, "--workers", "1"]))

    return shared("audio", make) / "set"


@pytest.fixture
def losses(audio_set, tmp_path):
    """`losses(out, text)`: losses of the steps, and the last score of the validation fold."""

    def train(out: str, text: str, **options: object) -> np.ndarray:
        (tmp_path / f"{out}.yaml").write_text(text)
        words = [f"--{name}={value}" for name, value in options.items()]
        given = ["--config", str(tmp_path / f"{out}.yaml"), "--shards", str(audio_set), "--out", str(tmp_path / out)]
        AcceleratorState._reset_state(reset_partial_state=True)
        run(load(TrainConfig, [*given, *words], prog="train.py"))
        lines = read_metrics(tmp_path / out)
        scores = [line["val_log_loss"] for line in lines if "val_log_loss" in line]
        return np.array([*(line["loss"] for line in lines if "loss" in line), *scores], float)

    return train


@pytest.mark.slow
def test_stored_and_drawn_pictures_train_alike(losses):
    """Stored ones are rounded to float16: steps of 0.0002 for a background of 0.3."""
    stored = losses("stored", TRAIN)
    drawn = losses("drawn", TRAIN.replace("model:", f"{DRAWN}model:"))
    assert len(stored) == 9
    assert np.ptp(stored) > 0.01
    np.testing.assert_allclose(drawn, stored, atol=1e-3)


def test_statistics_of_drawn_pictures_are_those_of_stored_ones(audio_set):
    found = []
    for drawn in ("", LOG_DRAWN):
        text = f"{{height: 32, width: 63, placements: [{LOG_PLACE}]{drawn}}}"
        config = from_dict(CanvasConfig, yaml.safe_load(text))
        shards = open_shards(audio_set, config, flips=False)
        _, moments = row_moments(shards, np.arange(len(shards.index)), threads=1)
        (placement,) = filled(config, moments).placements
        found.append((placement.normalise.mean, placement.normalise.deviation))
        shards.reader.close()
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


@pytest.mark.slow
def test_augmented_signals_train_alike_at_any_pass_size(losses):
    text = TRAIN.replace("model:", f"{DRAWN}model:").replace("group_size: 8", "group_size: 4") + SIGNAL_STEPS
    plain = losses("plain", text.replace(SIGNAL_STEPS, ""), precision="float64")
    whole = losses("whole", text, precision="float64")
    parts = losses("parts", text, precision="float64", pass_rows=4)
    assert np.abs(whole - plain).max() > 1e-3
    np.testing.assert_allclose(parts, whole, atol=1e-8)


@pytest.mark.slow
def test_two_ranks_train_the_audio_recipe_as_one(ranks, audio_set, tmp_path):
    """Sliding windows at the boxes, dropout, and rows that are pasted and mixed with rows of the other rank."""
    (tmp_path / "small.yaml").write_text(SMALL_RECIPE)
    recipe = ["--config", "rfcx_resnet34", "--config", tmp_path / "small.yaml", "--shards", audio_set]
    runs = []
    for number in (1, 2):
        runs.append(tmp_path / f"on-{number}")
        ranks(number, "-m", "hms_dist", "train", *recipe, "--out", runs[-1])
    one, two = map(read_metrics, runs)
    for name in ("loss", "lr", "val_log_loss", "val_positive_log_loss", "val_negative_log_loss", "val_lwlrap"):
        expected, found = ([line[name] for line in lines if name in line] for lines in (one, two))
        assert len(expected) == (4 if name in ("loss", "lr") else 2)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8, err_msg=name)
    first, second = (pd.read_parquet(run / "predictions.parquet").set_index("key") for run in runs)
    assert set(first.index) == set(second.index)
    names = ["s0", "s1"]
    np.testing.assert_allclose(second.loc[first.index, names], first[names], atol=1e-6)
