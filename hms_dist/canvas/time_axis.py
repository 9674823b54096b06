"""The common time axis of a canvas: the position along x of the 10 seconds that the experts voted on.

Experts saw 50 seconds of EEG and 10 minutes of spectrogram with the same centre, and labelled the 10 seconds around it.
If all panels of a canvas show time along x over its whole width, those seconds are in one place. Annotations of audio
are anywhere in their row; the columns are then those of one in the middle.
"""

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.placed import PlacedPanel
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS, Dataset
from hms_dist.shards.schema import PanelSpec


def annotated_columns(canvas: Canvas, *, tolerance: float, dataset: Dataset = HMS) -> tuple[float, float]:
    """Start and end of the annotated seconds on the canvas, in pixels from its left edge.

    `tolerance`, pixels: allowed differences between panels (frames of other lengths begin elsewhere), and allowed
    excess beyond the canvas. Raises UserError naming a placement that has no such axis or a different one.
    """
    width, annotated_s = canvas.config.width, dataset.annotated_s
    found = [_columns(number, placed, width, dataset) for number, placed in enumerate(canvas.placed)]
    first = found[0]
    for number, ((left, right), placed) in enumerate(zip(found, canvas.placed, strict=True)):
        where = _name(number, placed)
        if left < -tolerance or right > width + tolerance:
            raise UserError(
                f"{where} does not show all of the annotated {annotated_s:g} s, which are at columns {left:.1f} to "
                f"{right:.1f} of {width}; widen its time_crop, or take a panel of a longer part"
            )
        if max(abs(left - first[0]), abs(right - first[1])) > tolerance:
            raise UserError(
                f"{where} has the annotated {annotated_s:g} s at columns {left:.1f} to {right:.1f}, the first panel at "
                f"{first[0]:.1f} to {first[1]:.1f}; a sliding window needs panels with one time axis"
            )
    lefts, rights = zip(*found, strict=True)
    return max(sum(lefts) / len(lefts), 0.0), min(sum(rights) / len(rights), float(width))


def _columns(number: int, placed: PlacedPanel, canvas_width: int, dataset: Dataset) -> tuple[float, float]:
    """First and last column of the annotated part, from one placement."""
    placement, spec, where = placed.placement, placed.spec, _name(number, placed)
    if placement.arrangement != "stacked":
        raise UserError(f"{where} is arranged {placement.arrangement}; a sliding window needs arrangement: stacked")
    if placement.left or placement.width != canvas_width:
        raise UserError(
            f"{where} covers columns {placement.left} to {placement.right} of {canvas_width}; a sliding window needs "
            f"left: 0 and width: {canvas_width}"
        )
    if spec.columns_s is None or spec.shape[-1] < 2:
        raise UserError(f"{where} does not state its times; a sliding window needs a panel that does")
    first_s, last_s = spec.columns_s
    step_s = (last_s - first_s) / (spec.shape[-1] - 1)
    begin, end = placement.time_crop or (0, spec.shape[-1])
    pixels_a_second = placement.width / (step_s * (end - begin))
    low_s = first_s + step_s * (begin - 0.5)  # columns_s are centres
    left = (_centre_s(spec, dataset) - dataset.annotated_s / 2 - low_s) * pixels_a_second
    return left, left + dataset.annotated_s * pixels_a_second


def _centre_s(spec: PanelSpec, dataset: Dataset) -> float:
    """Centre of the interval that the experts saw, on the panel's clock: only panels of the 10 minutes exceed 50
    seconds."""
    assert spec.columns_s is not None
    return (dataset.context_s if spec.columns_s[1] > dataset.window_s else dataset.window_s) / 2


def _name(number: int, placed: PlacedPanel) -> str:
    return f"canvas: placement {number} ('{placed.placement.panel}')"
