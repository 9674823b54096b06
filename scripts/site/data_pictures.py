"""Pictures of the documentation from recordings to shard sets."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from picture_parts import (
    CLASSES,
    COLOURS,
    FAINT,
    INK,
    RATE_HZ,
    SOFT,
    Scene,
    arrow,
    bars,
    blank,
    box,
    draw_traces,
    gray,
    pixels,
)


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
