"""Sequential reading of a shard set as a webdataset pipeline, for pipes and stores without range requests.

Only the manifest is needed. Because whole tars are assigned to ranks and their workers, the guarantees of the indexed
stream for any number of ranks do not hold. These do: every rank gets the same number of batches, known in advance; an
exact epoch has no duplicate samples; a tar is compared with the manifest's SHA-256 before its first sample is used; the
result is a function of (seed, epoch, ranks, workers). A stopped epoch restarts at its beginning.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import parse_json
from hms_dist.core.keyed import check_seed, keyed_hash
from hms_dist.core.remote import Patience
from hms_dist.labels.table import VOTE_COLUMNS
from hms_dist.shards.index import Rows
from hms_dist.shards.manifest import Manifest
from hms_dist.shards.schema import JSON_MEMBER, PanelSpec, member_name
from hms_dist.stream.tars.assignment import ShardAssignment, Tar, tars_of
from hms_dist.stream.tars.tar_samples import Sample, read_samples

_BUFFER = 13
"""Stream of keyed draws: the seed of a worker's shuffle buffer."""


@dataclass(frozen=True, kw_only=True)
class SequentialConfig:
    """Options of sequential reading."""

    batch_size: int = 8
    """Samples per batch."""
    seed: int = 0
    """Seed of the order of tars and samples; 0 to 2^32 - 1."""
    epochs: Literal["exact", "resampled"] = "exact"
    """exact: no duplicate samples in an epoch; samples that do not fill every rank's batches are dropped, different
    ones each epoch. resampled: tars are drawn with replacement, so any number of ranks and workers is possible."""
    workers: int = 2
    """Reading and decoding processes per rank; 0: the process itself."""
    shuffle_samples: int = 256
    """Size of each worker's shuffle buffer, in undecoded samples of several tars; 1: tar order."""
    patience: Patience = field(default_factory=Patience)
    """Retries of a tar that could not be read. The time-out is not used: the command of a URL has its own."""

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        for name, least in (("batch_size", 1), ("workers", 0), ("shuffle_samples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")


@dataclass(frozen=True)
class SequentialBatch:
    """A batch with the values that the indexed stream takes from the index; `rows`, `panels` and `to` as in its
    Batch."""

    rows: NDArray[np.int64]
    """Row of each sample [m] in the shard set: the key of its random draws."""
    keys: tuple[str, ...]
    """<eeg_id>-<eeg_sub_id> of each sample."""
    votes: NDArray[np.int64] | None
    """Votes [m, 6]; None if a sample has none."""
    panels: dict[str, torch.Tensor]
    """Panel -> [m, *stored_shape]; bits packed in uint8."""

    def to(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Copy the panels to a device."""
        return {name: tensor.to(device, non_blocking=True) for name, tensor in self.panels.items()}


class SequentialStream:
    """Batches of one rank. Do not pass them through `accelerate.prepare`, which would distribute them again."""

    def __init__(
        self, url: str, manifest: Manifest, panels: Sequence[str], config: SequentialConfig,
        *, rank: int = 0, num_ranks: int = 1, rows: Rows | None = None,
    ) -> None:  # fmt: skip
        """Prepare to read `panels` of the samples `rows` (None: all).

        `url`: folder or URL of the set, or anything that webdataset opens with {name} in place of a file's name, such
        as `pipe:aws s3 cp s3://bucket/set/{name} -`. Raises UserError for a panel that the set lacks, and if there are
        too few tars for the ranks and workers.
        """
        missing = [name for name in panels if name not in manifest.panels]
        if missing:
            raise UserError(
                f"{url}: no panel '{missing[0]}'; the set has {', '.join(manifest.panels)}; render it, or choose others"
            )
        self._config, self._rank, self._num_ranks = config, rank, num_ranks
        self._specs = {name: manifest.panels[name] for name in panels}
        tars = tars_of(url, manifest, rows)
        self._deal = ShardAssignment(
            tars, batch_size=config.batch_size, num_ranks=num_ranks, num_workers=max(config.workers, 1),
            resampled=config.epochs == "resampled",
        )  # fmt: skip
        self._wanted = None if rows is None else frozenset(np.asarray(rows).tolist())

    @property
    def num_batches(self) -> int:
        """Batches of an epoch: the same for every rank and every epoch."""
        return self._deal.num_batches

    def batches(self, epoch: int, *, pin: bool = False) -> Iterator[SequentialBatch]:
        """Yield the batches of an epoch, counted from 0. `pin`: in page-locked memory, for copies to a GPU.

        Raises UserError naming the tar that cannot be read or does not match the manifest.
        """
        loader = webdataset.WebLoader(self.pipeline(epoch), batch_size=None, num_workers=self._config.workers)
        for batch in islice(iter(loader), self.num_batches):
            if isinstance(batch, UserError):
                raise batch
            yield _pinned(batch) if pin else batch

    def pipeline(self, epoch: int) -> webdataset.DataPipeline:
        """Stages of a worker: tars, samples, shuffle, decoding, batches; errors are passed as values."""
        config = self._config
        return webdataset.DataPipeline(
            partial(self._tars, epoch),
            partial(
                read_samples,
                members={JSON_MEMBER: limits.JSON_MEMBER_BYTES}
                | {_suffix((name, spec)): spec.most_member_bytes for name, spec in self._specs.items()},
                wanted=self._wanted,
                patience=config.patience,
            ),
            partial(self._shuffled, epoch),
            webdataset.batched(config.batch_size, collation_fn=None, partial=False),
            self._limited,
            partial(_decoded, specs=self._specs),
            _errors_as_values,
        )

    def _tars(self, epoch: int) -> Iterator[Tar]:
        return self._deal.tars_for(self._stream, seed=self._config.seed, epoch=epoch)

    def _shuffled(self, epoch: int, samples: Iterator[Sample]) -> Iterator[Sample]:
        size = self._config.shuffle_samples
        draws = random.Random(int(keyed_hash(self._config.seed, _BUFFER, epoch, self._stream)))
        return iter(webdataset.shuffle(size, initial=size, rng=draws)(samples))

    def _limited(self, batches: Iterator[list[Sample]]) -> Iterator[list[Sample]]:
        """Limit to the number of batches that every epoch has, so that workers end together for any assignment of
        tars."""
        return islice(batches, self._deal.num_batches_of(self._stream))

    @property
    def _stream(self) -> int:
        """Index of this process among all workers of all ranks; ranks vary fastest, so that their shares are even."""
        worker = get_worker_info()
        return (worker.id if worker else 0) * self._num_ranks + self._rank


def _suffix(panel: tuple[str, PanelSpec]) -> str:
    """Name of a panel's member in webdataset: the part after the key and its dot."""
    return member_name("", *panel).removeprefix(".")


def _decoded(batches: Iterator[list[Sample]], specs: Mapping[str, PanelSpec]) -> Iterator[SequentialBatch]:
    """Decode samples into batches. Raises UserError for a sample that does not match the manifest's panels."""
    for samples in batches:
        yield SequentialBatch(
            rows=np.array([sample["row"] for sample in samples], np.int64),
            keys=tuple(sample["__key__"] for sample in samples),
            votes=_votes(samples),
            panels={name: _panel(samples, _suffix((name, spec)), spec) for name, spec in specs.items()},
        )


def _panel(samples: list[Sample], suffix: str, spec: PanelSpec) -> torch.Tensor:
    stored = np.empty((len(samples), *spec.stored_shape), spec.stored_dtype)
    for place, sample in enumerate(samples):
        try:
            stored[place] = spec.decode(sample[suffix])
        except ValueError as error:
            raise _senseless(sample, suffix, str(error)) from error
    return torch.from_numpy(stored)


def _votes(samples: list[Sample]) -> NDArray[np.int64] | None:
    votes = [_votes_of(sample) for sample in samples]
    if any(counts[0] is None for counts in votes):
        return None
    return np.array(votes, np.int64)


def _votes_of(sample: Sample) -> list[int | None]:
    """Votes of a sample, or six times None. Raises UserError for anything else."""
    try:
        label = parse_json(sample[JSON_MEMBER])
        votes = [label[name] for name in VOTE_COLUMNS]
    except (ValueError, KeyError, TypeError) as error:
        raise _senseless(sample, JSON_MEMBER, "not the JSON of a sample") from error
    if votes != [None] * len(votes) and not all(type(count) is int and 0 <= count < 2**31 for count in votes):
        raise _senseless(sample, JSON_MEMBER, f"expected votes, found {votes}")
    return votes


def _senseless(sample: Sample, member: str, fault: str) -> UserError:
    return UserError(f"{sample['__url__']}: {member} of {sample['__key__'][:60]}: {fault[:200]}; render the set again")


def _errors_as_values(batches: Iterator[SequentialBatch]) -> Iterator[SequentialBatch | UserError]:
    """Pass a UserError as a value: a DataLoader would wrap a worker's traceback around it."""
    try:
        yield from batches
    except UserError as error:
        yield error


def _pinned(batch: SequentialBatch) -> SequentialBatch:
    return replace(batch, panels={name: tensor.pin_memory() for name, tensor in batch.panels.items()})
