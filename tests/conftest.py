"""Data that many tests share: simulated recordings and a shard set of them, made once a session."""

import textwrap
from pathlib import Path

import pytest

from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.render import Render
from hms_dist.render import run as render

REPOSITORY = Path(__file__).parents[1]
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


@pytest.fixture(scope="session")
def small_file(tmp_path_factory) -> Path:
    """A training configuration small enough for tests."""
    path = tmp_path_factory.mktemp("configs") / "small.yaml"
    path.write_text(textwrap.dedent(SMALL))
    return path
