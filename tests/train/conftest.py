"""A small training run: a 64 x 64 canvas and a small net, in this process."""

from collections.abc import Callable

import pytest
from accelerate.state import AcceleratorState

from hms_dist.config import load
from hms_dist.train.settings import TrainConfig


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
