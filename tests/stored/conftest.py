"""Fixtures of the tests of stored files: a copy of the folder, and the commands in this process."""

import json
import runpy
import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.train.loop import run
from hms_dist.train.settings import TrainConfig

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def one_thread():
    """A run is bit for bit on one thread; torch's own settings are put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    if torch.are_deterministic_algorithms_enabled():  # else this imports torch's compiler for nothing
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def same_machine() -> bool:
    """Whether bytes may be compared: the package versions and the processor family are those of the stored folder."""
    made = json.loads((HERE / "5e6f9d5/made_with.json").read_text())
    here = runpy.run_path(str(HERE / "make.py"))["processor"]()
    return made.pop("processor") == here and all(metadata.version(name) == made[name] for name in made)


@pytest.fixture
def folder(tmp_path, monkeypatch, repository) -> Path:
    """A copy of what commit 5e6f9d5 stored, in which the test runs: its paths are relative."""
    shutil.copytree(HERE / "5e6f9d5", tmp_path / "stored")
    monkeypatch.chdir(tmp_path / "stored")
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "stored"


@pytest.fixture
def run_command(folder):
    """Runs a command in the folder."""

    def call(*words: str) -> None:
        assert main([*words]) == 0
        AcceleratorState._reset_state(reset_partial_state=True)

    return call


@pytest.fixture
def config(folder):
    """The configuration of a run as its command gave it."""

    def make(out: str, *files: str) -> TrainConfig:
        words = [word for file in ("train.yaml", *files) for word in ("--config", file)]
        return load(TrainConfig, [*words, "--shards", "set", "--out", out], prog="train.py")

    return make


@pytest.fixture
def train():
    """Trains in this process."""

    def call(config: TrainConfig) -> None:
        run(config)
        AcceleratorState._reset_state(reset_partial_state=True)

    return call
