"""Facts about the signals of a recording, for the report: amplitude, offset, mains, doubled and bad channels."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import CHANNELS, RATE_HZ
from hms_dist.imports.names import SCALP
from hms_dist.imports.units import implausible
from hms_dist.signals.quality import channel_quality

MAINS_HZ = (50, 60)
MAINS_SHARE = 0.25
"""Share of the power from 1 to 90 Hz above which mains are named."""
OFFSET_UV = 1000.0
"""Mean of a channel above which the amplifier is named as coupled to direct current."""
BAD_SHARE = 0.5
"""Share of a recording above which a flat or clipped channel is named."""
CLOSURE_UV = 5.0
"""Root mean square above which the chains of a bipolar file do not fit together: rounding at 16 bits gives 0.2."""


class Facts:
    """Collected over the segments of a recording."""

    def __init__(self, silent: Sequence[str] = ()) -> None:
        """`silent`: channels that are constant by intention, the roots of bipolar chains."""
        self._silent = silent
        self._faults: dict[tuple[str, str], float] = defaultdict(float)
        self._num_samples = 0
        self._amplitudes: list[float] = []
        self._offsets: list[float] = []
        self._mains: dict[int, list[float]] = {hertz: [] for hertz in MAINS_HZ}
        self._doubled: set[str] | None = None

    def add(self, eeg: NDArray[np.float32]) -> None:
        """Add a segment [20, samples], microvolts."""
        for fault, shares in channel_quality(eeg.T).items():
            for name, share in shares.items():
                if name in self._silent:
                    continue
                self._faults[fault, name] += share * eeg.shape[1]
        self._num_samples += eeg.shape[1]
        scalp = eeg[: len(SCALP)].astype(np.float64)
        recorded = np.isfinite(scalp).any(axis=1)
        if not recorded.any():
            return
        some = scalp[recorded, :: max(1, eeg.shape[1] // 20_000)]
        centre = np.nanmedian(some, axis=1, keepdims=True)
        self._amplitudes.append(float(np.median(np.nanmedian(abs(some - centre), axis=1))))
        self._offsets.append(float(np.median(abs(centre))))
        self._add_mains(scalp[recorded])
        self._add_doubled(eeg)

    def as_json(self) -> dict[str, Any]:
        """Amplitude and offset in microvolts, mains' share of the power, and faults by channel."""
        faults: dict[str, dict[str, float]] = {}
        for (fault, name), total in self._faults.items():
            faults.setdefault(fault, {})[name] = round(total / max(self._num_samples, 1), 4)
        return {
            "amplitude_uv": _median(self._amplitudes),
            "offset_uv": _median(self._offsets),
            "mains": {str(hertz): _median(shares) for hertz, shares in self._mains.items()},
            "quality": faults,
        }

    def warnings(self, closure_uv: float | None) -> list[str]:
        """Describe what is implausible, without values, so that the report counts recordings with the same fault."""
        facts, lines = self.as_json(), []
        amplitude = facts["amplitude_uv"]
        if amplitude is not None and (line := implausible(amplitude)):
            lines.append(line)
        if (facts["offset_uv"] or 0) > OFFSET_UV:
            lines.append(f"offset above {OFFSET_UV:g} uV: recorded without a high-pass filter")
        for hertz, share in facts["mains"].items():
            if (share or 0) > MAINS_SHARE:
                lines.append(f"mains: more than {MAINS_SHARE:.0%} of the power is at {hertz} Hz")
        for fault in ("flat", "clipped"):
            bad = [name for name, share in facts["quality"].get(fault, {}).items() if share > BAD_SHARE]
            if bad:
                lines.append(f"{fault} for more than half of the time: {', '.join(bad)}")
        if self._doubled:
            lines.append(f"the same samples in {', '.join(sorted(self._doubled))}")
        if closure_uv is not None and closure_uv > CLOSURE_UV:
            lines.append(f"the bipolar chains miss each other by more than {CLOSURE_UV:g} uV: are channels exchanged?")
        return lines

    def _add_mains(self, scalp: NDArray[np.float64]) -> None:
        """Power of the lines within 1 Hz of 50 and 60 Hz, relative to that from 1 to 90 Hz, in the first minutes."""
        from scipy.signal import welch

        part = np.nan_to_num(scalp[:, : 120 * RATE_HZ])
        if part.shape[1] < 2 * RATE_HZ:
            return
        frequencies, power = welch(part, RATE_HZ, nperseg=2 * RATE_HZ, axis=1)
        total = power[:, (frequencies >= 1) & (frequencies <= 90)].sum()
        for hertz, shares in self._mains.items():
            if total > 0:
                shares.append(float(power[:, abs(frequencies - hertz) <= 1].sum() / total))

    def _add_doubled(self, eeg: NDArray[np.float32]) -> None:
        """Channels that hold the same samples as another in every segment."""
        seen: dict[bytes, str] = {}
        doubled: set[str] = set()
        for name, samples in zip(CHANNELS, eeg, strict=True):
            if not np.isfinite(samples).any() or np.nanmin(samples) == np.nanmax(samples):
                continue
            content = samples.tobytes()
            if content in seen:
                doubled |= {seen[content], name}
            seen.setdefault(content, name)
        self._doubled = doubled if self._doubled is None else self._doubled & doubled


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 4) if values else None
