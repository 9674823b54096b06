"""The same run on 1 and 2 ranks, under torchrun and no launcher, with real processes and gloo."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.shards.index import read_index
from hms_dist.stream.rows.epoch_plan import plan_epoch
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.settings import TrainConfig

pytestmark = pytest.mark.slow


LAUNCHERS = {
    "alone": [sys.executable],
    "torchrun": [f"{os.path.dirname(sys.executable)}/torchrun", "--standalone", "--nproc_per_node", "2"],
}


def start(repository, launcher, words, check=True):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*LAUNCHERS[launcher], *words]
    return subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, timeout=550, check=check
    )


@pytest.fixture
def train(repository, ranks, small_file, shard_set, tmp_path):
    """Train under a launcher, or with a number of ranks without one; torchrun starts the module, the others the
    script."""

    def run(launcher, out, *words):
        program = ["-m", "hms_dist", "train"] if launcher == "torchrun" else ["train.py"]
        given = [*program, "--config", small_file, "--shards", shard_set, "--out", tmp_path / out, *words]
        if isinstance(launcher, int):
            ranks(launcher, *given)
        else:
            start(repository, launcher, list(map(str, given)))
        return tmp_path / out

    return run


def losses(run):
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


def scores(run):
    return [line["val_kl"] for line in read_metrics(run) if "val_kl" in line]


def test_worlds_agree_in_float64_over_20_steps(train, augment_file):
    """EfficientNet with batch norm, dropout and drop-path on; B = 8 in groups of 4, a learning rate that trains;
    noise, blur, holes, time, mixup and cutmix.

    Rounding grows with every step, faster with a larger rate and with smaller groups (batch norm over few
    values): at 3e-4 and groups of 2 it passes 1e-8 after 12 steps, from 4e-16 at the first.
    """
    words = ["--precision", "float64", "--global_batch", "8", "--group_size", "4", "--epochs", "7"]
    words += ["--optim.lr", "1e-4", "--augment", str(augment_file)]
    alone = train(1, "alone", *words)
    two = train("torchrun", "torchrun", *words)
    reference = losses(alone)
    assert len(reference) >= 20
    assert len({round(loss, 6) for loss in reference}) == len(reference)
    np.testing.assert_allclose(losses(two)[:20], reference[:20], rtol=0, atol=1e-8)
    np.testing.assert_allclose(scores(two)[:6], scores(alone)[:6], rtol=0, atol=1e-8)


def test_worlds_agree_on_a_sliding_window(ranks, sliding_file, shard_set, tmp_path):
    """Crops and pastes are drawn within groups."""
    words = ["--precision", "float64", "--global_batch", "8", "--group_size", "4", "--epochs", "3"]
    words += ["--optim.lr", "1e-4"]
    runs = []
    for number in (1, 2):
        out = tmp_path / f"on-{number}"
        ranks(number, "train.py", "--config", sliding_file, "--shards", shard_set, "--out", out, *words)
        runs.append(read_metrics(out))
    for name in ("loss", "val_kl", "val_positive_log_loss", "val_negative_log_loss", "val_lrap"):
        one, two = ([line[name] for line in lines if name in line] for lines in runs)
        assert len(one) >= 3
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-8)


def test_the_first_step_agrees_in_float32(train):
    words = ["--global_batch", "8", "--epochs", "1"]
    one, two = train(1, "one", *words), train(2, "two", *words)
    assert losses(two)[0] == pytest.approx(losses(one)[0], abs=1e-6)


def test_a_checkpoint_scores_the_same_at_any_world_size(ranks, train, recordings, tmp_path, capsys):
    """47 rows, a prime number, so that groups are padded: every row is predicted once."""
    table = pd.read_csv(recordings / "train.csv")
    table.head(47).to_csv(tmp_path / "prime.csv", index=False)
    shards = tmp_path / "prime"
    render(Render(data=recordings, out=shards, table=tmp_path / "prime.csv"))
    assert len(read_index(shards / "index.parquet")) == 47
    run = train(1, "run", "--epochs", "1")
    found = {}
    for number in (1, 2):
        out = tmp_path / f"on-{number}.parquet"
        ranks(number, "-m", "hms_dist", "predict", "--run", run, "--shards", shards, "--out", out)
        capsys.readouterr()
        assert main(["score", "--predictions", str(out), "--labels", str(shards), "--rows", "all"]) == 0
        found[number] = (pd.read_parquet(out).set_index("key"), json.loads(capsys.readouterr().out))
    assert found[1][1]["num_rows"] == 47
    assert found[2][1]["kl"] == pytest.approx(found[1][1]["kl"], abs=1e-6)
    difference = found[1][0][list(CLASSES)] - found[2][0][list(CLASSES)]
    assert difference.abs().max(axis=None) < 1e-6


def test_a_resume_on_two_ranks_continues_with_the_same_rows(train, augment_file):
    """Stopped on one rank and resumed on two: the float64 losses of the whole run agree, augmentation included."""
    words = ["--precision", "float64", "--global_batch", "8", "--augment", str(augment_file)]
    whole = train(1, "whole", *words, "--epochs", "2")
    expected = losses(whole)
    _keep_first_epoch(whole)
    again = train(2, "whole", *words, "--epochs", "2")
    assert losses(again) == pytest.approx(expected, abs=1e-9)
    log = (again / "train.log").read_text()
    assert "num_ranks 2, was 1: the result may differ by rounding" in log
    assert "resumed at epoch 1 step 0" in log


def _keep_first_epoch(run):
    """Reset a finished run to its state after the first epoch."""
    first, last = sorted((run / "checkpoints").glob("step-*"))
    shutil.rmtree(last)
    (run / "checkpoints/latest").write_text(f"{first.name}\n")
    shutil.rmtree(run / "final")


def test_a_user_error_is_one_line_and_exit_code_2(repository, small_file, shard_set, tmp_path):
    words = ["--config", str(small_file), "--shards", str(shard_set / "none"), "--out", str(tmp_path / "run")]
    done = start(repository, "alone", ["train.py", *words], check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("hms-dist train: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_damage_that_only_the_second_rank_reads_is_reported(repository, small_file, shard_set, tmp_path):
    shards = shutil.copytree(shard_set, tmp_path / "shards")
    config = load(TrainConfig, ["--config", str(small_file), "--shards", str(shards), "--out", str(tmp_path / "run")])
    data = open_run_data(config)
    plan = plan_epoch(data.index, data.train_rows, config.selection, seed=0, epoch=0, global_batch=4)
    row = data.index.frame.iloc[plan[config.group_size]]
    path = shards / f"shard-{row['shard']:06d}.tar"
    content = bytearray(path.read_bytes())
    content[row["eeg_spectrogram.offset"] + 100] ^= 1
    path.write_bytes(content)
    words = ["--config", str(small_file), "--shards", str(shards), "--out", str(tmp_path / "run")]
    done = start(repository, "torchrun", ["train.py", *words], check=False)
    assert done.returncode != 0
    assert f"hms-dist train: rank 1: {path}: eeg_spectrogram of {row['key']}" in done.stderr
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("refused", 2)
    assert status["message"].startswith("rank 1: ")


def test_five_rows_cannot_be_shared_by_two_ranks(ranks, small_file, shard_set, tmp_path):
    words = ["--config", small_file, "--shards", shard_set, "--out", tmp_path / "run"]
    words += ["--global_batch", "5", "--group_size", "5"]
    assert "5 rows cannot be shared equally by 2 ranks; start 1 or 5 ranks" in ranks(2, "train.py", *words, code=2)


def test_data_wide_statistics_are_one_at_any_number_of_ranks(train, tmp_path):
    """Bitwise equal; a second start reads the stored statistics."""
    canvas = tmp_path / "canvas.yaml"
    canvas.write_text(
        "{height: 64, width: 64, placements: [{panel: kaggle_spectrogram, normalise: {class_path: DataWide}, "
        "arrangement: stacked, resize: area, top: 0, left: 0, height: 64, width: 64}]}"
    )
    words = ["--canvas", str(canvas), "--epochs", "1"]
    runs = [train(number, f"on-{number}", *words) for number in (1, 2, 2)]
    one, *others = [(run / "canvas.yaml").read_text() for run in runs]
    assert "mean: null" not in one
    assert others == [one, one]
