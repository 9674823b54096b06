"""The montage drawn as lines: 20 traces of the central 20 seconds as a 1-bit picture (the 16th place's)."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.images.panel import Panel, Window
from hms_dist.recordings.reader import RATE_HZ, Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.filters import FilterChain, apply
from hms_dist.signals.montage import TRACE_PAIRS, TRACE_SCALES_UV, Pair, differences, mirrored

FIRST_S, LAST_S = 15, 35
"""The drawn part of the 50-second window: its central 20 seconds."""
BAND_ROWS = 32
"""Rows from one trace to the next. A trace spans twice as many: its band and half of each neighbour's."""
WIDTH = 1600
"""Columns for 20 seconds; the last one stays empty."""

_BOTH_SIDES: tuple[Pair, ...] = tuple(dict.fromkeys((*TRACE_PAIRS, *map(mirrored, TRACE_PAIRS))))
"""Every derivation that the picture or its mirror image draws: 20, and C4 alone."""


@dataclass(frozen=True, kw_only=True)
class Traces(Panel):
    """The trace picture: bits [640, 1600], time to the right, voltage upwards, a lit pixel where a trace runs.

    Each trace is filtered, cut to plus and minus twice its scale, and drawn over 64 rows (48 at the top and bottom
    of the picture); it begins with a stroke to the bottom and ends with one to the top of its rows. NaN is drawn
    as 0 microvolt.
    """

    flipped: bool = False
    """Exchange left and right electrodes before drawing. The scales stay where they are, and the last trace
    becomes C4, so this is not a re-ordering of the picture's bands."""
    cut: Literal["before", "after"] = "after"
    """Cut the 20 seconds after filtering the whole recording, or before (then the filter starts up inside them)."""
    filters: FilterChain = field(default_factory=FilterChain)
    """Filters of every trace."""
    scales_uv: tuple[float, ...] = TRACE_SCALES_UV
    """Scale of each of the 20 traces from top to bottom, microvolts."""

    def __post_init__(self) -> None:
        if len(self.scales_uv) != len(TRACE_PAIRS) or not all(0 < scale < np.inf for scale in self.scales_uv):
            raise ValueError(f"scales_uv: expected {len(TRACE_PAIRS)} positive numbers, found {self.scales_uv}")

    @property
    def spec(self) -> PanelSpec:
        """Bits [640, 1600], zstd."""
        shape = (len(TRACE_PAIRS) * BAND_ROWS, WIDTH)
        return PanelSpec(shape=shape, dtype="bit", codec="npy.zst", axes=("row", "time"), unit="lit")

    def prepare(self, recording: Recording) -> NDArray[np.float64]:
        """The derivations of both sides [21, samples], microvolts; filtered, unless `cut` is "before"."""
        return _derivations(recording, self.filters if self.cut == "after" else None)

    def draw(self, prepared: NDArray[np.float64], window: Window) -> NDArray[np.bool_]:
        """The picture of a label row: bool [640, 1600]. Its window must lie inside the recording."""
        from hms_dist.images.rasteriser import draw_traces

        pairs = [mirrored(pair) for pair in TRACE_PAIRS] if self.flipped else TRACE_PAIRS
        first, last = window.start + FIRST_S * RATE_HZ, window.start + LAST_S * RATE_HZ
        signals = prepared[[_BOTH_SIDES.index(pair) for pair in pairs], first:last]
        if self.cut == "before":
            signals = apply(self.filters, signals)
        return draw_traces(self._levels(signals), BAND_ROWS, WIDTH)

    def _levels(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Height of each sample within its trace's rows, 0 (bottom) to 1 (top)."""
        reach = 2 * np.array(self.scales_uv)[:, None]
        levels: NDArray[np.float64] = (np.clip(signals, -reach, reach) + reach) / (2 * reach)
        levels[:, 0], levels[:, -1] = 0, 1
        return levels


@lru_cache(maxsize=1)
def _derivations(recording: Recording, filters: FilterChain | None) -> NDArray[np.float64]:
    """Shared by the picture and its mirror image, which differ only in which derivation goes where."""
    signals = differences(recording.eeg, _BOTH_SIDES)
    return signals if filters is None else apply(filters, signals)
