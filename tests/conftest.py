"""Data that many tests share: simulated recordings and a shard set of them, made once a session."""

from pathlib import Path

import pytest

from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.render import Render
from hms_dist.render import run as render

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """A folder in Kaggle's layout: 12 simulated EEGs with their label rows."""
    folder = tmp_path_factory.mktemp("recordings") / "data"
    simulate(Simulate(out=folder, num_recordings=12, seed=7))
    return folder


@pytest.fixture(scope="session")
def shard_set(recordings, tmp_path_factory) -> Path:
    """The shard set of `recordings` with the default panels, in several shards."""
    folder = tmp_path_factory.mktemp("shards") / "set"
    render(Render(data=recordings, out=folder, samples_per_shard=16))
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY
