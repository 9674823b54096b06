"""Small grids: the packaged recipes at the size of configs/train/small.yaml, run in processes of their own."""

import pytest


@pytest.fixture(autouse=True)
def in_the_checkout(repository, monkeypatch):
    """Paths of recipes are from where a command runs."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(repository))


@pytest.fixture(scope="session")
def features(rendered):
    """A shard set with the wavelet ablation's three features."""
    return rendered("seed_001")
