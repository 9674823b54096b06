"""A montage drawn as lines: 20 traces of the central 20 seconds as a 1-bit picture, as in the 16th place."""

from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.filters import FilterChain, apply
from hms_dist.signals.gaps import GapPolicy, fill_gaps
from hms_dist.signals.montage import TRACE_MONTAGES, TRACE_SCALES_UV, Montage, Pair, differences, mirrored

FIRST_S, LAST_S = 15, 35
"""Length of the drawn part in the middle of the 50-second window, seconds."""
BAND_ROWS = 32
"""Rows between two traces. A trace spans twice as many: its band and half of each neighbour's."""
WIDTH = 1600
"""Columns for 20 seconds; the last one is empty."""
NUM_TRACES = 20
"""Number of traces of every montage."""


@dataclass(frozen=True, kw_only=True)
class Traces(Panel):
    """The trace picture: bits [640, 1600], time to the right, voltage upwards, pixels lit along the traces.

    Each trace is filtered, clipped to plus and minus twice its scale, and drawn over 64 rows (48 at the top and bottom
    of the picture). It begins with a stroke to the bottom and ends with one to the top of its rows.
    """

    flipped: bool = False
    """Exchange left and right electrodes before drawing. The order of the scales is unchanged, and the published last
    trace becomes C4, so this is not a re-ordering of the picture's bands."""
    montage: Montage = "bipolar"
    """Traces: the published differences of neighbours (with EKG, and C3 as recorded), or the 19 scalp electrodes and
    EKG, against the scalp's mean ("common_average") or as recorded ("referential")."""
    gaps: GapPolicy = "zero"
    """Fill value of gaps before filtering: zero (published), the mean of the trace or linear interpolation."""
    cut: Literal["before", "after"] = "after"
    """Cut out the 20 seconds after filtering the whole recording, or before (the filter then starts up inside them)."""
    filters: FilterChain = field(default_factory=FilterChain)
    """Filters of every trace."""
    scales_uv: tuple[float, ...] = TRACE_SCALES_UV
    """Scale of each of the 20 traces from top to bottom, microvolts. `hms-dist statistics` computes them."""

    def __post_init__(self) -> None:
        if len(self.scales_uv) != NUM_TRACES or not all(0 < scale < np.inf for scale in self.scales_uv):
            raise ValueError(f"scales_uv: expected {NUM_TRACES} positive numbers, found {self.scales_uv}")
        if self.montage != "bipolar" and self.scales_uv == TRACE_SCALES_UV:
            raise ValueError(
                f"scales_uv: the published ones are for the bipolar montage; give those of {self.montage}, "
                f"as hms-dist statistics --montage {self.montage} computes them"
            )

    @property
    def spec(self) -> PanelSpec:
        """Bits [640, 1600], zstd."""
        shape = (NUM_TRACES * BAND_ROWS, WIDTH)
        return PanelSpec(
            shape=shape,
            dtype="bit",
            codec="npy.zst",
            axes=("row", "time"),
            unit="lit",
            traces=tuple("-".join(pair) for pair in self._pairs),
            columns_s=(FIRST_S, LAST_S),
        )

    def prepare(self, recording: Recording) -> NDArray[np.float64]:
        """Derive the signals of the picture and its mirror image [20 or 21, samples], microvolts; filtered if `cut` is
        "after"."""
        return _derivations(recording, self.montage, self.gaps, self.filters if self.cut == "after" else None)

    def draw(self, prepared: NDArray[np.float64], window: Window) -> NDArray[np.bool_]:
        """Draw a label row: bool [640, 1600]. Its window must be inside the recording."""
        from hms_dist.panels.rasteriser import draw_traces

        rows = [_both_sides(self.montage).index(pair) for pair in self._pairs]
        first, last = window.start + FIRST_S * RATE_HZ, window.start + LAST_S * RATE_HZ
        signals = prepared[rows, first:last]
        if self.cut == "before":
            signals = apply(self.filters, fill_gaps(signals, self.gaps))
        return draw_traces(self._levels(signals), BAND_ROWS, WIDTH)

    @property
    def _pairs(self) -> list[Pair]:
        """Derivations of the traces, top to bottom."""
        return [mirrored(pair) if self.flipped else pair for pair in TRACE_MONTAGES[self.montage]]

    def _levels(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Height of each sample within its trace's rows, 0 (bottom) to 1 (top)."""
        reach = 2 * np.array(self.scales_uv)[:, None]
        levels: NDArray[np.float64] = np.clip(signals, -reach, reach)
        levels += reach
        levels /= 2 * reach
        levels[:, 0], levels[:, -1] = 0, 1
        return levels


@cache
def _both_sides(montage: Montage) -> tuple[Pair, ...]:
    """Every derivation in the picture or its mirror image: 20, and also C4 for the published montage."""
    pairs = TRACE_MONTAGES[montage]
    return tuple(dict.fromkeys((*pairs, *map(mirrored, pairs))))


@lru_cache(maxsize=1)
def _derivations(
    recording: Recording, montage: Montage, gaps: GapPolicy, filters: FilterChain | None
) -> NDArray[np.float64]:
    """Shared by the picture and its mirror image, which differ only in the position of the derivations."""
    signals = differences(recording.eeg, _both_sides(montage))
    return signals if filters is None else apply(filters, fill_gaps(signals, gaps))
