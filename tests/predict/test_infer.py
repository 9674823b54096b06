"""Predicting a shard set: mirror images, checkpoints, ranks, kills; and every refusal."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch._dynamo.utils import counters

from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import REGIONS
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.jobs.lease import acquire
from hms_dist.model.build import ModelConfig, build
from hms_dist.panels import DEFAULT_PANELS
from hms_dist.predict import infer
from hms_dist.predict.infer import Predict, run
from hms_dist.predict.partial_results import Parts, parts_folder
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.shards.index import read_index
from hms_dist.shards.schema import mirrored
from hms_dist.train.data.run_canvas import read_canvas
from hms_dist.train.data.run_data import open_shards
from hms_dist.train.folder.checkpoint import load_weights
from hms_dist.train.folder.run_folder import read_config
from hms_dist.train.task import open_task


@pytest.fixture
def predict(trained, shard_set, tmp_path, forget):
    """Predicts with the small run, or as options say; the probabilities by key."""

    def make(name="p.parquet", **options):
        given = {"run": trained, "shards": str(shard_set), "out": tmp_path / name, **options}
        run(Predict(**given))
        forget()
        return pd.read_parquet(tmp_path / name).set_index("key")[list(CLASSES)]

    return make


def assert_close(one, other, tolerance=1e-6):
    assert list(one.index) == list(other.index)
    assert (one - other).abs().max(axis=None) < tolerance


@pytest.fixture(scope="module")
def mirrored_set(recordings, tmp_path_factory):
    """A shard set of the first rows, of recordings with left and right exchanged in their files."""
    folder = tmp_path_factory.mktemp("mirrored")
    pd.read_csv(recordings / "train.csv").head(7).to_csv(folder / "few.csv", index=False)
    data = shutil.copytree(recordings, folder / "data")
    for path in (data / "train_eegs").iterdir():
        frame = pd.read_parquet(path)
        frame[:] = frame[list(mirrored(list(frame)))].to_numpy()
        frame.to_parquet(path)
    opposite = dict(zip(REGIONS, mirrored(REGIONS), strict=True))
    for path in (data / "train_spectrograms").iterdir():
        frame = pd.read_parquet(path)
        bands = [name for name in frame if name[:2] in opposite]
        frame[bands] = frame[[opposite[name[:2]] + name[2:] for name in bands]].to_numpy()
        frame.to_parquet(path)
    panels = {name: DEFAULT_PANELS[name] for name in ("eeg_spectrogram", "traces")}
    render(Render(data=data, out=folder / "set", table=folder / "few.csv", panels=panels))
    return folder / "set"


@pytest.mark.slow
def test_a_compiled_model_answers_as_the_plain_one(predict, mirrored_set, trained):
    """One size of group is compiled, though the last one is smaller."""
    torch.compiler.reset()
    counters.clear()
    compiled = predict(shards=str(mirrored_set), compile_mode="default")
    assert counters["stats"]["unique_graphs"] == 1
    assert len(compiled) % read_config(trained).group_size
    assert_close(compiled, predict("plain.parquet", shards=str(mirrored_set)), tolerance=1e-4)


def test_flip_is_the_mean_over_the_recordings_and_their_mirror_images(predict, mirrored_set):
    flipped = predict(shards=str(mirrored_set))
    plain = predict().loc[flipped.index]
    assert (plain - flipped).abs().max(axis=None) > 1e-4
    assert_close(predict(tta=("flip",)).loc[flipped.index], (plain + flipped) / 2)


def by_hand(folder, shard_set, views):
    """Mean outputs over views (flip, reverse) for every fifth row, one after the other, with nothing of `predict`."""
    config = read_config(folder)
    shards = open_shards(shard_set, read_canvas(folder), flips=True)
    model = build(ModelConfig(name=config.model.name, sliding_window=config.model.sliding_window), seed=0)
    load_weights(model, folder / "best")
    task = open_task(config, shards.canvas)
    found = []
    with torch.no_grad():
        for row in range(0, len(shards.index), 5):
            outputs = []
            for flip, reverse in views:
                stored = shards.reader.read(np.array([row]), np.array([flip]))
                panels = {name: torch.from_numpy(values) for name, values in stored.items()}
                picture = shards.canvas(panels, torch.tensor([flip]), torch.tensor([reverse]))
                outputs.append(task.predict(model.eval(), picture)[0, :6].double())
            found.append(torch.stack(outputs).mean(0).numpy())
    shards.reader.close()
    return pd.DataFrame(found, shards.index.frame["key"].iloc[::5], list(CLASSES))


@pytest.mark.parametrize("tta", [("reverse",), ("flip", "reverse")])
def test_mirror_images_count_the_same(predict, trained, shard_set, tta):
    flips, reversals = ((False, True) if name in tta else (False,) for name in ("flip", "reverse"))
    views = [(flip, reverse) for flip in flips for reverse in reversals]
    assert_close(predict(tta=tta).iloc[::5], by_hand(trained, shard_set, views), 1e-5)


def test_a_sliding_window_is_flipped_and_not_reversed(predict, trained_sliding, shard_set):
    found = predict(run=trained_sliding, tta=("flip",)).iloc[::5]
    assert_close(found, by_hand(trained_sliding, shard_set, [(False, False), (True, False)]), 1e-5)
    with pytest.raises(UserError, match=r"tta: reverse moves the annotated window of a sliding-window model.*use flip"):
        predict(run=trained_sliding, tta=("reverse",))


def test_checkpoints_and_weights_by_name(predict, trained):
    steps = sorted(path.name for path in (trained / "checkpoints").glob("step-*"))
    last = predict(checkpoint="final")
    assert_close(predict(checkpoint="latest"), last, 1e-12)
    assert_close(predict(checkpoint=steps[-1]), last, 1e-12)
    raw = predict(checkpoint="final", weights="raw")
    assert_close(predict(checkpoint=steps[-1], weights="raw"), raw, 1e-12)
    assert (raw - last).abs().max(axis=None) > 1e-4
    first = predict(checkpoint=steps[0])
    assert (first - last).abs().max(axis=None) > 1e-5
    with pytest.raises(UserError, match=f"no weights 'step-00000099'; it has: best, final, {steps[0]}, {steps[1]};"):
        predict(checkpoint="step-00000099")


def test_an_average_that_was_not_kept_is_refused(predict, trained_sliding):
    with pytest.raises(UserError, match="holds no averaged weights, the run kept no average; take the raw ones"):
        predict(run=trained_sliding, weights="ema")


class Killed(BaseException):
    """A kill, seen from inside the process."""


def killed_after(monkeypatch, num_parts):
    real, written = Parts.write, []

    def write(self, number, outputs):
        if len(written) == num_parts:
            raise Killed
        written.append(number)
        real(self, number, outputs)

    monkeypatch.setattr(Parts, "write", write)
    return written


@pytest.mark.parametrize("tta", [(), ("flip",)])
def test_a_killed_prediction_continues_with_the_same_result(predict, forget, monkeypatch, tmp_path, tta):
    predict("whole.parquet", tta=tta)
    assert not parts_folder(tmp_path / "whole.parquet").exists()
    with monkeypatch.context() as patch:
        before = killed_after(patch, 7)
        with pytest.raises(Killed):
            predict("cut.parquet", tta=tta)
        forget()
    assert len(before) == 7
    assert not (tmp_path / "cut.parquet").exists()
    parts = sorted(parts_folder(tmp_path / "cut.parquet").glob("*/part-*.npy"))
    assert len(parts) == 7
    parts[2].write_bytes(parts[2].read_bytes()[:-8])
    flipped = bytearray(parts[4].read_bytes())
    flipped[134] ^= 0x10  # an answer
    parts[4].write_bytes(flipped)
    with monkeypatch.context() as patch:
        after = killed_after(patch, 1000)
        predict("cut.parquet", tta=tta)
    assert set(after) & set(before) == {2, 4}
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not parts_folder(tmp_path / "cut.parquet").exists()


def test_parts_of_other_weights_or_views_are_not_taken(predict, forget, monkeypatch):
    expected = predict("other.parquet", checkpoint="final", weights="raw")
    for options in ({"weights": "ema"}, {"weights": "raw", "tta": ("flip",)}):
        with monkeypatch.context() as patch:
            killed_after(patch, 5)
            with pytest.raises(Killed):
                predict(checkpoint="final", **options)
            forget()
    assert_close(predict(checkpoint="final", weights="raw"), expected, 1e-12)


def test_a_second_prediction_of_the_same_table_is_refused(predict, tmp_path, monkeypatch):
    monkeypatch.setattr("hms_dist.jobs.lease.HEARTBEAT_S", 0.2)
    folder = parts_folder(tmp_path / "p.parquet")
    folder.mkdir()
    with (
        acquire(folder / ".claim"),
        pytest.raises(UserError, match=r"p.parquet.parts: process \d+ on .* is working on it; wait for"),
    ):
        predict()


@pytest.mark.slow
def test_two_ranks_write_what_one_writes(repository, predict, trained, shard_set, tmp_path):
    """Byte for byte, flips included."""
    predict("one.parquet", tta=("flip",))
    torchrun = [f"{os.path.dirname(sys.executable)}/torchrun", "--standalone", "--nproc_per_node", "2", "-m", "--"]
    words = ["--run", str(trained), "--shards", str(shard_set), "--out", str(tmp_path / "two.parquet")]
    command = [*torchrun, "hms_dist", "predict", *words, "--tta", "flip"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    subprocess.run(command, cwd=repository, env=environment, capture_output=True, timeout=550, check=True)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_every_row_once_whatever_the_ranks(predict, trained, shard_set, monkeypatch, tmp_path, forget):
    """Each of three ranks by itself computes a third of the parts; together they are the table of one rank."""
    whole = predict("whole.parquet")
    index = read_index(shard_set / "index.parquet")
    assert list(whole.index) == index.frame["key"].tolist()
    real, written = infer.open_world, []
    monkeypatch.setattr(infer, "in_order", lambda rows, found_rows, found: written.append(found_rows) or _full(rows))
    for rank in range(3):
        monkeypatch.setattr(
            infer, "open_world", lambda *args, rank=rank: replace(_Alone.of(real(*args)), rank=rank, num_ranks=3)
        )
        run(Predict(run=trained, shards=str(shard_set), out=tmp_path / f"{rank}.parquet"))
        forget()
    assert sorted(np.concatenate(written).tolist()) == list(range(len(index)))


def _full(rows):
    return np.full((len(rows), 6), 1 / 6)


class _Alone(infer.World):
    """A rank without peers."""

    @staticmethod
    def of(world):
        return _Alone(world.accelerator, world.rank, world.num_ranks, world.device, world.arithmetic)

    def gather_rows(self, rows, values):
        return rows, values

    def broadcast(self, value):
        return value


def test_what_the_options_refuse():
    for words, message in (
        (["--out", "p.txt"], r"out: expected a name ending in .parquet or .csv, found p.txt"),
        (["--out", "p.csv", "--threads", "0"], "threads: expected at least 1, found 0"),
        (["--out", "p.csv", "--tta", "flip", "flip"], "tta: expected each mirror image once, found flip, flip"),
    ):
        with pytest.raises(UserError, match=message):
            load(Predict, ["--run", "r", "--shards", "s", *words])
    with pytest.raises(UserError, match="tta"):
        load(Predict, ["--run", "r", "--shards", "s", "--out", "p.csv", "--tta", "mirror"])


def test_a_folder_that_is_no_run_is_refused(predict, tmp_path):
    with pytest.raises(UserError, match=r"not a run folder \(no config.yaml\); check --run"):
        predict(run=tmp_path)


def test_a_submission_of_several_rows_per_eeg_is_refused_before_any_work(predict, tmp_path):
    with pytest.raises(UserError, match="a submission takes one row per EEG, found several"):
        predict(out=tmp_path / "p.csv")
    assert not parts_folder(tmp_path / "p.csv").exists()


def test_a_flip_that_the_canvas_cannot_draw_is_refused(predict, trained, tmp_path, edited):
    """As after a training without flips, on a canvas that names no flipped traces."""
    copy = shutil.copytree(trained, tmp_path / "run")
    edited(copy / "canvas.yaml", "flipped_panel: traces_flipped", "flipped_panel: null")
    predict(run=copy)
    with pytest.raises(UserError, match=r"tta: no flip of what this run was trained on .*'traces' cannot be flipped"):
        predict(run=copy, tta=("flip",))


def test_predictions_of_nan_are_refused_by_name(predict, monkeypatch, shard_set):
    key = read_index(shard_set / "index.parquet").frame["key"].iloc[0]
    real = infer.mean_outputs
    monkeypatch.setattr(infer, "mean_outputs", lambda *a, **k: (v * np.nan for v in real(*a, **k)))
    with pytest.raises(UserError, match=f"p.parquet: row {key}: expected six probabilities with a sum of 1, found nan"):
        predict()
