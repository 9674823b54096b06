"""A small training run: a 64 x 64 canvas and a small net, in this process."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from hms_dist.config import load
from hms_dist.train.settings import TrainConfig

SMALL = """
    canvas:
      height: 64
      width: 64
      placements:
        - {panel: eeg_spectrogram, arrangement: time_down, resize: area, top: 0, left: 0, height: 32, width: 64,
           normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
        - {panel: traces, flipped_panel: traces_flipped, resize: area, top: 32, left: 0, height: 32, width: 64}
    model: {name: tf_efficientnet_lite0, drop_rate: 0.2, drop_path_rate: 0.2}
    num_folds: 3
    epochs: 2
    global_batch: 4
    group_size: 2
    log_every: 1
"""


@pytest.fixture(scope="session")
def small_file(tmp_path_factory) -> Path:
    """A training configuration small enough for tests."""
    path = tmp_path_factory.mktemp("configs") / "small.yaml"
    path.write_text(textwrap.dedent(SMALL))
    return path


@pytest.fixture
def small(small_file, shard_set, tmp_path) -> Callable[..., TrainConfig]:
    """The small configuration with options, as the command line would give them."""

    def make(out: str = "run", **options: object) -> TrainConfig:
        words = [f"--{name.replace('__', '.')}={value}" for name, value in options.items()]
        given = ["--config", str(small_file), "--shards", str(shard_set), "--out", str(tmp_path / out)]
        return load(TrainConfig, [*given, *words], prog="train.py")

    return make


@pytest.fixture(autouse=True)
def fresh_process_state():
    """accelerate keeps one state a process; each run of a test begins like a process of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
