"""Rasteriser of traces as thin lines, pixel-identical to the plotting library of the 16th place.

That library (justpyplot, thickness 1) samples every segment of a trace at as many points as its longest segment needs,
and draws each point twice: in its place, and one pixel back along the segment. In each column nearly all lit pixels
form two runs of rows: the points themselves, and the points drawn back from the next column. Finding and filling these
runs takes a two-hundredth of the time.
"""

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit

Ints = NDArray[np.int32]


def draw_traces(levels: NDArray[np.float64], band_rows: int, width: int) -> NDArray[np.bool_]:
    """Draw `levels` [traces, samples], 0 (bottom) to 1 (top), below each other: bool [traces * band_rows, width].

    Each trace spans its own band of `band_rows` rows and half of the bands above and below, clipped at the picture's
    edges; crossing traces are both visible. Time runs over all columns but the last, which is empty as in the published
    picture. Raises ValueError for fewer samples than columns, or levels outside 0 to 1.
    """
    num_traces, num_samples = levels.shape
    if num_samples < width - 1:
        raise ValueError(f"levels: {num_samples} samples, expected at least {width - 1}, one a column")
    if not (levels.min() >= 0 and levels.max() <= 1):
        raise ValueError("levels: expected 0 to 1")
    tops = np.maximum(np.arange(num_traces) * band_rows - band_rows // 2, 0)
    bottoms = np.minimum(np.arange(1, num_traces + 1) * band_rows + band_rows // 2, num_traces * band_rows)
    rows, longest = _rows(levels, bottoms - tops)
    columns = (np.arange(num_samples) * (width - 1) // num_samples).astype(np.int32)

    image = np.zeros((num_traces * band_rows, width), np.bool_)
    for trace in range(num_traces):
        part = image[tops[trace] : bottoms[trace], : width - 1]
        runs, num_left_out = _runs(rows[trace], columns, longest[trace], len(part))
        _light(runs, part)
        if num_left_out:
            _draw_longest(rows[trace], columns, longest[trace], part)
    return image


@jit
def _rows(levels: NDArray[np.float64], heights: NDArray[np.int64]) -> tuple[Ints, Ints]:
    """Row of each sample, 0 to its trace's height [traces, samples], and the most rows spanned by a segment
    [traces]."""
    rows = np.empty(levels.shape, np.int32)
    longest = np.ones(len(levels), np.int32)
    for trace in range(len(levels)):
        for k in range(levels.shape[1]):
            rows[trace, k] = int(-levels[trace, k] * heights[trace]) + heights[trace]
        for k in range(1, levels.shape[1]):
            longest[trace] = max(longest[trace], abs(rows[trace, k] - rows[trace, k - 1]))
    return rows, longest


@jit
def _runs(rows: Ints, columns: Ints, longest: np.int32, height: int) -> tuple[NDArray[np.int16], int]:
    """Lit rows of each column as two runs, and the number of segments outside of them.

    The runs are int16 [4, columns]: first and last row of the points in this column, then of those drawn back from the
    next one; 1, 0 is an empty run. A segment stays in its column or ends in the next. The points' run has no holes,
    because each segment begins where the previous one ended. Segments of `longest` rows that leave their column are
    omitted. Rows outside of the image's `height` are clipped to its edge.
    """
    runs = np.empty((4, columns[-1] + 1), np.int16)
    runs[2, :], runs[3, :] = 1, 0
    num_left_out = 0
    first = last = rows[0]
    for k in range(1, len(rows) + 1):
        column = columns[k - 1]
        if k < len(rows):
            start, end = rows[k - 1], rows[k]
            upper, lower, sinks, rises = min(start, end), max(start, end), int(end > start), int(end < start)
            if columns[k] == column:  # each point is drawn again one row back
                first, last = min(first, upper - sinks), max(last, lower + rises)
                continue
            if lower - upper == longest:
                num_left_out += 1
            else:  # the last point is in the next column, and is drawn again one row and one column back
                first, last = min(first, upper), max(last, lower - sinks)
                first_back, last_back = upper - sinks + rises, lower - 2 * sinks + rises
                if column > 0:
                    runs[2, column - 1], runs[3, column - 1] = min(first_back, height - 1), max(last_back, 0)
                else:  # no column to the left: drawn in this one, adjacent to the points' run
                    first, last = min(first, first_back), max(last, last_back)
        runs[0, column], runs[1, column] = min(first, height - 1), max(last, 0)
        if k < len(rows):
            first = last = rows[k]
    return runs, num_left_out


@jit
def _light(runs: NDArray[np.int16], image: NDArray[np.bool_]) -> None:
    """Light both runs, row by row, so that many columns are compared at once."""
    first, last, first_back, last_back = runs[0], runs[1], runs[2], runs[3]
    for row in range(image.shape[0]):
        short = np.int16(row)
        for column in range(image.shape[1]):
            points = (first[column] <= short) & (short <= last[column])
            image[row, column] |= points | (first_back[column] <= short) & (short <= last_back[column])


def _draw_longest(rows: Ints, columns: Ints, longest: np.int32, image: NDArray[np.bool_]) -> None:
    """Draw the segments of `longest` rows that leave their column, point by point.

    Their points are a whole row apart, and rounding may place one a row short, which leaves a hole.
    """
    bottom = len(image) - 1
    steps = np.diff(rows)
    for k in np.flatnonzero((np.abs(steps) == longest) & (np.diff(columns) == 1)):
        points = (rows[k] + np.linspace(0, 1, longest + 1) * steps[k]).astype(np.int32)
        lit_columns = np.full(longest + 1, columns[k])
        lit_columns[-1] = columns[k + 1]
        image[np.minimum(points, bottom), lit_columns] = True
        image[np.clip(points - np.sign(steps[k]), 0, bottom), np.maximum(lit_columns - 1, 0)] = True
