"""What all tests share: the seed of their random draws, and simulated recordings with a shard set of them."""

import random
import secrets
import sys
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_dist.labels import VOTE_COLUMNS
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", default="0", help="seed of all random draws: a whole number (default 0), or 'fresh'")
    parser.addoption("--rounds", type=int, default=1, help="run each test that draws this often, each with other draws")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed before xdist's workers copy the options and before hypothesis reads its own."""
    given = config.option.seed
    config.option.seed = str(secrets.randbelow(2**32) if given == "fresh" else int(given))
    config.option.hypothesis_seed = config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    return f"random draws: --seed {config.option.seed}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With `--rounds`, a test that draws becomes several, whose ids, and therefore draws, differ."""
    num_rounds = metafunc.config.option.rounds
    if num_rounds > 1 and {"rng", "torch_rng"} & set(metafunc.fixturenames):
        metafunc.fixturenames.append("_round")
        metafunc.parametrize("_round", range(num_rounds), ids=lambda number: f"round{number}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """A failure says how to repeat its draws."""
    report = (yield).get_result()
    if report.failed:
        report.sections.append(("random draws", f"repeat them with --seed {item.config.option.seed}"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Generators that a process has one of start from the seed and the test's name too."""
    number = zlib.crc32(item.nodeid.encode()) ^ int(item.config.option.seed) % 2**32
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  # the generator that libraries fall back to
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


@pytest.fixture(scope="session")
def rng_of(request) -> Callable[[str], np.random.Generator]:
    """Makes the generator of a name, from the seed: for fixtures that several tests share."""
    seed = int(request.config.option.seed)
    return lambda name: np.random.default_rng([seed, zlib.crc32(name.encode())])


@pytest.fixture
def rng(request, rng_of) -> np.random.Generator:
    """The generator of this test: from the seed and the test's name, so that neither order nor workers matter."""
    return rng_of(request.node.nodeid)


@pytest.fixture
def torch_rng(rng):
    """The same for torch; its global generator is seeded alike, for layers that draw their weights."""
    import torch

    torch.manual_seed(int(rng.integers(2**32)))
    return torch.Generator().manual_seed(int(rng.integers(2**32)))


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
def ended() -> Callable[[int | str], bool]:
    """Tells whether a process is gone, or waits to be collected."""

    def ask(pid: int | str) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    return ask


@pytest.fixture(scope="session")
def edited() -> Callable[[Path, str, str], None]:
    """Changes a word in a YAML file that a command wrote, and takes its digest away, as a person may."""

    def change(path: Path, old: str, new: str) -> None:
        text, _, _ = path.read_text().rpartition("# sha256: ")
        assert old in text
        path.write_text(text.replace(old, new))

    return change


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


@pytest.fixture(scope="session")
def full_size_table() -> pd.DataFrame:
    """A label table without recordings, with the counts and class shares of Kaggle's train.csv and its long tails."""
    rng = np.random.default_rng(20240109)
    num_rows, num_eegs, num_spectrograms, num_patients = 106_800, 17_089, 11_138, 1_950
    weights = rng.lognormal(0, 1.5, num_patients)
    patient_of = np.sort(
        np.append(np.arange(num_patients), rng.choice(num_patients, num_eegs - num_patients, p=weights / weights.sum()))
    )
    same_patient = np.flatnonzero(np.diff(patient_of) == 0) + 1
    starts = np.ones(num_eegs, np.int64)
    starts[rng.choice(same_patient, num_eegs - num_spectrograms, replace=False)] = 0
    rows_of = np.minimum(1 + rng.lognormal(0.4, 1.5, num_eegs).astype(np.int64), 700)
    rows_of[rng.choice(num_eegs, 1)] = 700
    while missing := num_rows - rows_of.sum():
        open_to_change = np.flatnonzero((rows_of > 1) & (rows_of < 700))
        rows_of[rng.permutation(open_to_change)[: abs(missing)]] += np.sign(missing)
    shares = np.array([20_933, 14_856, 16_702, 16_640, 18_861, 18_808]) / num_rows
    missing_rows, leaning = shares * num_rows, np.zeros((num_patients, 6))
    rows_of_patient = np.bincount(patient_of, rows_of)
    for patient in np.argsort(-rows_of_patient):
        leaning[patient, missing_rows.argmax()] = 1
        missing_rows[missing_rows.argmax()] -= rows_of_patient[patient]
    eeg = np.repeat(np.arange(num_eegs), rows_of)
    sub = np.arange(num_rows) - np.repeat(np.cumsum(rows_of) - rows_of, rows_of)
    votes = rng.multinomial(
        np.where(rng.random(num_rows) < 0.4, 14, 3), 0.85 * leaning[patient_of[eeg]] + 0.15 * shares
    )
    frame = pd.DataFrame(
        {
            "eeg_id": 568_657 + 7 * eeg,
            "eeg_sub_id": sub,
            "eeg_label_offset_seconds": 2.0 * sub,
            "spectrogram_id": 353_733 + 3 * np.cumsum(starts)[eeg],
            "spectrogram_label_offset_seconds": 2.0 * sub,
            "patient_id": 56 + 11 * patient_of[eeg],
        }
    )
    frame[list(VOTE_COLUMNS)] = votes
    return frame
