"""Shard sets: `hms_dist.open_shards`, random access to samples, and a stream of batches for training loops."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment import AugmentConfig, Augmenter, draw_flips, draw_reversals, one_group, row_facts
from hms_dist.canvas.options import CanvasConfig
from hms_dist.config.load import resolved
from hms_dist.core.errors import UserError
from hms_dist.shards.index import Index, open_set
from hms_dist.shards.manifest import Manifest
from hms_dist.shards.schema import PanelSpec
from hms_dist.stream.read.loader import Request, load
from hms_dist.stream.read.reader import ShardReader
from hms_dist.stream.rows.epoch_plan import plan_epoch
from hms_dist.stream.rows.selections import SelectionConfig
from hms_dist.train.data.run_data import open_shards as open_for_canvas
from hms_dist.train.data.statistics import needs_statistics

if TYPE_CHECKING:  # importing it takes a second
    import pandas as pd

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """One label row of a shard set."""

    key: str
    """<eeg_id>-<eeg_sub_id>."""
    panels: dict[str, NDArray[Any]]
    """Panel name -> array of spec.shape, in the dtype of its specification: bool for bits, uint8, or float16."""
    votes: NDArray[np.float64] | None
    """Votes [classes], float64; NaN: unknown. None for an unlabelled set."""


class Batch(NamedTuple):
    """Rows of a stream, ready for a network."""

    images: Tensor
    """Composed canvases, float32 [n, 1, height, width], on the device of the stream."""
    targets: Tensor
    """Targets, float32 [n, classes], as `Shards.targets`; mixed where an augmentation mixes images."""
    rows: Rows
    """Row numbers [n] in the index."""


class Shards:
    """An open shard set. `len(shards)` is its number of samples; `shards[key]` or `shards[row]` reads one."""

    def __init__(self, location: str | Path, manifest: Manifest, index: Index) -> None:
        self.location = location
        """Folder or URL."""
        self.manifest = manifest
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, sample: str | int) -> Sample:
        """Read a sample by key or row number, and verify its checksums.

        Raises UserError for an unknown key or a damaged member, IndexError for an unknown row.
        """
        row = self._index.row_of(sample) if isinstance(sample, str) else range(len(self))[sample]
        stored = self._reader.read(np.array([row]))
        panels = {name: _unpacked(self.panels[name], array[0]) for name, array in stored.items()}
        votes = self.index.loc[row, list(self._index.dataset.vote_columns)].to_numpy(np.float64, na_value=np.nan)
        return Sample(str(self.index["key"].iloc[row]), panels, None if np.isnan(votes).all() else votes)

    @property
    def index(self) -> "pd.DataFrame":
        """A row per sample: key, ids, offsets in seconds, votes (null for unlabelled rows), fold_of_2 to fold_of_10."""
        return self._index.frame

    @property
    def panels(self) -> Mapping[str, PanelSpec]:
        """Panel name -> its specification: shape, dtype, axes, unit."""
        return self.manifest.panels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of targets and votes."""
        return self._index.dataset.classes

    @property
    def targets(self) -> NDArray[np.float64]:
        """Targets, float64 [samples, classes]: shares of the votes; for independent classes 1 or 0, NaN: unknown.

        Raises UserError for an unlabelled set.
        """
        return self._index.targets

    def stream(
        self,
        canvas: CanvasConfig | Mapping[str, Any] | str | Path,
        *,
        batch_size: int,
        rows: Sequence[int] | Rows | None = None,
        epoch: int = 0,
        seed: int = 0,
        flip_probability: float = 0.0,
        augment: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
        device: str | torch.device = "cpu",
        threads: int = 2,
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch in the order in which `hms-dist train` would train on them.

        `canvas`: the name or path of a canvas ("public_baseline"), a `CanvasConfig`, or its options. `rows`: rows [n]
        of the index to stream; None: all. They are shuffled by `seed` and `epoch`; rows that do not fill a batch are
        left out. `flip_probability`: share of rows whose left and right are exchanged. `augment`: the name or path of
        augmentations; each batch is one group of mixes. `threads`: reading and decoding threads.

        Raises UserError for an unlabelled set, a canvas that does not fit the set or has no statistics yet (take the
        canvas.yaml of a run), fewer rows than a batch, and damaged samples.
        """
        config = resolved(CanvasConfig, canvas)
        steps = AugmentConfig() if augment is None else resolved(AugmentConfig, augment)
        if needs_statistics(config):
            raise UserError("canvas: has data-wide statistics that are not computed; take the canvas.yaml of a run")
        if batch_size < 1:
            raise UserError(f"batch_size: expected at least 1, found {batch_size}")
        try:
            steps.check(config)
        except ValueError as error:
            raise UserError(str(error)) from error
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, np.int64)
        planned = plan_epoch(self._index, chosen, SelectionConfig(), seed=seed, epoch=epoch, global_batch=batch_size)
        return self._batches(
            config, steps, planned.reshape(-1, batch_size), {"seed": seed, "epoch": epoch}, flip_probability,
            torch.device(device), threads,
        )  # fmt: skip

    def _batches(
        self,
        config: CanvasConfig,
        steps: AugmentConfig,
        groups: Rows,
        key: dict[str, int],
        flip_probability: float,
        device: torch.device,
        threads: int,
    ) -> Iterator[Batch]:
        shards = open_for_canvas(self.location, config, flips=flip_probability > 0)
        augmenter = Augmenter(steps, shards.canvas, row_facts(self._index, self.targets))
        targets = self.targets.astype(np.float32)
        flips = [
            draw_flips(group, **key, probability=flip_probability).numpy() if shards.canvas.flips else None
            for group in groups
        ]
        requests = (Request(group, flip) for group, flip in zip(groups, flips, strict=True))
        with (
            closing(shards.reader),
            closing(load(shards.reader, requests, threads=threads, pin=device.type == "cuda")) as batches,
        ):
            for batch in batches:
                flip = None if batch.flips is None else torch.from_numpy(batch.flips).to(device)
                reverse = draw_reversals(batch.rows, **key, probability=steps.reverse_probability).to(device)
                group, wanted = one_group(batch.rows), torch.from_numpy(targets[batch.rows]).to(device)
                panels, wanted = augmenter.signals(batch.to(device), wanted, group, **key)
                images = shards.canvas(panels, flip, reverse if steps.reverse_probability else None)
                images, wanted = augmenter(images, wanted, group, **key)
                yield Batch(images, wanted, batch.rows.copy())

    @cached_property
    def _reader(self) -> ShardReader:
        return ShardReader(self.location, self.manifest, self._index, list(self.panels))


def open_shards(location: str | Path) -> Shards:
    """Open a complete shard set, in a folder or at a URL (http://, s3://, gs://).

    Raises UserError for a set that is missing, incomplete or damaged.
    """
    return Shards(location, *open_set(location))


def _unpacked(spec: PanelSpec, stored: NDArray[Any]) -> NDArray[Any]:
    return np.unpackbits(stored, axis=-1).astype(bool) if spec.dtype == "bit" else stored
