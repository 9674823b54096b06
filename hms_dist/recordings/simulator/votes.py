"""True distribution of a label row over the classes, and votes drawn from it.

The truth depends only on the patterns visible in the row's 50 seconds:

1. visibility v of each pattern: its strength (times the background's RMS) averaged over the window with the weights of
   `window_weights`: a bell of 7 s around the centre, so the central 10 to 20 s count most; gaps count as zero. Runs of
   the same pattern add up.
2. evidence e = v^3 / (v^3 + h^3), with h = HALF_VISIBLE.
3. Each visible pattern is named correctly with probability `SURE` e, and otherwise confused with `other` or its
   neighbours (CONFUSIONS): its share is d = SURE e onehot + (1 - SURE e) confusions.
4. truth = (sum of e d + quiet d_other) / (sum of e + quiet), quiet = product of (1 - e); then a floor of FLOOR for all
   classes.
"""

import numpy as np
from numpy.typing import NDArray

from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.recordings.simulator.patterns import strength_at
from hms_dist.recordings.simulator.session import Session, recorded

Floats = NDArray[np.float64]

HALF_VISIBLE = 2.5
"""Visibility at which the evidence for a pattern is one half."""
SURE = 0.92
"""Probability that a perfectly clear pattern is named correctly."""
FLOOR = 0.01
"""Share of the votes that is spread evenly over all classes."""
CONFUSIONS = {
    "seizure": {"lpd": 0.25, "gpd": 0.25, "lrda": 0.1, "grda": 0.1, "other": 0.3},
    "lpd": {"lrda": 0.4, "gpd": 0.15, "seizure": 0.15, "other": 0.3},
    "gpd": {"grda": 0.4, "lpd": 0.15, "seizure": 0.15, "other": 0.3},
    "lrda": {"lpd": 0.35, "grda": 0.25, "other": 0.4},
    "grda": {"gpd": 0.35, "lrda": 0.25, "other": 0.4},
    "other": {"grda": 0.3, "lrda": 0.25, "gpd": 0.2, "lpd": 0.15, "seizure": 0.1},
}
"""Distribution of the wrong names of each class; rows sum to 1."""
LOW_VOTES = (0.12, 0.2, 0.4, 0.14, 0.08, 0.04, 0.02)
"""Fractions of low-vote rows with 1 to 7 votes: 3.06 on average."""


def window_times(start_s: float) -> Floats:
    """Times [200], a quarter of a second apart, at which visibility is evaluated in the 50 s from `start_s`."""
    return start_s + (np.arange(200) + 0.5) / 4


def window_weights() -> Floats:
    """Weight of each of `window_times` [200]; they sum to 1."""
    weights = np.exp(-0.5 * ((window_times(-25.0)) / 7.0) ** 2)
    return weights / weights.sum()


def visibility(session: Session, start_s: float) -> dict[str, float]:
    """Visibility of each pattern's class in the 50 s from `start_s` of the session; 0 without a pattern."""
    time_s = window_times(start_s)
    weights = window_weights() * recorded(session, time_s)
    seen = dict.fromkeys(CLASSES[:5], 0.0)
    for pattern in session.patterns:
        seen[pattern.features.name] += float(weights @ strength_at(pattern, time_s))
    return seen


def truth(seen: dict[str, float]) -> Floats:
    """True distribution over CLASSES [6] of a row with these visibilities; float64, sums to 1."""
    total = np.zeros(len(CLASSES))
    quiet = 1.0
    for name, visible in seen.items():
        evidence = visible**3 / (visible**3 + HALF_VISIBLE**3)
        total += evidence * _named(name, SURE * evidence)
        quiet *= 1 - evidence
    total += quiet * _named("other", SURE)
    return (1 - FLOOR) * total / total.sum() + FLOOR / len(CLASSES)


def draw_votes(rng: np.random.Generator, truths: Floats, high_votes: bool) -> NDArray[np.int64]:
    """Draw votes [rows, 6] from `truths` [rows, 6]: 8 to 20 (14 on average) a row if `high_votes`, else 1 to 7 (3)."""
    if high_votes:
        totals = np.clip(np.round(rng.normal(14, 2.8, len(truths))), 8, 20).astype(np.int64)
    else:
        totals = 1 + rng.choice(len(LOW_VOTES), len(truths), p=LOW_VOTES)
    return rng.multinomial(totals, truths)


def _named(name: str, sure: float) -> Floats:
    """Distribution of the names given to a pattern that is named correctly with probability `sure`."""
    shares = np.array([CONFUSIONS[name].get(other, 0.0) for other in CLASSES]) * (1 - sure)
    shares[CLASSES.index(name)] = sure
    return shares
