"""Small grids: the packaged recipes at the size of configs/train/small.yaml, run in separate processes."""

import pytest


@pytest.fixture(autouse=True)
def in_the_checkout(repository, monkeypatch):
    """Run in the checkout: paths of recipes are relative to the current folder."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(repository))


@pytest.fixture(scope="session")
def features(rendered):
    """A shard set with the wavelet ablation's three features."""
    return rendered("seed_001")
