"""SPDL, MosaicML streaming, LitData and FFCV, which have requirements of their own (loader_peers.txt)."""

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_contestants import Again, Epochs, Pictures, loader_options
from loader_data import BATCH_SIZE, Samples


def write_raw_files(folder: Path, pictures: Pictures) -> None:
    for row, picture in enumerate(pictures):
        picture.tofile(folder / f"{row:06d}.raw")


class _Rows:
    """A source that begins an epoch when it is asked for: reading ahead across epochs would be outside the clock."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows, self.asked = num_rows, threading.Semaphore(0)

    def __iter__(self) -> Iterator[int]:
        self.asked.acquire()
        yield from range(self.num_rows)


def open_spdl(folder: Path, samples: Samples, threads: int) -> Epochs:
    """One pipeline for all epochs. Reading a whole batch in a thread, straight into its memory, was twice as fast as
    spdl.io.load_npy of each row and a stack; a thread of its own copies batches to the GPU."""
    from spdl.io import transfer_tensor_h2d
    from spdl.pipeline import PipelineBuilder

    paths, shape, pin = sorted(folder.glob("*.raw")), samples.canvases.shape[1:], torch.cuda.is_available()

    def read(rows: list[int]) -> tuple[Any, torch.Tensor]:
        batch = torch.empty((len(rows), *shape), dtype=torch.uint8, pin_memory=pin)
        for row, picture in zip(rows, batch.numpy(), strict=True):
            with paths[row].open("rb", buffering=0) as file:
                file.readinto(picture)
        return np.array(rows), batch

    source = _Rows(len(paths))
    builder = PipelineBuilder().add_source(source, continuous=True).aggregate(BATCH_SIZE)
    builder.pipe(read, concurrency=threads, output_order="input")
    if pin:
        builder.pipe(lambda found: (found[0], transfer_tensor_h2d(found[1])), executor=ThreadPoolExecutor(1))
    pipeline = builder.add_sink().build(num_threads=threads)
    weakref.finalize(pipeline, source.asked.release, len(paths))  # ends the source's thread

    def epoch() -> Iterator[tuple[Any, Any]]:
        source.asked.release()
        yield from pipeline

    return Again(epoch)


def write_mosaic(folder: Path, pictures: Pictures) -> None:
    from streaming import MDSWriter

    height, width = pictures.shape[1:]
    columns = {"row": "int", "picture": f"ndarray:uint8:{height},{width}"}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for row, picture in enumerate(pictures):
            writer.write({"row": row, "picture": np.ascontiguousarray(picture)})


def open_mosaic(folder: Path, samples: Samples, workers: int) -> Epochs:
    del samples
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(folder), batch_size=BATCH_SIZE, shuffle=False)
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE, **loader_options(workers))
    return Again(lambda: ((batch["row"], batch["picture"]) for batch in loader))


def write_litdata(folder: Path, pictures: Pictures) -> None:
    from litdata.streaming.cache import Cache

    cache = Cache(str(folder), chunk_bytes="64MB")
    for row, picture in enumerate(pictures):
        cache._add_item(row, {"row": row, "picture": np.ascontiguousarray(picture)})
    cache.done()
    cache.merge(1)


def open_litdata(folder: Path, samples: Samples, workers: int) -> Epochs:
    del samples
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder), shuffle=False)
    loader = StreamingDataLoader(dataset, batch_size=BATCH_SIZE, **loader_options(workers))
    return Again(lambda: ((batch["row"], batch["picture"]) for batch in loader))


class _Pictures:
    """Dataset for FFCV's writer."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[int, Pictures]:
        return row, np.ascontiguousarray(self.pictures[row])


def write_ffcv(folder: Path, pictures: Pictures) -> None:
    from ffcv.fields import IntField, NDArrayField
    from ffcv.writer import DatasetWriter

    fields = {"row": IntField(), "picture": NDArrayField(np.dtype("uint8"), pictures.shape[1:])}
    DatasetWriter(str(folder / "all.beton"), fields, num_workers=1).from_indexed_dataset(_Pictures(pictures))


def open_ffcv(folder: Path, samples: Samples, threads: int) -> Epochs:
    del samples
    from ffcv.fields.decoders import IntDecoder, NDArrayDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    pipelines: dict[str, list[Any]] = {"row": [IntDecoder(), ToTensor()], "picture": [NDArrayDecoder(), ToTensor()]}
    loader = Loader(
        str(folder / "all.beton"), batch_size=BATCH_SIZE, num_workers=threads, order=OrderOption.SEQUENTIAL,
        pipelines=pipelines, os_cache=True,
    )  # fmt: skip
    return Again(lambda: ((rows[:, 0], pictures) for rows, pictures in loader))
