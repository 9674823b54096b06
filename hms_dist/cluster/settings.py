"""Configuration of a cluster: account, partitions, job sizes and set-up."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hms_dist.core.keyed import check_seed

_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}", re.ASCII)
_MOST_WARN_S = 65536
"""Longest warning that Slurm accepts, seconds."""
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PLACE = re.compile(r"[\w.,@+-]+")
"""An account or partition: a word in an #SBATCH line, where quoting is impossible."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of one job, or of each task of an array."""

    nodes: int = 1
    """Number of nodes."""
    gpus: int = 0
    """GPUs per node."""
    ranks: int | None = None
    """Training processes per node. None: one per GPU, or one without GPUs."""
    cpus: int = 4
    """CPUs per node, shared by the ranks."""
    memory_gb: int = 16
    """Memory per node, GiB."""
    time: str | int = "1-00:00:00"
    """Time limit, in Slurm's format: minutes, "HH:MM:SS" or "D-HH:MM:SS". Remaining work is done after a requeue."""
    partition: str | None = None
    """Partition of this job; None: the cluster's `partition`."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, verbatim, such as --constraint=h100."""

    def __post_init__(self) -> None:
        for name in ("nodes", "cpus", "memory_gb"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.gpus < 0:
            raise ValueError(f"gpus: expected at least 0, found {self.gpus}")
        if self.ranks is not None and self.ranks < 1:
            raise ValueError(f"ranks: expected at least 1 or null, found {self.ranks}")
        if self.gpus and self.ranks not in (None, self.gpus):
            raise ValueError(
                f"ranks: expected one per GPU, found {self.ranks} ranks and {self.gpus} GPUs; leave ranks out"
            )
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
        """Training processes per node."""
        return self.ranks or self.gpus or 1


@dataclass(frozen=True, kw_only=True)
class RenderJob(Resources):
    """Array that renders a shard set, one slice per task."""

    slices: int = 16
    """Number of tasks in the array."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slices < 1:
            raise ValueError(f"slices: expected at least 1, found {self.slices}")
        _check_one_node(self)


@dataclass(frozen=True, kw_only=True)
class SeedsJob(Resources):
    """Array of training runs: every seed with every fold."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs."""
    folds: tuple[int | Literal["none"], ...] = (0, 1, 2, 3, 4)
    """Validation folds of the runs; none: train on all rows."""

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
    """A cluster and the resources of each kind of job. One YAML file per cluster: configs/slurm/."""

    RECIPE_FOLDER = "slurm"

    account: str | None = None
    """Account to charge; None: the user's default."""
    partition: str | None = None
    """Partition of jobs that name none; None: the cluster's default."""
    options: tuple[str, ...] = ()
    """Further options of sbatch for every job, verbatim, such as --qos=long."""
    setup: tuple[str, ...] = ("source .venv/bin/activate",)
    """Shell lines before the first command, such as module load cuda."""
    container: tuple[str, ...] = ()
    """Words before each command, such as [apptainer, exec, --nv, hms.sif]; none: no container."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the cluster's network needs, such as NCCL_SOCKET_IFNAME: ib0; numbers in quotes."""
    warn_s: int = 300
    """Seconds before its end at which a job is warned. One step, a checkpoint and a requeue must fit."""
    max_restarts: int = 20
    """Number of requeues before a job gives up."""
    render: RenderJob = field(default_factory=RenderJob)
    """Rendering array."""
    finish: Resources = field(default_factory=Resources)
    """Job after it, which completes the set and verifies every byte."""
    train: Resources = field(default_factory=Resources)
    """A run on one or several nodes."""
    seeds: SeedsJob = field(default_factory=SeedsJob)
    """Array of runs."""

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
                if "\n" in text or "\r" in text or "\0" in text:  # the scripts of a pipeline end at a fixed line
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
