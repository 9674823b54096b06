"""Draw the pictures of the documentation from simulated recordings: python scripts/site/pictures.py [OUT].

OUT (default docs/images) receives a PNG for each concept, and the overview of the README.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from data_pictures import overview, panel, recording, row, shard_set
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from picture_parts import (
    COLOURS,
    FAINT,
    INK,
    NUM_FOLDS,
    SOFT,
    Scene,
    blank,
    box,
    gray,
)
from PIL import Image

REPOSITORY = Path(__file__).parents[2]


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
