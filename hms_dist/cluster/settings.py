"""What a cluster has to be told: whose jobs, where, how large, and what to load before them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hms_dist.core.keyed import check_seed

_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}", re.ASCII)
_MOST_WARN_S = 65536
"""Slurm takes no longer warnings."""
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PLACE = re.compile(r"[\w.,@+-]+")
"""An account or partition: a word of an #SBATCH line, where nothing can be quoted."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one job, or each task of an array, asks for."""

    nodes: int = 1
    """Nodes."""
    gpus: int = 0
    """GPUs of each node."""
    ranks: int | None = None
    """Training processes on each node. None: one a GPU, or one without GPUs."""
    cpus: int = 4
    """CPUs of each node; ranks share them out."""
    memory_gb: int = 16
    """Memory of each node, GiB."""
    time: str | int = "1-00:00:00"
    """Longest time in one go, as Slurm writes it: minutes, "HH:MM:SS" or "D-HH:MM:SS". The rest is done in the next."""
    partition: str | None = None
    """Partition of this job; None: the cluster's `partition`."""
    options: tuple[str, ...] = ()
    """More options of sbatch, word for word, such as --constraint=h100."""

    def __post_init__(self) -> None:
        for name in ("nodes", "cpus", "memory_gb"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.gpus < 0:
            raise ValueError(f"gpus: expected at least 0, found {self.gpus}")
        if self.ranks is not None and self.ranks < 1:
            raise ValueError(f"ranks: expected at least 1 or null, found {self.ranks}")
        if self.gpus and self.ranks not in (None, self.gpus):
            raise ValueError(f"ranks: one a GPU, found {self.ranks} ranks and {self.gpus} GPUs; leave ranks out")
        if self.ranks_per_node > self.cpus:
            raise ValueError(f"cpus: {self.ranks_per_node} ranks on a node need as many, found {self.cpus}")
        if not _TIME.fullmatch(str(self.time)):
            raise ValueError(f"time: expected minutes, HH:MM:SS or D-HH:MM:SS, found '{self.time}'")
        _check_options(self.options)
        _check_place("partition", self.partition)

    @property
    def time_s(self) -> int:
        """`time` in seconds."""
        days, dash, clock = str(self.time).rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        if dash:  # hours first
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:  # minutes first
            hours, (minutes, seconds) = 0, (*parts, 0)[:2]
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds

    @property
    def ranks_per_node(self) -> int:
        """Training processes on each node."""
        return self.ranks or self.gpus or 1


@dataclass(frozen=True, kw_only=True)
class RenderJob(Resources):
    """An array that renders a shard set, a slice a task."""

    slices: int = 16
    """Tasks of the array."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slices < 1:
            raise ValueError(f"slices: expected at least 1, found {self.slices}")
        _check_one_node(self)


@dataclass(frozen=True, kw_only=True)
class SeedsJob(Resources):
    """An array that trains one run a task: every seed with every fold."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs."""
    folds: tuple[int | Literal["none"], ...] = (0, 1, 2, 3, 4)
    """Validation folds of the runs; none: trained on all rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "folds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different values, at least one, found {list(values)}")
        for seed in self.seeds:
            check_seed("seeds", seed)
        if any(fold != "none" and fold < 0 for fold in self.folds):
            raise ValueError(f"folds: expected numbers from 0, or none, found {list(self.folds)}")
        _check_one_node(self)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A cluster, and what each of our jobs asks of it. One YAML file a cluster: configs/slurm/."""

    RECIPE_FOLDER = "slurm"

    account: str | None = None
    """Account that the jobs are charged to; None: the user's default."""
    partition: str | None = None
    """Partition of jobs that name none themselves; None: the cluster's default."""
    options: tuple[str, ...] = ()
    """More options of sbatch for every job, word for word, such as --qos=long."""
    setup: tuple[str, ...] = ("source .venv/bin/activate",)
    """Lines of shell before anything of ours runs, such as module load cuda."""
    container: tuple[str, ...] = ()
    """Words before each of our commands, such as [apptainer, exec, --nv, hms.sif]; none: no container."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the cluster's network needs, such as NCCL_SOCKET_IFNAME: ib0; numbers in quotes."""
    warn_s: int = 300
    """Seconds before its end at which a job is warned. A step, a checkpoint and a requeue must fit into them."""
    max_restarts: int = 20
    """Times that a job goes back into the queue before it gives up."""
    render: RenderJob = field(default_factory=RenderJob)
    """The array that renders."""
    finish: Resources = field(default_factory=Resources)
    """The job after it, which completes the set and reads every byte of it."""
    train: Resources = field(default_factory=Resources)
    """One run on one or several nodes."""
    seeds: SeedsJob = field(default_factory=SeedsJob)
    """The array of runs."""

    def __post_init__(self) -> None:
        shortest_s = min(job.time_s for job in (self.render, self.finish, self.train, self.seeds))
        if not 0 < self.warn_s < min(shortest_s, _MOST_WARN_S):
            raise ValueError(
                f"warn_s: expected 1 s or more, less than {_MOST_WARN_S} s and than any job's time ({shortest_s} s), "
                f"found {self.warn_s}"
            )
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts: expected at least 0, found {self.max_restarts}")
        for name in self.environment:
            if not _NAME.fullmatch(name):
                raise ValueError(f"environment: '{name}' cannot name a variable")
        _check_options(self.options)
        _check_place("account", self.account)
        _check_place("partition", self.partition)
        for name, texts in {
            "environment": self.environment.values(), "container": self.container, "setup": self.setup
        }.items():  # fmt: skip
            for text in texts:
                if "\n" in text or "\r" in text or "\0" in text:  # the scripts of a pipeline end at a line of their own
                    raise ValueError(f"{name}: expected one line, found {text!r}; give each line by itself")


def _check_one_node(job: Resources) -> None:
    if job.nodes > 1:
        raise ValueError(f"nodes: each task of an array runs on one node, found {job.nodes}; use the train job")


def _check_place(name: str, place: str | None) -> None:
    if place is not None and not _PLACE.fullmatch(place):
        raise ValueError(f"{name}: expected letters, digits and . , @ + - _, found {place!r}")


def _check_options(options: tuple[str, ...]) -> None:
    for option in options:
        if not option.startswith("-") or any(sign in option for sign in "\n\r\0"):
            raise ValueError(f"options: expected options of sbatch such as --qos=long, found '{option}'")
