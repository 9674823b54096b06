"""A small training run: a 64 x 64 canvas and a small net, in this process."""

import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from hms_dist.config.load import load
from hms_dist.train.settings import TrainConfig

SLIDING = """
    canvas:
      height: 64
      width: 160
      placements:
        - {panel: eeg_spectrogram, arrangement: stacked, resize: area, top: 0, left: 0, height: 64, width: 160,
           normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
    model:
      name: test_efficientnet
      drop_rate: 0.5
      drop_path_rate: 0.2
      sliding_window: {crop_share: 0.7, paste_probability: 0.5}
    loss: {name: bce}
    num_folds: 3
    epochs: 2
    global_batch: 4
    group_size: 2
    log_every: 1
"""


@pytest.fixture
def small(small_file, shard_set, tmp_path) -> Callable[..., TrainConfig]:
    """The small configuration with options, as the command line would give them."""

    def make(out: str = "run", **options: object) -> TrainConfig:
        written = {name: "null" if value is None else value for name, value in options.items()}
        words = [f"--{name.replace('__', '.')}={value}" for name, value in written.items()]
        given = ["--config", str(small_file), "--shards", str(shard_set), "--out", str(tmp_path / out)]
        return load(TrainConfig, [*given, *words], prog="train.py")

    return make


@pytest.fixture
def finished(small, one_epoch) -> TrainConfig:
    """The small configuration of one epoch; its folder holds the finished run, a copy."""
    config = small(epochs=1)
    shutil.copytree(one_epoch, config.out)
    return config


@pytest.fixture
def sliding_file(tmp_path) -> Path:
    """A configuration of a small sliding-window net, with all that it draws."""
    path = tmp_path / "sliding.yaml"
    path.write_text(textwrap.dedent(SLIDING))
    return path


@pytest.fixture
def sliding(sliding_file, shard_set, tmp_path) -> Callable[..., TrainConfig]:
    """Makes configurations as `small`, from `sliding_file`."""

    def make(out: str = "run", **options: object) -> TrainConfig:
        words = [f"--{name.replace('__', '.')}={value}" for name, value in options.items()]
        given = ["--config", str(sliding_file), "--shards", str(shard_set), "--out", str(tmp_path / out)]
        return load(TrainConfig, [*given, *words], prog="train.py")

    return make


@pytest.fixture(autouse=True)
def one_thread():
    """A run is bit for bit on one thread; torch's own settings are put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def fresh_process_state():
    """accelerate keeps one state per process; each run of a test begins like a process of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
