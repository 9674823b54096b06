"""Samples of the loader bench: simulated recordings, their shard set, and the finished canvases that peers store."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from factory import make_recordings
from numpy.typing import NDArray
from watch import watched

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import CanvasConfig
from hms_dist.config.load import load
from hms_dist.shards.index import open_set
from hms_dist.stream.read.reader import ShardReader

REPOSITORY = Path(__file__).parents[2]
BEGUN = perf_counter()
BATCH_SIZE = 16
SAMPLES_PER_SHARD = 32


@dataclass(frozen=True)
class Samples:
    """Paths in the folder of a bench."""

    folder: Path

    @property
    def shards(self) -> Path:
        """The shard set."""
        return self.folder / "set"

    @property
    def canvases(self) -> NDArray[np.uint8]:
        """Finished pictures [rows, 640, 1920], in the order of the index."""
        return np.load(self.folder / "canvases.npy", mmap_mode="r")

    def canvas(self) -> Canvas:
        """The 16th place's canvas over the set's panels."""
        manifest, _ = open_set(self.shards)
        return Canvas(canvas_config(), manifest.panels, flips=False)

    def reader(self) -> ShardReader:
        """A reader of the panels in the canvas."""
        manifest, index = open_set(self.shards)
        return ShardReader(self.shards, manifest, index, self.canvas().panels)


def canvas_config() -> CanvasConfig:
    """configs/canvas/sixteenth_place.yaml."""
    return load(CanvasConfig, ["--config", str(REPOSITORY / "configs/canvas/sixteenth_place.yaml")])


def make_samples(folder: Path, num_rows: int) -> Samples:
    """Simulate, render and compose `num_rows` samples, unless they are there."""
    samples = Samples(folder)
    if (folder / "canvases.npy").exists():
        return samples
    say("simulates recordings")
    make_recordings(folder / "data", num_rows)
    say("renders")
    recipe = REPOSITORY / "configs/render/sixteenth_place.yaml"
    options = ["--config", recipe, "--samples_per_shard", SAMPLES_PER_SHARD, "--workers", len(os.sched_getaffinity(0))]
    watched(["-m", "hms_dist", "render", "--data", folder / "data", "--out", samples.shards, *options])
    say("composes the canvases that peers store")
    canvas, reader = samples.canvas(), samples.reader()
    pictures = np.empty((num_rows, canvas.config.height, canvas.config.width), np.uint8)
    for row in range(num_rows):
        panels = reader.read(np.array([row]))
        pictures[row] = as_u8(canvas({name: torch.from_numpy(stored) for name, stored in panels.items()}))[0]
    np.save(folder / "half.npy", pictures)
    (folder / "half.npy").rename(folder / "canvases.npy")
    return samples


def say(what: str) -> None:
    """Report progress in the error output, with the seconds since the start."""
    print(f"{perf_counter() - BEGUN:.1f} s: {what}", file=sys.stderr, flush=True)


def as_u8(pictures: torch.Tensor) -> NDArray[np.uint8]:
    """Finished canvases [m, 1, height, width], 0 to 1, as the peers store them: [m, height, width]."""
    return (pictures[:, 0] * 255).round().to(torch.uint8).cpu().numpy()
