"""Draw the pictures of the documentation from simulated recordings: python scripts/site/pictures.py [OUT].

OUT (default docs/images) receives a PNG for each concept, and the overview of the README.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import NDArray
from PIL import Image

import hms_dist
from hms_dist.cli import main as command
from hms_dist.core.signal_format import CHANNELS

REPOSITORY = Path(__file__).parents[2]
CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
COLOURS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666")
NUM_RECORDINGS, SEED, NUM_FOLDS = 40, 1, 5
RATE_HZ = 200
INK, SOFT, FAINT = "#222222", "#00897b", "#b2dfdb"


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("out", type=Path, nargs="?", default=REPOSITORY / "docs/images", help="folder of the pictures")
    words.add_argument("--only", nargs="+", choices=PICTURES, help="names of pictures; all without it")
    return words


def main() -> None:
    given = parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        for name in given.only or PICTURES:
            figure = PICTURES[name](scene)
            file = given.out / f"{name}.png"
            FigureCanvasAgg(figure).print_figure(file, dpi=110, facecolor="white")
            Image.open(file).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)


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


def overview(scene: Scene) -> Figure:
    """The README's picture: from a recording to the votes."""
    figure, page = blank(13, 4.3)
    heads = (
        (0.2, "1  EEG recording"),
        (3.55, "2  panels, drawn once"),
        (6.25, "3  shard set"),
        (8.15, "4  canvas, composed on the GPU"),
        (11.5, "5  class shares"),
    )
    for x, text in heads:
        page.text(x, 4.05, text, fontsize=10.5, weight="bold", color=INK)
    notes = (
        (0.2, "20 channels at 200 Hz,\na 10-minute spectrogram"), (3.55, "traces, spectrograms,\nwavelet images"),
        (6.25, "plain WebDataset tars,\nany number of readers"),
        (8.15, "layout, normalisation and flips are chosen\nhere: no rendering again"),
        (11.5, "experts' votes; any\ntimm model learns them"),
    )  # fmt: skip
    for x, text in notes:
        page.text(x, 0.12, text, fontsize=8.5, color="#555555", va="bottom")
    eeg = figure.add_axes((0.55 / 13, 0.9 / 4.3, 2.4 / 13, 2.9 / 4.3))
    middle = scene.start_s + 25
    draw_traces(
        eeg, scene, middle - 5, middle + 5, ("Fp1", "F3", "C3", "P3", "O1", "Fp2", "F4", "C4", "P4", "O2", "EKG"), 120
    )
    eeg.set_xticks([])
    shown = (
        ("traces", scene.panels["traces"]),
        ("eeg_spectrogram", pixels(scene.panels["eeg_spectrogram"])),
        ("kaggle_spectrogram", pixels(scene.panels["kaggle_spectrogram"])),
    )
    for place, (name, picture) in enumerate(shown):
        axes = figure.add_axes((3.55 / 13, (2.95 - place * 1.03) / 4.3, 2.0 / 13, 0.78 / 4.3))
        gray(axes, picture, name, fontsize=7.5)
    for place in range(3):
        box(
            page,
            6.25 + 0.1 * place,
            2.75 - 0.55 * place,
            1.1,
            0.42,
            f"shard-00000{place}.tar",
            facecolor=FAINT,
            fontsize=7,
        )
    box(page, 6.25, 1.05, 1.3, 0.36, "index.parquet", fontsize=7)
    box(page, 6.25, 0.62 + 0.02, 1.3, 0.36, "manifest.json", fontsize=7)
    canvas = figure.add_axes((8.15 / 13, 1.2 / 4.3, 2.95 / 13, 2.3 / 4.3))
    gray(canvas, scene.canvas("sixteenth_place"))
    votes = figure.add_axes((12.05 / 13, 1.0 / 4.3, 0.85 / 13, 2.6 / 4.3))
    bars(votes, scene.votes(scene.row))
    for start, end in ((3.05, 3.45), (5.65, 6.15), (7.65, 8.05), (11.15, 11.45)):
        arrow(page, (start, 2.35), (end, 2.35))
    return figure


def recording(scene: Scene) -> Figure:
    """A recording: the EEG, and the spectrogram around it."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(2, 1))
    length_s = len(scene.recording.eeg) / RATE_HZ
    draw_traces(top, scene, 0, length_s, ("Fp1", "F3", "C3", "P3", "O1", "Fp2", "F4", "C4", "P4", "O2", "EKG"), 150)
    top.set_title(
        f"eeg: {len(scene.recording.eeg)} samples x 20 channels, microvolts, 200 Hz (11 channels shown)",
        fontsize=9,
        loc="left",
    )
    top.set_xlabel("seconds", fontsize=8)
    power = np.log(np.maximum(np.nan_to_num(scene.recording.spectrogram[:, 0].T), 1e-6))
    seconds = scene.recording.spectrogram_time_s
    bottom.imshow(power[::-1], aspect="auto", cmap="gray", extent=(seconds[0], seconds[-1], 0.59, 19.92))
    bottom.set_title(
        "spectrogram: power every 2 s at 100 frequencies in 4 regions (left temporal, LL, shown)",
        fontsize=9,
        loc="left",
    )
    bottom.set_ylabel("Hz", fontsize=8)
    bottom.set_xlabel("seconds", fontsize=8)
    return figure


def row(scene: Scene) -> Figure:
    """The rows of one EEG: windows in time, each with its votes."""
    several = scene.table.groupby("eeg_id").size()
    eeg_id = int(several[several >= 3].index[0])
    rows = scene.table[scene.table["eeg_id"] == eeg_id].sort_values("eeg_label_offset_seconds").head(3)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    time, votes = figure.subplots(1, 2, width_ratios=(3, 1.6))
    for place, (_, one) in enumerate(rows.iterrows()):
        start, y = one["eeg_label_offset_seconds"], -place
        time.barh(y, 50, left=start, height=0.5, color=FAINT, edgecolor=SOFT)
        time.barh(y, 10, left=start + 20, height=0.5, color=SOFT)
        time.text(start + 1, y + 0.33, f"{eeg_id}-{one['eeg_sub_id']}", fontsize=8)
    time.set(yticks=[], ylim=(-3.3, 0.8))
    time.set_xlabel(
        "seconds of the EEG; light: the 50 s that are drawn, dark: the 10 s that experts labelled", fontsize=8
    )
    left = np.zeros(3)
    for number, name in enumerate(CLASSES):
        width = rows[f"{name}_vote"].to_numpy(float)
        votes.barh([0, -1, -2], width, left=left, height=0.5, color=COLOURS[number], label=name)
        left = left + width
    votes.set(yticks=[], ylim=(-3.3, 0.8))
    votes.set_xlabel("votes", fontsize=8)
    votes.legend(fontsize=7, loc="lower right", ncols=3, frameon=False)
    return figure


def panel(scene: Scene) -> Figure:
    """The four panels of the default recipe."""
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    axes = figure.subplots(2, 2)
    for place, name in zip(
        axes.flat, ("traces", "traces_flipped", "eeg_spectrogram", "kaggle_spectrogram"), strict=True
    ):
        array, spec = scene.panels[name], scene.shards.panels[name]
        shape = " x ".join(map(str, array.shape))
        gray(place, pixels(array), f"{name}: {shape}, {spec.dtype}, codec {spec.codec}")
    return figure


def shard_set(scene: Scene) -> Figure:
    """Files of a shard set, one sample taken apart, and how the index finds its bytes."""
    figure, page = blank(9, 4.4)
    key = str(scene.table["key"].iloc[scene.row])
    page.text(0.2, 4.15, "shards/hms/", fontsize=10, weight="bold")
    for place, name in enumerate(("shard-000000.tar", "shard-000001.tar", "shard-000002.tar")):
        box(page, 0.2, 3.45 - 0.55 * place, 1.7, 0.42, name, facecolor=FAINT if place else "#80cbc4")
    box(page, 0.2, 1.5, 1.7, 0.42, "index.parquet")
    box(page, 0.2, 0.95, 1.7, 0.42, "manifest.json")
    page.text(
        0.2,
        0.6,
        "manifest.json is written last:\na set that has one is complete",
        fontsize=8,
        va="top",
        color="#555555",
    )
    page.text(3.0, 4.15, "samples of one tar, one a label row", fontsize=9)
    for place in range(4):
        box(
            page,
            3.0,
            3.45 - 0.55 * place,
            1.7,
            0.42,
            key if place == 1 else "…",
            facecolor="#80cbc4" if place == 1 else "white",
        )
    arrow(page, (1.95, 3.66), (2.95, 3.66))
    page.text(5.7, 4.15, "members of one sample", fontsize=9)
    members = [f"{key}.json", *(f"{key}.{name}.{spec.codec}" for name, spec in sorted(scene.shards.panels.items()))]
    for place, name in enumerate(members):
        box(page, 5.7, 3.45 - 0.55 * place, 3.1, 0.42, name, fontsize=8)
    arrow(page, (4.75, 3.11), (5.65, 3.11))
    one = pd.read_parquet(scene.folder / "index.parquet").iloc[scene.row]
    offset, size = one["traces.offset"], one["traces.size"]
    page.text(
        3.0,
        0.6,
        f"index.parquet, row {scene.row}: {key}; traces.npy.zst: {size:,} bytes from {offset:,}; CRC-32, votes, folds",
        fontsize=8,
        va="center",
        color="#555555",
    )
    return figure


def canvas(scene: Scene) -> Figure:
    """The canvas of the 16th place with its placements outlined."""
    from hms_dist.canvas.options import CanvasConfig
    from hms_dist.config.load import resolved

    config = resolved(CanvasConfig, "sixteenth_place")
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots()
    picture = scene.canvas("sixteenth_place")
    gray(axes, picture, f"canvas sixteenth_place: {picture.shape[0]} x {picture.shape[1]} pixels, one channel")
    for place, colour in zip(config.placements, COLOURS, strict=False):
        axes.add_patch(
            Rectangle((place.left, place.top), place.width, place.height, fill=False, edgecolor=colour, linewidth=3)
        )
        label = {"facecolor": colour, "edgecolor": "none", "pad": 2}
        axes.text(place.left + 10, place.top + 14, place.panel, color="white", fontsize=8, va="top", bbox=label)
    return figure


def group(scene: Scene) -> Figure:
    """24 rows in groups of 8, on 1, 2, 3 and 4 GPUs."""
    figure, page = blank(9, 3.6)
    page.text(0.2, 3.35, "one step: 24 rows (global_batch) in 3 groups of 8 (group_size)", fontsize=9, weight="bold")
    size, left = 0.27, 1.5
    for place, ranks in enumerate((1, 2, 3, 4)):
        y = 2.6 - 0.72 * place
        page.text(0.2, y + 0.13, f"{ranks} GPU{'s' if ranks > 1 else ''}", fontsize=9, va="center")
        for number in range(24):
            box(
                page,
                left + number * (size + 0.02),
                y,
                size,
                size,
                str(number),
                facecolor=COLOURS[number // 8] + "88",
                fontsize=6,
                linewidth=0.5,
            )
        share = 24 // ranks
        for rank in range(ranks):
            start = left + rank * share * (size + 0.02)
            box(page, start - 0.02, y - 0.06, share * (size + 0.02) + 0.02, size + 0.12, facecolor="none", linewidth=2)
            page.text(start + share * (size + 0.02) / 2, y - 0.2, f"GPU {rank}", fontsize=7, ha="center", va="center")
    return figure


def stage(scene: Scene) -> Figure:
    """Two stages of one run: their rows and learning rates."""
    from hms_dist.train.optimise.schedules import ScheduleConfig, learning_rate_factor

    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(200)
    schedule = ScheduleConfig(warmup_share=0.1, start_factor=0.1, final_factor=0.01)
    factor = np.array([learning_rate_factor(schedule, int(step), [200]) for step in steps])
    second = np.array([learning_rate_factor(schedule, int(step), [120]) for step in steps[:120]])
    axes.plot(steps, factor * 1e-3, color=SOFT)
    axes.plot(200 + steps[:120], second * 3e-4, color=COLOURS[1])
    axes.axvline(200, color=INK, linewidth=0.8, linestyle=":")
    axes.text(100, 1.06e-3, "stage 1: all rows", ha="center", fontsize=9)
    axes.text(
        260, 1.06e-3, "stage 2: rows with 8 votes or more,\nfrom the best weights of stage 1", ha="center", fontsize=9
    )
    axes.set(ylim=(0, 1.3e-3), xticks=[])
    axes.set_xlabel("steps", fontsize=8)
    axes.set_ylabel("learning rate", fontsize=8)
    return figure


def fold(scene: Scene) -> Figure:
    """The split of the simulated patients into five folds, and the role of each in five runs."""
    table = scene.table
    first = table.groupby("patient_id")[f"fold_of_{NUM_FOLDS}"].first().sort_values()
    sizes = table.groupby("patient_id").size().loc[first.index].to_numpy()
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    for run_fold in range(NUM_FOLDS):
        left = 0
        for place, of in enumerate(first):
            held = of == run_fold
            width = int(sizes[place])
            axes.barh(
                -run_fold,
                width,
                left=left,
                height=0.7,
                color=COLOURS[1] if held else FAINT,
                edgecolor="white",
                linewidth=0.8,
            )
            left += width
    axes.set_yticks([-k for k in range(NUM_FOLDS)], [f"--fold {k}" for k in range(NUM_FOLDS)], fontsize=8)
    axes.set_xticks([])
    axes.set_xlabel(
        f"{len(table)} rows of {len(first)} patients, a bar each; orange: validation, light: training",
        fontsize=8,
    )
    return figure


def run(scene: Scene) -> Figure:
    """A run in time: steps, checkpoints, a kill and the resume; and the files of its folder."""
    figure, page = blank(9, 3.4)
    page.text(0.2, 3.1, "hms-dist train --out runs/b0 …", fontsize=9, family="monospace")
    page.plot([0.4, 2.9], [2.3, 2.3], color=SOFT, linewidth=4, solid_capstyle="butt")
    page.plot([2.3, 4.8], [1.5, 1.5], color=SOFT, linewidth=4, solid_capstyle="butt")
    for x, y in ((1.1, 2.3), (2.3, 2.3), (3.5, 1.5), (4.7, 1.5)):
        page.plot([x], [y], "o", color=INK, markersize=7)
    page.plot([2.9], [2.3], "x", color="#c62828", markersize=12, markeredgewidth=3)
    page.plot([2.3, 2.3], [1.5, 2.3], color=INK, linewidth=0.8, linestyle=":")
    for x, y, text in ((1.1, 2.45, "checkpoint"), (0.45, 2.05, "step 0"), (4.6, 1.65, "finished")):
        page.text(x, y, text, fontsize=8, ha="center")
    page.text(3.05, 2.38, "killed", fontsize=9, color="#c62828")
    page.text(2.3, 1.35, "the same command\nresumes here", fontsize=8, ha="center", va="top")
    page.text(5.4, 3.1, "runs/b0/", fontsize=9, weight="bold")
    files = (
        ("config.yaml", "options"), ("metrics.jsonl", "losses, rates, scores"), ("checkpoints/", "to resume from"),
        ("best/, final/", "weights"), ("predictions.parquet", "validation rows"),
        ("status.json, train.log, ...", "state, messages, versions"),
    )  # fmt: skip
    for place, (name, text) in enumerate(files):
        y = 2.75 - 0.36 * place
        page.text(5.4, y, name, fontsize=8, family="monospace", va="center")
        page.text(7.4, y, text, fontsize=8, va="center")
    return figure


PICTURES = {
    "overview": overview, "recording": recording, "row": row, "panel": panel, "shard_set": shard_set,
    "canvas_parts": canvas, "group": group, "stage": stage, "fold": fold, "run": run,
}  # fmt: skip
"""Name of the file -> function that draws it."""

if __name__ == "__main__":
    main()
