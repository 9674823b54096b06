"""A search whose trials do not train: their KL is a function of their parameters; and one whose trials do."""

import pytest

from hms_dist.config.load import load
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.search.options import Search


@pytest.fixture(autouse=True)
def in_the_checkout(repository, monkeypatch):
    """Paths of recipes are from where a command runs."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(repository))


@pytest.fixture(scope="session")
def spectrograms(recordings, tmp_path_factory, repository):
    """A shard set with the 10-minute spectrogram alone."""
    folder = tmp_path_factory.mktemp("spectrograms")
    (folder / "render.yaml").write_text("panels:\n  kaggle_spectrogram: {class_path: KaggleSpectrogram}\n")
    words = ["--config", str(folder / "render.yaml"), "--data", str(recordings), "--out", str(folder / "set")]
    render(load(Render, words))
    return folder / "set"


@pytest.fixture
def search_words(spectrograms, tmp_path):
    """The course report's search at a small size, as words of the command line."""
    configs = ["configs/train/seed_003.yaml", "configs/train/small.yaml"]
    options = ["--configs", *configs, "--options", "{num_folds: 3, epochs: 2}"]
    given = ["--shards", str(spectrograms), "--out", str(tmp_path / "study")]
    return ["--config", "configs/search/seed_003.yaml", *options, *given]


@pytest.fixture
def make(search_words):
    """The search with options, as the command line would give them; one batch if they do not say."""

    def with_options(**options):
        options = {"num_batches": 1, **options}
        return load(Search, [*search_words, *(f"--{name}={value}" for name, value in options.items())])

    return with_options
