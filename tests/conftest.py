"""Fixtures of all tests: the seed of their random draws, and simulated recordings with a shard set of them."""

import gc
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import runpy
import secrets
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from hms_dist.config.load import load
from hms_dist.datasets import HMS
from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render

REPOSITORY = Path(__file__).parents[1]
SMALL = """
    canvas:
      height: 64
      width: 64
      placements:
        - {panel: eeg_spectrogram, arrangement: time_down, resize: area, top: 0, left: 0, height: 32, width: 64,
           normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
        - {panel: traces, flipped_panel: traces_flipped, resize: area, top: 32, left: 0, height: 32, width: 64}
    model: {name: test_efficientnet, drop_rate: 0.2, drop_path_rate: 0.2}
    num_folds: 3
    epochs: 2
    global_batch: 4
    group_size: 2
    log_every: 1
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", default="0", help="seed of all random draws: a whole number (default 0), or 'fresh'")
    parser.addoption("--rounds", type=int, default=1, help="run each test that draws this often, each with other draws")
    parser.addoption(
        "--record-golden", action="store_true", help="record tests/golden again instead of comparing with it"
    )


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


LONG = (
    "tests/slurm/test_train", "tests/slurm/test_pipeline", "tests/train/test_recipes", "tests/test_chains",
    "tests/train/ranks", "tests/train/folder/test_stop", "tests/search/test_real", "tests/grid", "tests/train/learn",
    "tests/train/test_resume", "tests/cluster", "tests/slurm", "tests/train/test_families", "tests/test_other",
    "tests/test_kaggle", "tests/rendering", "tests/model",
)  # fmt: skip
"""Prefixes of files with long tests, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files: a worker that got one of them last would be alone in the end."""
    items.sort(key=lambda item: [not item.nodeid.startswith(name) for name in LONG])


def pytest_collection_finish() -> None:
    """Keep the million objects of the collected tests out of garbage collections.

    accelerate asks for a full one at the beginning of every run, which would search them for 0.6 s.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Add to a failure how to repeat its draws."""
    report = (yield).get_result()
    if report.failed:
        repeated = hasattr(item, "callspec") and "_round" in item.callspec.params
        rounds = f" --rounds {item.config.option.rounds}" if repeated else ""
        report.sections.append(("random draws", f"repeat them with --seed {item.config.option.seed}{rounds}"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Generators that a process has one of start from the seed and the test's name too."""
    number = zlib.crc32(item.nodeid.encode()) ^ int(item.config.option.seed) % 2**32
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  # the generator that libraries fall back to
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


@pytest.fixture(scope="session", autouse=True)
def unsynced():
    """Writes of this process need not outlive a power cut: a run waits for the disk about 60 times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


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
    """The generator of this test for torch; the global one is seeded alike, for layers that draw their weights."""
    import torch

    torch.manual_seed(int(rng.integers(2**32)))
    return torch.Generator().manual_seed(int(rng.integers(2**32)))


@pytest.fixture(scope="session")
def call() -> Callable[..., None]:
    """Calls a command in this process and checks its exit code; afterwards the process is as before."""

    def run_command(*words: object, code: int = 0) -> None:
        import torch
        from accelerate.state import AcceleratorState

        from hms_dist.cli import main

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        assert main([str(word) for word in words]) == code
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        AcceleratorState._reset_state(reset_partial_state=True)

    return run_command


@pytest.fixture(scope="session")
def shared(request, tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`shared(name, make)`: a folder that `make(folder)` fills once for all workers of xdist. Tests only read it."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if hasattr(request.config, "workerinput") else base) / "shared"
    base.mkdir(exist_ok=True)

    def folder_of(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def recordings(shared) -> Path:
    """A folder in Kaggle's layout: 12 simulated EEGs with their label rows."""
    return shared("recordings", lambda folder: simulate(Simulate(out=folder, num_recordings=12, seed=7)))


@pytest.fixture(scope="session")
def shard_set(shared, recordings) -> Path:
    """The shard set of `recordings` with the default panels, in several shards."""

    def make(folder: Path) -> None:
        render(Render(data=recordings, out=folder / "set", samples_per_shard=16))

    return shared("shards", make) / "set"


@pytest.fixture(scope="session")
def forks():
    """Starts processes as forks of one that has imported torch, timm and accelerate: 8 s sooner than an interpreter."""
    context = multiprocessing.get_context("forkserver")
    modules = ["hms_dist.train.loop", "hms_dist.predict.infer", "timm", "torch._dynamo", "sklearn.metrics"]
    context.set_forkserver_preload(modules)
    return context


@pytest.fixture(scope="session")
def forked(forks) -> Callable[..., multiprocessing.Process]:
    """`forked(words, environment, folder, log)`: a process to start that is `python WORDS` there, logged."""

    def make(*request: object) -> multiprocessing.Process:
        options = {"run_name": "__main__", "init_globals": {"REQUEST": request}}
        return forks.Process(target=runpy.run_path, args=(str(REPOSITORY / "tests/forked.py"),), kwargs=options)

    return make


@pytest.fixture(scope="session")
def launcher(forked, tmp_path_factory) -> str:
    """`--launch.words` of a grid whose runs are forks, for tests of what the runs make and not of how they start."""
    server = socket.socket(socket.AF_UNIX)
    address = str(tmp_path_factory.mktemp("launcher") / "socket")
    server.bind(address)
    server.listen()

    def serve() -> None:
        while True:
            with server.accept()[0] as client:
                (output,) = socket.recv_fds(client, 1, 1)[1]
                with client.makefile("rb") as given:
                    words, environment, folder = json.load(given)
                process = forked(words, environment, folder, f"/proc/{os.getpid()}/fd/{output}")
                process.start()
                process.join()
                os.close(output)
                client.sendall(str(process.exitcode).encode())

    threading.Thread(target=serve, daemon=True).start()
    return json.dumps([sys.executable, "-I", "-S", str(REPOSITORY / "tests/fork_launcher.py"), address])


@pytest.fixture(scope="session")
def ranks(forked, tmp_path_factory) -> Callable[..., str]:
    """`ranks(2, "train.py", ...)`: `python train.py ...` as two gloo ranks without a launcher; what they printed.

    Processes of their own, in the environment that torchrun gives. Each must end with the exit code `code`, or with its
    own of the sequence.
    """
    logs = tmp_path_factory.mktemp("ranks")

    def run(number: int, *words: object, code: int | Sequence[int] = 0) -> str:
        from torch.distributed import TCPStore

        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        log = logs / f"{len(list(logs.iterdir()))}.log"
        log.touch()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        if number > 1:
            environment |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "ACCELERATE_USE_CPU": "1"}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
            environment |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        codes = [code] * number if isinstance(code, int) else list(code)
        processes = []
        for rank in map(str, range(number)):
            place = {"RANK": rank, "LOCAL_RANK": rank} if number > 1 else {}
            processes.append(forked([*map(str, words)], environment | place, str(REPOSITORY), str(log)))
        try:
            for process in processes:
                process.start()
            ends = time.monotonic() + 550
            while (alive := [process.sentinel for process in processes if process.is_alive()]) and all(
                process.exitcode in (None, wanted) for process, wanted in zip(processes, codes, strict=True)
            ):
                assert time.monotonic() < ends, log.read_text()
                multiprocessing.connection.wait(alive, 10)
        finally:
            for process in processes:
                process.kill()
                process.join()
        assert [process.exitcode for process in processes] == codes, log.read_text()
        return log.read_text()

    return run


@pytest.fixture(scope="session")
def rendered(shared, recordings) -> Callable[[str], Path]:
    """The shard set of `recordings` by a recipe of configs/render, made when first asked for."""

    def make(recipe: str) -> Path:
        words = ["--config", str(REPOSITORY / f"configs/render/{recipe}.yaml"), "--data", str(recordings)]
        return shared(f"rendered-{recipe}", lambda out: render(load(Render, [*words, "--out", str(out)])))

    return make


@pytest.fixture(scope="session")
def ended() -> Callable[[int | str], bool]:
    """Whether a process is gone, or waits to be collected."""

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
def site(shared) -> Path:
    """The documentation site, built strict: a warning, such as one of a dead link, fails."""

    def build(folder: Path) -> None:
        words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return shared("site", build)


@pytest.fixture(scope="session")
def small_file(shared) -> Path:
    """A training configuration small enough for tests."""

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "small.yaml").write_text(textwrap.dedent(SMALL))

    return shared("configs", write) / "small.yaml"


@pytest.fixture(scope="session")
def one_epoch(shared, call, small_file, shard_set) -> Path:
    """The folder of a finished run of the small configuration: one epoch, on `shard_set`. Tests only read it."""

    def train(folder: Path) -> None:
        call("train", "--config", small_file, "--shards", shard_set, "--out", folder / "run", "--epochs", 1)

    return shared("one_epoch", train) / "run"


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
    frame[list(HMS.vote_columns)] = votes
    return frame
