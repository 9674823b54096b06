"""Upper limit of the machine: plain read() of the same bytes into one reused buffer, without checks or decoding."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loader_contestants import Again, Epochs, groups
from loader_data import Samples

from hms_dist.shards.index import open_set
from hms_dist.shards.manifest import tar_names


def open_panel_bytes(folder: Path, samples: Samples, workers: int) -> Epochs:
    """The members that our canvas needs, one after the other."""
    del workers
    manifest, index = open_set(folder)
    handles = [os.open(folder / name, os.O_RDONLY) for name in tar_names(manifest)]
    shards = index.ids("shard")
    members = [index.member(name) for name in samples.canvas().panels]
    buffer = bytearray(max(int(places.size.max()) for places in members))

    def epoch() -> Iterator[tuple[Any, Any]]:
        for rows in groups(len(index)):
            for row in rows:
                for places in members:
                    part = memoryview(buffer)[: int(places.size[row])]
                    os.preadv(handles[shards[row]], [part], int(places.offset[row]))
            yield rows, buffer

    return Again(epoch)


def open_picture_bytes(folder: Path, samples: Samples, workers: int) -> Epochs:
    """Whole .npy files of finished canvases."""
    del workers
    paths = sorted(folder.glob("*.npy"))
    buffer = bytearray(paths[0].stat().st_size)

    def epoch() -> Iterator[tuple[Any, Any]]:
        for rows in groups(len(samples.canvases)):
            for row in rows:
                with paths[row].open("rb", buffering=0) as file:
                    file.readinto(buffer)
            yield rows, buffer

    return Again(epoch)
