"""Parts of the documentation's pictures: simulated recordings with one clear label row, boxes, arrows, traces, bars."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import NDArray

import hms_dist
from hms_dist.cli import main as command
from hms_dist.core.signal_format import CHANNELS

CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
COLOURS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666")
NUM_RECORDINGS, SEED, NUM_FOLDS = 40, 1, 5
RATE_HZ = 200
INK, SOFT, FAINT = "#222222", "#00897b", "#b2dfdb"


class Scene:
    """Simulated recordings, their shard set, and one label row with a clear pattern."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "hms"
        self.folder = shards = folder / "shards"
        words = ["--out", self.data, "--num_recordings", NUM_RECORDINGS, "--seed", SEED]
        assert command(["simulate", *map(str, words)]) == 0
        assert command(["render", "--data", str(self.data), "--out", str(shards), "--config", "default"]) == 0
        self.shards = hms_dist.open_shards(shards)
        self.table = self.shards.index
        votes = self.table[[f"{name}_vote" for name in CLASSES]].to_numpy(float)
        clear = (votes[:, 3] / votes.sum(1)) + 0.01 * np.minimum(votes.sum(1), 10)  # LRDA: one side, easy to see
        self.row = int(clear.argmax())
        self.eeg_id = int(self.table["eeg_id"].iloc[self.row])
        self.start_s = float(self.table["eeg_label_offset_seconds"].iloc[self.row])
        self.spectrogram_start_s = float(self.table["spectrogram_label_offset_seconds"].iloc[self.row])
        self.recording = hms_dist.read_recording(self.data, eeg_id=self.eeg_id)
        starts = {"start_s": self.start_s, "spectrogram_start_s": self.spectrogram_start_s}
        self.panels = hms_dist.draw(self.recording, "default", **starts)

    def canvas(self, name: str) -> NDArray[Any]:
        """The model's input of the row, [height, width]."""
        (batch,) = self.shards.stream(name, batch_size=1, rows=[self.row])
        return np.asarray(batch.images[0, 0])

    def votes(self, row: int) -> NDArray[np.float64]:
        """Votes of a row, [classes]."""
        return self.table.loc[row, [f"{name}_vote" for name in CLASSES]].to_numpy(np.float64)


def blank(width: float, height: float) -> tuple[Figure, Any]:
    """A figure whose axes cover it, in units of inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(axes: Any, x: float, y: float, width: float, height: float, text: str = "", **style: Any) -> None:
    """A rectangle with text in its middle."""
    size = style.pop("fontsize", 9)
    style = {"facecolor": "white", "edgecolor": INK, "linewidth": 1, **style}
    axes.add_patch(Rectangle((x, y), width, height, **style))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, color=INK)


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=SOFT, linewidth=1.6))
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.1
        axes.text(*middle, text, ha="center", va="bottom", fontsize=8, color=SOFT)


def draw_traces(axes: Any, scene: Scene, start_s: float, stop_s: float, channels: tuple[str, ...], step: float) -> None:
    """EEG channels below each other, seconds along x; `step` microvolts apart."""
    first, last = int(start_s * RATE_HZ), int(stop_s * RATE_HZ)
    eeg = np.nan_to_num(scene.recording.eeg[first:last])
    eeg = eeg - eeg.mean(axis=0)
    time_s = start_s + np.arange(len(eeg)) / RATE_HZ
    for place, name in enumerate(channels):
        values = eeg[:, list(CHANNELS).index(name)].clip(-2 * step, 2 * step)
        axes.plot(time_s, values - place * step, color=INK, linewidth=0.4)
    axes.set_yticks([-place * step for place in range(len(channels))], channels, fontsize=7)
    axes.set(xlim=(start_s, stop_s), ylim=(-len(channels) * step, step))


def gray(axes: Any, picture: NDArray[Any], title: str = "", cmap: str = "gray", fontsize: float = 8) -> None:
    """A picture whose first row is on top."""
    values = np.asarray(picture, np.float64)
    if picture.shape[1] >= 1600:  # lines of one pixel would become too faint in a smaller picture
        values = values.reshape(picture.shape[0] // 2, 2, picture.shape[1] // 2, 2).max(axis=(1, 3))
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.01, 0.99])
    axes.imshow(
        np.nan_to_num(values, nan=low, neginf=low), aspect="auto", cmap=cmap, vmin=low, vmax=max(high, low + 1e-6)
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=fontsize, loc="left", color=INK)


def bars(axes: Any, values: NDArray[np.float64], fontsize: float = 8) -> None:
    """Votes of the six classes, seizure on top."""
    axes.barh(range(6), values[::-1], color=list(COLOURS[5::-1]))
    axes.set_yticks(range(6), CLASSES[::-1], fontsize=fontsize)
    axes.tick_params(axis="x", labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def pixels(panel: NDArray[Any]) -> NDArray[Any]:
    """Regions of a panel below each other, low frequencies at the bottom of each."""
    return panel[:, ::-1].reshape(-1, panel.shape[-1]) if panel.ndim == 3 else panel
