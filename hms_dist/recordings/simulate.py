"""`hms-dist simulate`: simulate recordings in Kaggle's layout, with their true label distributions."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS, read_description
from hms_dist.jobs.worker_processes import run_jobs

if TYPE_CHECKING:
    from hms_dist.recordings.simulator.cohort import SessionPlan
    from hms_dist.recordings.simulator.write import Row


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """Simulate EEGs of all six classes into train.csv, train_eegs, train_spectrograms and truth.parquet.

    The same options give the same bytes with any number of workers.
    """

    out: Path
    """Folder to write; created if missing, an error if it already holds a train.csv."""
    num_recordings: int = 64
    """Number of EEG files, each with 1 to 8 label rows; a patient has 1 to 4, some sharing a spectrogram file."""
    seed: int = 0
    """Seed of all draws: 0 to 4294967295."""
    dataset: Path | None = None
    """Description of another data set, as DATA/dataset.yaml, whose `labels` name the class of each of the six simulated
    patterns (seizure, lpd, gpd, lrda, grda, other). The recordings are the same. None: HMS."""
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

    dataset = HMS if config.dataset is None else read_description(config.dataset)
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
