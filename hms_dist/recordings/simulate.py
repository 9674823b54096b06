"""`hms-dist simulate`: simulate recordings in Kaggle's layout, with their true labels: EEG, or audio."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from hms_dist.config.recipes import is_name
from hms_dist.core.errors import UserError, suggestion
from hms_dist.datasets import HMS, POSITIVES_NAME, RFCX, Dataset, read_description
from hms_dist.jobs.worker_processes import run_jobs

if TYPE_CHECKING:
    from hms_dist.recordings.audio_simulator.plan import ClipPlan
    from hms_dist.recordings.simulator.cohort import SessionPlan
    from hms_dist.recordings.simulator.write import Row


SHIPPED = {"rfcx": RFCX}
"""Descriptions of other data sets by name."""


@dataclass(frozen=True, kw_only=True)
class AudioClips:
    """Options of simulated audio."""

    clip_s: float = 60.0
    """Length of a clip, seconds."""
    num_test: int | None = None
    """Number of clips of the test set. None: 0.42 a clip for training, as in RFCX."""

    def __post_init__(self) -> None:
        if not 0 < self.clip_s <= 600:
            raise ValueError(f"clip_s: expected above 0, at most 600, found {self.clip_s}")
        if self.num_test is not None and self.num_test < 1:
            raise ValueError(f"num_test: expected at least 1, found {self.num_test}")


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """Simulate EEGs of all six classes into train.csv, train_eegs, train_spectrograms and truth.parquet; or, with a
    data set of audio, clips of a rainforest into train_tp.csv, train_fp.csv, train, test, and their truth.

    The same options give the same bytes with any number of workers.
    """

    out: Path
    """Folder to write; created if missing, an error if it already holds a train.csv."""
    num_recordings: int = 64
    """Number of EEG files, each with 1 to 8 label rows; a patient has 1 to 4, some sharing a spectrogram file. Of
    audio: number of clips for training."""
    seed: int = 0
    """Seed of all draws: 0 to 4294967295."""
    dataset: Path | None = None
    """Description of another data set, as DATA/dataset.yaml, whose `labels` name the class of each of the six simulated
    patterns (seizure, lpd, gpd, lrda, grda, other). The recordings are the same. None: HMS. Or a description of audio;
    rfcx is that of RFCX."""
    audio: AudioClips = field(default_factory=AudioClips)
    """Options of a data set of audio."""
    workers: int = 1
    """Number of worker processes; 1: this process alone."""

    def __post_init__(self) -> None:
        if self.num_recordings < 1:
            raise ValueError(f"num_recordings: expected at least 1, found {self.num_recordings}; raise it")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: expected 0 to 4294967295, found {self.seed}; choose another")
        if self.workers < 1:
            raise ValueError(f"workers: expected at least 1, found {self.workers}; raise it")


def run(config: Simulate) -> None:
    """Write the simulated recordings. train.csv is written last and marks the folder as complete.

    Raises UserError if `out` already holds a train.csv or cannot be a folder, Stopped and JobError as `run_jobs`.
    """
    # Imported late: these modules import pandas, pyarrow and scipy, which reading a configuration does not need.
    from hms_dist.recordings.simulator.cohort import plan_cohort
    from hms_dist.recordings.simulator.relabel import check_patterns
    from hms_dist.recordings.simulator.write import make_folders, write_tables

    dataset = _dataset(config)
    if dataset.signal == "audio":
        _simulate_audio(config, dataset)
        return
    check_patterns(dataset, config.dataset)
    table = config.out / "train.csv"
    if table.exists():
        raise UserError(f"{table}: a label table is there already; choose another --out or remove that folder")
    make_folders(config.out)
    sessions = plan_cohort(config.num_recordings, config.seed)
    write = partial(_numbered, seed=config.seed, out=config.out)
    jobs = run_jobs(write, list(enumerate(sessions)), config.workers)
    rows_of = dict(tqdm(jobs, "simulate", len(sessions), unit="session", disable=None))
    rows = [row for number in range(len(sessions)) for row in rows_of[number]]
    write_tables(config.out, rows, dataset, config.seed)


def _numbered(task: tuple[int, "SessionPlan"], *, seed: int, out: Path) -> tuple[int, "list[Row]"]:
    """Write the files of a session; return its number and its label rows."""
    from hms_dist.recordings.simulator.write import write_session

    number, session = task
    return number, write_session(session, seed, out)


def _dataset(config: Simulate) -> Dataset:
    if config.dataset is None:
        return HMS
    name = str(config.dataset)
    if is_name(name) and not config.dataset.exists():
        if name not in SHIPPED:
            hint = suggestion(name, list(SHIPPED))
            raise UserError(f"dataset: unknown '{name[:100]}'; {hint}one of: {', '.join(SHIPPED)}, or a path")
        return SHIPPED[name]
    return read_description(config.dataset)


def _simulate_audio(config: Simulate, dataset: Dataset) -> None:
    """Write simulated clips; train_tp.csv is written last."""
    from hms_dist.recordings.audio_simulator.plan import TEST_SHARE, plan_clips
    from hms_dist.recordings.audio_simulator.write import make_folders, write_tables

    table, audio = config.out / POSITIVES_NAME, config.audio
    if table.exists():
        raise UserError(f"{table}: a table is there already; choose another --out or remove that folder")
    if audio.clip_s < dataset.window_s:
        raise UserError(f"audio.clip_s: expected at least {dataset.window_s:g}, a row of {dataset.name}; raise it")
    make_folders(config.out)
    num_test = max(round(TEST_SHARE * config.num_recordings), 1) if audio.num_test is None else audio.num_test
    clips = plan_clips(dataset, config.num_recordings, num_test, audio.clip_s, config.seed)
    write = partial(_write_clip, clip_s=audio.clip_s, dataset=dataset, seed=config.seed, out=config.out)
    for _ in tqdm(run_jobs(write, clips, config.workers), "simulate", len(clips), unit="clip", disable=None):
        pass
    write_tables(clips, dataset, config.out)


def _write_clip(plan: "ClipPlan", *, clip_s: float, dataset: Dataset, seed: int, out: Path) -> int:
    from hms_dist.recordings.audio_simulator.write import write_clip

    write_clip(plan, clip_s, dataset, seed, out)
    return plan.index
