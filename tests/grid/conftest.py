"""Small grids: the packaged recipes at the size of configs/train/small.yaml, run in processes of their own."""

import pytest

from hms_dist.config import load
from hms_dist.render import Render
from hms_dist.render import run as render


@pytest.fixture(autouse=True)
def in_the_checkout(repository, monkeypatch):
    """Paths of recipes and of train.py are from where a command runs."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(repository))


@pytest.fixture(scope="session")
def features(recordings, tmp_path_factory):
    """A shard set with seed 001's three features."""
    out = tmp_path_factory.mktemp("features") / "set"
    render(load(Render, ["--config", "configs/render/seed_001.yaml", "--data", str(recordings), "--out", str(out)]))
    return out
