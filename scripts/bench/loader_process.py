"""Measure one loader in a separate process on request, one line of JSON each time. Started by loader.py.

A measurement creates the loader, takes its first batch, finishes an epoch to warm up, and then drains whole epochs:
with the main thread waiting; with the main thread counting in Python; and once after its files were dropped from the
page cache.
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from loader_contestants import (
    Contestant,
    Epochs,
    finish_panels,
    finish_u8,
    open_indexed,
    open_npy,
    open_png_tars,
    open_raw_tars,
    write_npy,
    write_png_tars,
    write_raw_tars,
)
from loader_data import Samples, as_u8
from loader_host import host_ms, ways
from loader_libraries import (
    open_ffcv,
    open_litdata,
    open_mosaic,
    open_spdl,
    write_ffcv,
    write_litdata,
    write_mosaic,
    write_raw_files,
)
from loader_limits import open_panel_bytes, open_picture_bytes
from rounds import not_installed
from watch import descendants, peak_mb

U8, PANELS, BYTES = "finished u8 canvas", "packed panels, checked", "bytes"
CONTESTANTS = {
    "hms_dist": Contestant(delivers=PANELS, open=open_indexed, finish=finish_panels),
    "WebDataset PNG": Contestant(delivers=U8, write=write_png_tars, open=open_png_tars, finish=finish_u8),
    "WebDataset raw": Contestant(delivers=U8, write=write_raw_tars, open=open_raw_tars, finish=finish_u8),
    "MosaicML streaming": Contestant(
        delivers=U8, write=write_mosaic, open=open_mosaic, finish=finish_u8, needs="streaming"
    ),
    "LitData": Contestant(delivers=U8, write=write_litdata, open=open_litdata, finish=finish_u8, needs="litdata"),
    "FFCV": Contestant(delivers=U8, write=write_ffcv, open=open_ffcv, finish=finish_u8, needs="ffcv", workers=(1, 2)),
    "SPDL": Contestant(
        delivers=U8, write=write_raw_files, open=open_spdl, finish=finish_u8, needs="spdl.io", workers=(1, 2)
    ),
    "Dataset of .npy": Contestant(delivers=U8, write=write_npy, open=open_npy, finish=finish_u8),
    "read() of our panels": Contestant(delivers=BYTES, open=open_panel_bytes, workers=(0,)),
    "read() of u8 canvases": Contestant(delivers=BYTES, write=write_npy, open=open_picture_bytes, workers=(0,)),
}
SPIN = 10_000
"""Additions between two reads of the clock."""


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("name", choices=CONTESTANTS, help="the loader")
    words.add_argument("folder", type=Path, help="folder of the samples")
    words.add_argument("seconds", type=float, help="shortest time of one measurement")
    words.add_argument("device", type=torch.device, help="where the finished canvas is wanted")
    return words


def main() -> None:
    given = parser().parse_args()
    name, folder, seconds, device = given.name, given.folder, given.seconds, given.device
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    torch.set_num_threads(1)
    contestant, samples = CONTESTANTS[name], Samples(folder)
    if contestant.needs and (why := not_installed([contestant.needs])):
        for _ in sys.stdin:
            print(json.dumps(f"not installed ({why})"), file=answers, flush=True)
        return
    own = prepare(contestant, samples, name)
    for line in sys.stdin:
        job, workers = line.split()
        result: object = None
        if job == "check":
            check(contestant, samples, own, int(workers))
        elif job == "host":
            result = host(samples, device)
        else:
            result = measure(contestant, samples, own, int(workers), seconds, device)
        print(json.dumps(result), file=answers, flush=True)


def prepare(contestant: Contestant, samples: Samples, name: str) -> Path:
    """Folder that a contestant reads; written if missing."""
    if contestant.write is None:
        return samples.shards
    own = samples.folder / name.replace(" ", "_")
    if not own.exists():
        half = own.with_suffix(".half")
        half.mkdir()
        contestant.write(half, samples.canvases)
        half.rename(own)
    return own


def check(contestant: Contestant, samples: Samples, own: Path, workers: int) -> None:
    """Check that every row is delivered once, and every pixel of its finished canvas."""
    pictures, rows = samples.canvases, []
    if contestant.finish is None:
        return
    finish = contestant.finish(samples, torch.device("cpu"))
    for numbers, delivered in contestant.open(own, samples, workers):
        assert (as_u8(finish(delivered)) == pictures[np.asarray(numbers)]).all()
        rows += np.asarray(numbers).tolist()
    assert sorted(rows) == list(range(len(pictures)))


def measure(
    contestant: Contestant, samples: Samples, own: Path, workers: int, seconds: float, device: torch.device
) -> dict[str, float]:
    """Measure samples per second in each state, the main thread's share, seconds to the first batch, and peak
    memory."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    begun = perf_counter()
    epochs = contestant.open(own, samples, workers)
    use = touch if device.type == "cpu" or contestant.finish is None else contestant.finish(samples, device)
    first: list[float] = []
    drain(epochs, use, device, lambda: first.append(perf_counter() - begun))
    free, _ = rate(epochs, use, device, seconds)
    busy, counted = beside_python(lambda: rate(epochs, use, device, seconds)[0])
    memory = peak_mb(os.getpid()) + sum(map(peak_mb, descendants(os.getpid())))
    forget(own)
    cold, _ = rate(epochs, use, device, 0)
    return {
        "rate": free, "busy_rate": busy, "python_share": counted / alone(seconds), "cold_rate": cold,
        "first_batch_s": first[0], "memory_mb": memory,
    }  # fmt: skip


def touch(delivered: Any) -> None:
    """Read one byte of each delivered array, through NumPy, because torch would release the GIL."""
    arrays = delivered.panels.values() if hasattr(delivered, "panels") else [delivered]
    for array in arrays:
        _ = np.asarray(array).flat[0]


def drain(epochs: Epochs, use: Callable[[Any], object], device: torch.device, each: Callable[[], object]) -> int:
    """Run one epoch, use every batch, and return the number of samples."""
    number = 0
    for rows, delivered in epochs:
        use(delivered)
        each()
        number += len(rows)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return number


def rate(epochs: Epochs, use: Callable[[Any], object], device: torch.device, seconds: float) -> tuple[float, float]:
    """Samples per second over whole epochs that take at least `seconds` in total, and the time that they took."""
    begun, number = perf_counter(), 0
    while not number or perf_counter() - begun < seconds:
        number += drain(epochs, use, device, lambda: None)
    wall_s = perf_counter() - begun
    return number / wall_s, wall_s


def beside_python(job: Callable[[], float]) -> tuple[float, float]:
    """The result of a job in a thread while the main thread counts, and the additions per second of the main thread."""
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(job()))
    thread.start()
    counted = count(thread.is_alive)
    thread.join()
    return found[0], counted


def host(samples: Samples, device: torch.device) -> dict[str, dict[str, float]]:
    """Milliseconds of the host to compose and augment a pass, alone and beside the counting main thread."""
    found = {}
    for name, start in ways(samples, device).items():
        idle = host_ms(start, device)
        busy, _ = beside_python(partial(host_ms, start, device))
        found[name] = {"idle": idle, "busy": busy}
    return found


def alone(seconds: float) -> float:
    """Additions per second of the main thread alone."""
    end = perf_counter() + seconds
    return count(lambda: perf_counter() < end)


def count(more: Callable[[], bool]) -> float:
    """Additions per second while `more` is true."""
    begun, number = perf_counter(), 0
    while more():
        for _ in range(SPIN):
            number += 1
    return number / (perf_counter() - begun)


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache; pages that a process maps stay."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


if __name__ == "__main__":
    main()
