"""The whole job on real EEG: render, verify, show, two ranks training, predict, score."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY.parent / "shared/data/iiic"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="no real EEG beside the checkout (../shared/data/iiic)"),
]


def call(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_command(name, **options):
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return call(sys.executable, "-m", "hms_dist", name, *words)


def test_the_whole_job(tmp_path):
    shards, run = tmp_path / "shards", tmp_path / "run"
    run_command("render", data=DATA, out=shards, config="configs/render/default.yaml")
    assert "24 samples" in run_command("verify", shards=shards)
    picture = tmp_path / "sample.png"
    run_command("show", shards=shards, key="9100000-0", canvas="configs/canvas/sixteenth_place.yaml", out=picture)
    pixels = np.asarray(Image.open(picture))
    assert pixels.shape == (640, 1920)
    assert 0.02 < (pixels[:, 320:] > 128).mean() < 0.3
    launcher = [str(Path(sys.executable).parent / "accelerate"), "launch", "--main_process_port", "0"]
    words = ["--config", "configs/train/demo.yaml", "--shards", str(shards), "--out", str(run)]
    small = ["--epochs", "1", "--global_batch", "4", "--group_size", "2"]
    call(*launcher, "--config_file", "configs/accelerate/cpu2.yaml", "train.py", *words, *small)
    run_command("predict", run=run, shards=shards, out=tmp_path / "p.parquet")
    assert len(pd.read_parquet(tmp_path / "p.parquet")) == 24
    held_out = json.loads(run_command("score", predictions=run / "predictions.parquet", labels=shards))
    best = json.loads((run / "status.json").read_text())["best"]["val_kl"]
    assert held_out["kl"] == pytest.approx(best, abs=1e-6)
    assert (
        json.loads(run_command("score", predictions=tmp_path / "p.parquet", labels=DATA / "train.csv", rows="all"))[
            "num_rows"
        ]
        == 24
    )


@pytest.mark.parametrize("recipe", ["sixteenth_place", "public_baseline"])
def test_the_published_recipes_render_and_show(recipe, tmp_path):
    shards = tmp_path / "shards"
    run_command("render", data=DATA, out=shards, config=f"configs/render/{recipe}.yaml")
    assert "no fault" in run_command("verify", shards=shards)
    out = tmp_path / "sample.png"
    run_command("show", shards=shards, key="9100012-0", canvas=f"configs/canvas/{recipe}.yaml", out=out)
    assert np.asarray(Image.open(out)).std() > 10
