"""Label rows of a recording from its events: at equal steps by majority of overlap, or one for each event."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ
from hms_dist.datasets import Dataset
from hms_dist.imports.source import Event, Stretch

Floats = NDArray[np.float64]
ABSENT = "absent"
"""Background of a yes_no set: where no event is, every class is absent."""


@dataclass(frozen=True)
class Row:
    """A label row: the middle of the labelled part, seconds after the first sample, and votes by class."""

    centre_s: float
    votes: tuple[int | None, ...]
    """None: unknown."""


class Texts:
    """Classes of texts by the table of a data set; counts those that it does not know."""

    def __init__(self, dataset: Dataset) -> None:
        self._known: dict[str, str | None] = {name.lower(): name for name in dataset.classes}
        self._known |= {title.lower(): dataset.classes[number] for title, number in dataset.consensus_names.items()}
        self._known |= {text.strip().lower(): name for text, name in dataset.label_texts.items()}
        self._classes = dataset.classes
        self.unknown: Counter[str] = Counter()
        self.found: Counter[str] = Counter()

    def place(self, text: str) -> int | None:
        """Return the place of the class of a text; None for skipped and unknown ones."""
        word = text.strip().lower()
        if word not in self._known:
            self.unknown[text.strip()] += 1
            return None
        name = self._known[word]
        if name is None:
            return None
        self.found[name] += 1
        return self._classes.index(name)


def on_grid(centre_s: float) -> float:
    """Round a time to a sample at 200 Hz."""
    return round(centre_s * RATE_HZ) / RATE_HZ


def grid(length_s: float, every_s: float, annotated_s: float) -> Floats:
    """Return centres [windows] of windows of `annotated_s` every `every_s` seconds; of a shorter recording its
    middle."""
    last = length_s - annotated_s / 2
    if last < annotated_s / 2:
        return np.array([on_grid(length_s / 2)])
    centres = annotated_s / 2 + every_s * np.arange(int((last - annotated_s / 2) / every_s + 1e-9) + 1)
    return np.round(centres * RATE_HZ) / RATE_HZ


def rows_by_overlap(
    events: Iterable[Event], centres: Floats, dataset: Dataset, texts: Texts, background: str | None
) -> list[Row]:
    """Label windows at `centres` [windows], seconds, by the class that covers most of each.

    `background`: class of windows that no event covers; None: they have no row. With target yes_no each class is
    present where it covers half of the window or more.
    """
    half = dataset.annotated_s / 2
    intervals: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        place = texts.place(event.text)
        if place is not None:
            intervals[place].append((event.start_s, event.end_s))
    covered = np.zeros((dataset.num_classes, len(centres)))
    for place, found in intervals.items():
        covered[place] = _covered(found, centres - half, centres + half)
    everything = [interval for found in intervals.values() for interval in found]
    free = np.round(2 * half - _covered(everything, centres - half, centres + half), 6)
    if dataset.target == "yes_no":
        return _yes_no_rows(centres, covered, free, background, half)
    if background is not None:
        covered[dataset.classes.index(background)] += free
        covered = np.round(covered, 6)
        free = np.full(len(centres), -1.0)
    best = covered.argmax(axis=0)
    kept = np.flatnonzero((covered.max(axis=0) >= free) & (covered.max(axis=0) > 0))
    return [Row(float(centres[row]), _one_vote(int(best[row]), dataset.num_classes)) for row in kept]


def _yes_no_rows(centres: Floats, covered: Floats, free: Floats, background: str | None, half: float) -> list[Row]:
    present = (covered >= half).astype(int)
    kept = present.any(axis=0) | (background == ABSENT) | (free < half)
    return [Row(float(centres[row]), tuple(map(int, present[:, row]))) for row in np.flatnonzero(kept)]


def rows_of_events(events: Iterable[Event], dataset: Dataset, texts: Texts) -> list[Row]:
    """Make a row of each event, at its middle; events of the same time are one row with a vote each.

    With target yes_no a class is present if it has a vote.
    """
    rows = []
    for (start_s, end_s), same in groupby(sorted(events), key=lambda event: (event.start_s, event.end_s)):
        votes = [0] * dataset.num_classes
        for event in same:
            place = texts.place(event.text)
            if place is not None:
                votes[place] += 1
        if any(votes):
            if dataset.target == "yes_no":
                votes = [min(vote, 1) for vote in votes]
            rows.append(Row(on_grid((start_s + end_s) / 2), tuple(votes)))
    return rows


def inside(rows: Sequence[Row], stretches: Sequence[Stretch], length_s: float, annotated_s: float) -> list[Row]:
    """Keep rows whose middle is in the recording and whose labelled part is recorded to a half or more, in order."""
    if not rows:
        return []
    rows = sorted(rows, key=lambda row: row.centre_s)
    centres, half = np.array([row.centre_s for row in rows]), annotated_s / 2
    recorded = _covered(
        [(part.start_s, part.start_s + part.length_s) for part in stretches], centres - half, centres + half
    )
    needed = min(half, length_s / 2)
    kept = (centres >= 0) & (centres <= length_s) & (recorded >= needed - 1e-9)
    return [row for row, keep in zip(rows, kept, strict=True) if keep]


def _one_vote(place: int, num_classes: int) -> tuple[int, ...]:
    return tuple(int(number == place) for number in range(num_classes))


def _covered(intervals: Sequence[tuple[float, float]], starts: Floats, ends: Floats) -> Floats:
    """Seconds of each window [starts, ends) that at least one interval covers."""
    merged: list[list[float]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        elif end > start:
            merged.append([start, end])
    if not merged:
        return np.zeros(len(starts))
    edges = np.array(merged).reshape(-1)
    total = np.concatenate(([0.0], np.cumsum(np.where(np.arange(len(edges) - 1) % 2 == 0, np.diff(edges), 0.0))))
    # Rounded, so that equal overlaps are equal.
    return np.round(np.interp(ends, edges, total) - np.interp(starts, edges, total), 6)
