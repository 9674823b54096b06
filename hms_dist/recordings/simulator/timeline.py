"""Times of the patterns in a session, placed so that an EEG of a class shows that class."""

import numpy as np

from hms_dist.recordings.simulator.pattern_draws import Place, Run, draw_features, draw_run
from hms_dist.recordings.simulator.patterns import Pattern

PARTNERS = {"seizure": ("lpd", "gpd"), "lpd": ("lrda", "seizure"), "gpd": ("grda",), "lrda": ("lpd",), "grda": ("gpd",)}
"""Patterns that may accompany each pattern in one EEG."""


def draw_patterns(rng: np.random.Generator, name: str, eeg: Run, stretch: Run, place: Place) -> list[Pattern]:
    """Draw the patterns around an EEG of class `name`, within its `stretch` of the session (both in seconds of it).

    One in five is weak. One in six has a second pattern. An EEG of class `other` has none, or in one of four cases a
    faint short run of one.
    """
    if name == "other":
        if rng.random() < 0.75:
            return []
        begin_s = rng.uniform(eeg[0], eeg[1] - 12)
        faint = draw_features(rng, str(rng.choice(list(PARTNERS))), place)
        return [draw_run(rng, faint, (begin_s, begin_s + rng.uniform(6, 12)), rng.uniform(1.5, 4))]
    strengths = {name: rng.uniform(2, 5) if rng.random() < 0.2 else rng.uniform(5, 12)}
    if rng.random() < 1 / 6:
        strengths[str(rng.choice(PARTNERS[name]))] = strengths[name] * rng.uniform(0.4, 0.9)
    patterns: list[Pattern] = []
    for each, strength in strengths.items():
        features = draw_features(rng, each, place)
        for run in _runs(rng, each, eeg, stretch):
            inside = max(run[0], stretch[0]), min(run[1], stretch[1])
            if inside[1] - inside[0] > 4:
                patterns.append(draw_run(rng, features, inside, strength * np.exp(rng.normal(0, 0.15))))
    return patterns


def _runs(rng: np.random.Generator, name: str, eeg: Run, stretch: Run) -> list[Run]:
    """Seizures: one, occasionally a second one far from it. Others: continuous or intermittent."""
    if name == "seizure":
        runs = [_seizure_run(rng, eeg[0] + 25)]
        if rng.random() < 0.3:
            away_s = rng.uniform(130, 200)
            runs.append(_seizure_run(rng, eeg[0] - away_s if rng.random() < 0.5 else eeg[1] + away_s))
        return runs
    if rng.random() < 0.6:
        return [(eeg[0] - rng.uniform(20, 280), eeg[1] + rng.uniform(20, 280))]
    return _intermittent_runs(rng, eeg[0] + 25, stretch)


def _seizure_run(rng: np.random.Generator, around_s: float) -> Run:
    begin_s = around_s - rng.uniform(12, 40)
    return begin_s, begin_s + rng.uniform(45, 110)


def _intermittent_runs(rng: np.random.Generator, around_s: float, stretch: Run) -> list[Run]:
    """Runs of 8 to 45 s with pauses of 5 to 35 s throughout `stretch`, one of them over `around_s`."""
    lengths_s = rng.uniform(8, 45, int((stretch[1] - stretch[0]) / 13) + 2)
    pauses_s = rng.uniform(5, 35, len(lengths_s))
    starts_s = stretch[0] + np.cumsum(lengths_s + pauses_s) - lengths_s - pauses_s
    nearest = int(np.searchsorted(starts_s, around_s)) - 1
    starts_s += around_s - lengths_s[nearest] * rng.uniform(0.3, 0.7) - starts_s[nearest]
    return [(float(start_s), float(start_s + run_s)) for start_s, run_s in zip(starts_s, lengths_s, strict=True)]
