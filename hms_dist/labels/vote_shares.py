"""Share of the votes of each class before and after a table is derived and rebalanced, as a table and a bar chart.

The course report's figures 1 and 2.
"""

from io import StringIO
from pathlib import Path

import pandas as pd

from hms_dist.core.files import atomic
from hms_dist.datasets import HMS, Dataset
from hms_dist.labels.table import rebalancing_probabilities

WIDTH, HEIGHT = 960, 480
"""Pixels of the chart."""
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 84, 48
"""Margins around the bars, in pixels."""
COLOURS = ((68, 119, 170), (238, 119, 51), (0, 153, 136))
"""Colours of the columns, distinguishable with colour blindness."""
TITLE = "Share of the votes by class, %"


def vote_shares(before: pd.DataFrame, after: pd.DataFrame, dataset: Dataset = HMS) -> pd.DataFrame:
    """Compute shares of the votes [classes, 3]: of the source table, the derived table, and the derived table
    rebalanced.

    Rebalanced: the average over the draws of selection class_rebalanced.
    """
    names = list(dataset.vote_columns)
    votes = after[names].to_numpy("int64")
    kept = votes * rebalancing_probabilities(votes)[:, None]
    columns = {"before": before[names].to_numpy("int64"), "after": votes, "rebalanced": kept}
    shares = {name: values.sum(axis=0) / values.sum() for name, values in columns.items()}
    return pd.DataFrame(shares, index=pd.Index(list(dataset.titles), name="class"))


def save_vote_shares(path: Path, shares: pd.DataFrame) -> None:
    """Write the shares as a bar chart (`path`, .png) and next to it as a table (.csv)."""
    text = StringIO()
    shares.to_csv(text, lineterminator="\n", float_format="%.6f")
    with atomic(path.with_suffix(".csv"), "w") as file:
        file.write(text.getvalue())
    _draw(path, shares * 100)


def _draw(path: Path, percent: pd.DataFrame) -> None:
    from PIL import Image, ImageDraw, ImageFont  # imported late: deriving a table does not need it

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    large, plain, small = (ImageFont.load_default(size) for size in (20, 15, 12))
    highest = float(percent.to_numpy().max())
    step = next(step for step in (2, 5, 10, 20) if highest / step <= 6)
    end = step * (int(highest / step) + 1)
    base: float = HEIGHT - BOTTOM
    scale = (base - TOP) / end
    pen.text((LEFT, 12), TITLE, fill="black", font=large)
    for number, name in enumerate(percent.columns):
        x = LEFT + 150 * number
        pen.rectangle((x, 50, x + 14, 64), fill=COLOURS[number])
        pen.text((x + 22, 57), name, fill="black", font=plain, anchor="lm")
    for tick in range(0, end + 1, step):
        y = base - tick * scale
        pen.line((LEFT, y, WIDTH - RIGHT, y), fill=(220, 220, 220) if tick else (60, 60, 60))
        pen.text((LEFT - 10, y), str(tick), fill="black", font=plain, anchor="rm")
    room = (WIDTH - LEFT - RIGHT) / len(percent)
    bar = room * 0.8 / len(percent.columns)
    for place, name in enumerate(percent.index):
        begin = LEFT + place * room + room * 0.1
        pen.text((begin + room * 0.4, base + 26), name, fill="black", font=plain, anchor="ms")
        for number, value in enumerate(percent.loc[name]):
            left, top = begin + number * bar, base - value * scale
            pen.rectangle((left + 1, top, left + bar - 2, base), fill=COLOURS[number])
            at, text = (left + bar / 2, top - 4), f"{value:.1f}"
            pen.rectangle(pen.textbbox(at, text, font=small, anchor="mb"), fill="white")  # above the line of a tick
            pen.text(at, text, fill="black", font=small, anchor="mb")
    with atomic(path) as file:
        image.save(file, format="png")
