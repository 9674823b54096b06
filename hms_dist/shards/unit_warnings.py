"""Warnings about recordings that seem to have another unit or sampling rate than microvolt and 200 Hz, one per set.

Without them the mistake would go unnoticed: panels are normalised or clipped, so volts, millivolts and nanovolts render
to plausible pictures.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

SIGNALS_KEY = "signals"
"""Key in a shard's note: EEG -> `[number of samples, rows of a wrong scale, amplitude in microvolts]`."""
RATE_HZ = 200
WINDOW_S = 50.0
ROW_SHARE = 0.9
"""An EEG has a wrong scale if this fraction of its rows has."""
CAUSES = (
    (0.0, 1e-12, "was anything recorded", "Leave them out"),
    (1e-12, 1e-3, "are they volts", "Multiply them by 1e6 and render again"),
    (1e-3, 2.0, "are they millivolts", "Multiply them by 1000 and render again"),
    (2.0, np.inf, "are they nanovolts", "Multiply them by 0.001 and render again"),
)
"""Amplitudes (microvolts as read) from, up to; their likely cause; advice."""
OTHER_RATES_HZ = (250, 256, 300, 400, 500, 512, 1000, 1024, 2000, 2048)
"""Sampling rates of other amplifiers, above 200 Hz: a slower recording is too short for its windows and rejected."""


def signal_facts(signals: Iterable[tuple[int, int, float | None]]) -> dict[str, list[float]]:
    """Build the note's entry from rows of a shard: (eeg_id, samples of its file, amplitude if the row's scale is
    wrong)."""
    facts: dict[str, list[float]] = {}
    for eeg_id, num_samples, amplitude_uv in signals:
        entry = facts.setdefault(str(eeg_id), [num_samples, 0, 0.0])
        if amplitude_uv is not None:
            entry[1] += 1
            entry[2] = max(entry[2], amplitude_uv)
    return facts


def suspicions(rows: pd.DataFrame, notes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Describe suspicious recordings of a set, given its index rows and the notes of its shards."""
    facts: dict[int, list[float]] = {}
    for note in notes:
        for eeg_id, (num_samples, num_wrong, amplitude) in note.get(SIGNALS_KEY, {}).items():
            entry = facts.setdefault(int(eeg_id), [num_samples, 0, 0.0])
            entry[1] += num_wrong
            entry[2] = max(entry[2], amplitude)
    return [*_scales(rows, facts), *_rates(rows, facts)]


def _scales(rows: pd.DataFrame, facts: Mapping[int, list[float]]) -> list[str]:
    num_rows = rows["eeg_id"].value_counts()
    wrong = {
        eeg_id: amplitude
        for eeg_id, (_, num_wrong, amplitude) in facts.items()
        if num_wrong and num_wrong >= ROW_SHARE * num_rows[eeg_id]
    }
    lines = []
    for smallest, largest, cause, advice in CAUSES:
        eegs = [eeg_id for eeg_id, amplitude in wrong.items() if smallest <= amplitude < largest]
        if eegs:
            typical = float(np.median([wrong[eeg_id] for eeg_id in eegs]))
            lines.append(
                f"{len(eegs)} of {len(facts)} EEGs, like {eegs[0]}: nearly all channels of nearly all rows are flat or "
                f"clipped; expected microvolts, found amplitudes of about {typical:.2g}: {cause}? {advice}"
            )
    return lines


def _rates(rows: pd.DataFrame, facts: Mapping[int, list[float]]) -> list[str]:
    """EEGs end with their last window. If nearly all are longer by the ratio of two rates, they have that other
    rate."""
    if not facts:
        return []
    ends_s = rows.groupby("eeg_id")["eeg_label_offset_seconds"].max() + WINDOW_S
    eegs = list(facts)
    ratios = np.array([facts[eeg][0] for eeg in eegs]) / (RATE_HZ * ends_s.loc[eegs].to_numpy(np.float64))
    right = abs(ratios - 1) < 2e-3
    for rate_hz in OTHER_RATES_HZ:
        other = abs(ratios / (rate_hz / RATE_HZ) - 1) < 2e-3
        some_files = other.sum() >= 3 and (right | other).mean() > 0.95
        if other.mean() >= 0.8 or some_files:
            return [
                f"{other.sum()} of {len(eegs)} EEGs, like {eegs[int(other.argmax())]}, have {rate_hz / RATE_HZ:g} "
                f"times the samples up to the end of their last window; expected {RATE_HZ} Hz: are they recorded at "
                f"{rate_hz} Hz? Resample them and render again"
            ]
    return []
