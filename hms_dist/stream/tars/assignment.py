"""Assignment of whole tars to the workers of all ranks, a pure function, and the number of batches per rank."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np

from hms_dist.core.errors import UserError
from hms_dist.core.keyed import keyed_hash
from hms_dist.shards.index import Rows
from hms_dist.shards.manifest import Manifest, tar_names

_ORDER, _DRAWS = 11, 12
"""Streams of keyed draws: the order of the tars in an exact epoch, and the tars of a resampled one."""
NAME = "{name}"
"""Placeholder of a file's name in the URL of a shard set."""


@dataclass(frozen=True, kw_only=True)
class Tar:
    """A tar of a shard set, from its manifest."""

    url: str
    first_row: int
    """Row of its first sample: the rows of a set are numbered in tar order."""
    num_samples: int
    num_wanted: int
    """Number of samples to read from it."""
    num_bytes: int
    sha256: str


def file_url(url: str, name: str) -> str:
    """Location of a file of the set: `url` with {name} replaced, or followed by the name."""
    return url.replace(NAME, shlex.quote(name)) if NAME in url else f"{url.rstrip('/')}/{name}"


def tars_of(url: str, manifest: Manifest, rows: Rows | None = None) -> list[Tar]:
    """Tars of a set that hold requested samples; `rows` None: all of them."""
    names = set(tar_names(manifest))
    entries = [entry for entry in manifest.files if entry["name"] in names]
    ends = np.cumsum([entry["num_samples"] for entry in entries])
    below = np.array([0, *ends])
    if rows is not None:
        below = np.searchsorted(np.unique(rows), below)
    tars = [
        Tar(
            url=file_url(url, entry["name"]),
            first_row=int(end) - entry["num_samples"],
            num_samples=entry["num_samples"],
            num_wanted=int(num_wanted),
            num_bytes=entry["num_bytes"],
            sha256=entry["sha256"],
        )
        for entry, end, num_wanted in zip(entries, ends, np.diff(below), strict=True)
    ]
    return [tar for tar in tars if tar.num_wanted]


@dataclass(frozen=True)
class ShardAssignment:
    """Tars of `num_ranks` x `num_workers` streams, numbered worker by worker: stream = worker * num_ranks + rank.

    Raises UserError, with the numbers, if a stream could get less than one batch.
    """

    tars: list[Tar]
    batch_size: int
    num_ranks: int
    num_workers: int
    resampled: bool

    def __post_init__(self) -> None:
        if not self.num_samples:
            raise UserError("rows: no sample of the set is wanted; choose more rows")
        if self.resampled and self.num_batches:
            return
        if self.resampled:
            raise UserError(
                f"{self.num_samples} samples are less than one batch of {self.batch_size} for each of "
                f"{self.num_ranks} ranks; lower batch_size or the ranks"
            )
        starved = [stream for stream in range(self.num_streams) if not self.num_batches_of(stream)]
        if starved:
            share = self._num_tars_of(starved[-1])
            raise UserError(
                f"{len(self.tars)} tars for {self.num_ranks} ranks x {self.num_workers} workers = {self.num_streams} "
                f"streams: one would get {share} tars with {self._fewest_samples(share)} samples, a batch needs "
                f"{self.batch_size}; use fewer workers or ranks, epochs: resampled, or render with a smaller "
                "samples_per_shard"
            )

    @property
    def num_streams(self) -> int:
        """Workers of all ranks together."""
        return self.num_ranks * self.num_workers

    @property
    def num_samples(self) -> int:
        """Number of samples in all tars."""
        return sum(tar.num_wanted for tar in self.tars)

    @cached_property
    def num_batches(self) -> int:
        """Batches of every rank in every epoch: in exact epochs the smallest number that is guaranteed for every
        rank."""
        if self.resampled:
            return self.num_samples // (self.batch_size * self.num_ranks)
        return min(
            sum(self.num_batches_of(stream) for stream in range(rank, self.num_streams, self.num_ranks))
            for rank in range(self.num_ranks)
        )

    def num_batches_of(self, stream: int) -> int:
        """Batches of one stream in every epoch, also in one that assigns it the smallest tars."""
        if self.resampled:
            return -(-self.num_batches // self.num_workers)
        return self._fewest_samples(self._num_tars_of(stream)) // self.batch_size

    def tars_for(self, stream: int, *, seed: int, epoch: int) -> Iterator[Tar]:
        """Tars of one stream in an epoch: every `num_streams`-th of a keyed order, or endless keyed draws.

        Draws give every tar, and therefore every sample, the same probability.
        """
        number = len(self.tars)
        if self.resampled:
            return (self.tars[int(keyed_hash(seed, _DRAWS, epoch, stream, draw)) % number] for draw in count())
        order = np.argsort(keyed_hash(seed, _ORDER, epoch, np.arange(number)), kind="stable")
        return (self.tars[place] for place in order[stream :: self.num_streams])

    def _num_tars_of(self, stream: int) -> int:
        return len(range(stream, len(self.tars), self.num_streams))

    def _fewest_samples(self, num_tars: int) -> int:
        return sum(sorted(tar.num_wanted for tar in self.tars)[:num_tars])
