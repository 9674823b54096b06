"""The loaders of the bench behind one interface, each written as its documentation recommends.

Peers store the finished canvas as u8; this package stores panels and composes them on the device. No loader shuffles.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_data import BATCH_SIZE, SAMPLES_PER_SHARD, Samples
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
Epochs = Iterable[tuple[Any, Any]]
"""Iterating it runs an epoch of (rows [m], delivered batch)."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One loader."""

    delivers: str
    """Content of a batch, for the table."""
    write: Callable[[Path, Pictures], None] | None = None
    """Store the pictures in a folder, in the loader's format; None: it reads the shard set."""
    open: Callable[[Path, Samples, int], Epochs]
    """(folder, samples, workers or threads) -> its epochs."""
    needs: str | None = None
    """Module that it imports and that may be missing."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Supported numbers of workers or threads."""
    finish: Callable[[Samples, torch.device], Callable[[Any], torch.Tensor]] | None = None
    """Creates the function from a delivered batch to the finished canvas [m, 1, height, width] on the device."""


@dataclass(frozen=True)
class Again:
    """Epochs of a loader that is created again for each epoch."""

    epoch: Callable[[], Iterator[tuple[Any, Any]]]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self.epoch()


def finish_u8(samples: Samples, device: torch.device) -> Callable[[Any], torch.Tensor]:
    """For loaders that deliver pictures: copy, then u8 -> 0 to 1."""
    del samples
    return lambda pictures: torch.as_tensor(pictures).to(device, non_blocking=True)[:, None].float() / 255


def finish_panels(samples: Samples, device: torch.device) -> Callable[[Any], torch.Tensor]:
    """For this package: copy the panels, then compose; on a GPU as one graph."""
    from hms_dist.canvas.augment import AugmentConfig, Augmenter, one_group
    from hms_dist.canvas.graphed import GraphedInputs

    canvas = samples.canvas()
    if device.type == "cpu":
        return lambda batch: canvas(batch.to(device))
    graphed = GraphedInputs(canvas, Augmenter(AugmentConfig(), canvas), BATCH_SIZE, device, reverses=False)

    def finish(batch: Any) -> torch.Tensor:
        targets, rows = np.empty((len(batch.rows), 0)), one_group(batch.rows)
        found = graphed(batch.panels, targets, rows, flips=None, reversals=None, seed=0, epoch=0)
        if found is None:
            return canvas(batch.to(device))
        batch.slot.mark_copied()
        return found[0]

    return finish


def loader_options(workers: int) -> dict[str, Any]:
    """Options of all DataLoaders: persistent workers, and page-locked memory if there is a GPU."""
    return {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": torch.cuda.is_available()}


def groups(num_rows: int) -> Iterator[NDArray[np.int64]]:
    """The rows of each batch, in order."""
    for first in range(0, num_rows, BATCH_SIZE):
        yield np.arange(first, min(first + BATCH_SIZE, num_rows))


def open_indexed(folder: Path, samples: Samples, threads: int) -> Epochs:
    """Range reads of this package."""
    del folder
    from hms_dist.stream.read.batch import Request
    from hms_dist.stream.read.loader import load

    reader, num_rows, pin = samples.reader(), len(samples.canvases), torch.cuda.is_available()

    def epoch() -> Iterator[tuple[Any, Any]]:
        for batch in load(reader, map(Request, groups(num_rows)), threads=threads, pin=pin):
            yield batch.rows, batch

    return Again(epoch)


def write_tars(folder: Path, pictures: Pictures, suffix: str, encode: Callable[[Pictures], bytes]) -> None:
    """WebDataset's own writer."""
    import webdataset

    with webdataset.ShardWriter(f"{folder}/%06d.tar", maxcount=SAMPLES_PER_SHARD, verbose=0) as writer:
        for row, picture in enumerate(pictures):
            writer.write({"__key__": f"{row:06d}", suffix: encode(picture)})


def write_png_tars(folder: Path, pictures: Pictures) -> None:
    import io

    from PIL import Image

    def encode(picture: Pictures) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "png")
        return buffer.getvalue()

    write_tars(folder, pictures, "png", encode)


def write_raw_tars(folder: Path, pictures: Pictures) -> None:
    write_tars(folder, pictures, "raw", lambda picture: picture.tobytes())


def open_tars(folder: Path, workers: int, decode: Callable[[Any], Any], member: str) -> Epochs:
    import webdataset

    urls = sorted(map(str, folder.glob("*.tar")))
    dataset = decode(webdataset.WebDataset(urls, shardshuffle=False)).to_tuple("__key__", member).batched(BATCH_SIZE)
    loader = webdataset.WebLoader(dataset, batch_size=None, **loader_options(workers))
    return Again(lambda: ((np.array([int(key) for key in keys]), batch) for keys, batch in loader))


def open_png_tars(folder: Path, samples: Samples, workers: int) -> Epochs:
    del samples
    return open_tars(folder, workers, lambda dataset: dataset.decode("l8"), "png")


def open_raw_tars(folder: Path, samples: Samples, workers: int) -> Epochs:
    shape = samples.canvases.shape[1:]
    return open_tars(
        folder,
        workers,
        lambda dataset: dataset.map_dict(raw=lambda content: np.frombuffer(content, np.uint8).reshape(shape)),
        "raw",
    )


def write_npy(folder: Path, pictures: Pictures) -> None:
    for row, picture in enumerate(pictures):
        np.save(folder / f"{row:06d}.npy", picture)


class NpyFiles(torch.utils.data.Dataset[tuple[int, Pictures]]):
    """A plain Dataset of .npy files."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.npy"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[int, Pictures]:
        return row, np.load(self.paths[row])


def open_npy(folder: Path, samples: Samples, workers: int) -> Epochs:
    del samples
    return torch.utils.data.DataLoader(NpyFiles(folder), batch_size=BATCH_SIZE, **loader_options(workers))
