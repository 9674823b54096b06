"""The truth as a function of what is seen, and the votes drawn from it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.recordings.simulator import votes as labels
from hms_dist.recordings.simulator.cohort import plan_cohort
from hms_dist.recordings.simulator.patterns import strength_at
from hms_dist.recordings.simulator.session import draw_session, votes_rng

PATTERNS = CLASSES[:5]
visibilities = st.fixed_dictionaries(dict.fromkeys(PATTERNS, st.floats(0, 20)))
NOTHING = dict.fromkeys(PATTERNS, 0.0)


@pytest.fixture(scope="module")
def cohort(rng_of):
    """Rows of 400 EEGs: truths [rows, 6], votes [rows, 6], high-vote flag [rows]."""
    truths, votes, high = [], [], []
    seed = int(rng_of("labels").integers(2**32))
    for plan in plan_cohort(400, seed):
        session = draw_session(plan, seed)
        for eeg in plan.eegs:
            truth = np.array([labels.truth(labels.visibility(session, eeg.start_s + s)) for s in eeg.offsets_s])
            truths.append(truth)
            votes.append(labels.draw_votes(votes_rng(eeg, seed), truth, eeg.high_votes))
            high += [eeg.high_votes] * len(truth)
    return np.concatenate(truths), np.concatenate(votes), np.array(high)


def divergence(p, q):
    """Kullback-Leibler divergence of each row of p from q."""
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0).sum(axis=1)


@given(visibilities)
@settings(max_examples=200, deadline=None)
def test_truth_is_a_distribution_without_zeros(seen):
    truth = labels.truth(seen)
    assert truth.sum() == pytest.approx(1, abs=1e-12)
    assert truth.min() >= labels.FLOOR / 6 - 1e-12


@given(visibilities)
@settings(max_examples=200, deadline=None)
def test_truth_is_the_documented_function(seen):
    evidence = np.array([seen[name] ** 3 / (seen[name] ** 3 + 2.5**3) for name in PATTERNS])
    weights = [*evidence, np.prod(1 - evidence)]
    expected = np.zeros(6)
    for index, (name, weight) in enumerate(zip(CLASSES, weights, strict=True)):
        sure = 0.92 * weight if name != "other" else 0.92
        for taken_for, share in labels.CONFUSIONS[name].items():
            expected[CLASSES.index(taken_for)] += weight * (1 - sure) * share
        expected[index] += weight * sure
    np.testing.assert_allclose(labels.truth(seen), 0.99 * expected / sum(weights) + 0.01 / 6, atol=1e-12)


def test_confusions_are_distributions_over_other_classes():
    for name, shares in labels.CONFUSIONS.items():
        assert sum(shares.values()) == pytest.approx(1)
        assert name not in shares
        assert set(shares) <= set(CLASSES)


def test_nothing_is_other_and_a_strong_pattern_is_itself():
    assert 0.85 < labels.truth(NOTHING)[5] < 0.95
    for index, name in enumerate(PATTERNS):
        shares = [labels.truth(NOTHING | {name: strength})[index] for strength in (0, 1, 2, 4, 8, 20)]
        assert np.all(np.diff(shares) > 0)
        assert 0.85 < shares[-1] < 0.95


def test_weak_pattern_is_shared_with_other_and_its_neighbour():
    weak = labels.truth(NOTHING | {"lpd": 2.5})
    ranking = [CLASSES[index] for index in weak.argsort()[::-1][:3]]
    assert set(ranking) == {"other", "lpd", "lrda"}
    both = labels.truth(NOTHING | {"lpd": 8.0, "lrda": 8.0})
    assert both[CLASSES.index("lpd")] > 0.4
    assert both[CLASSES.index("lrda")] > 0.4


def test_weights_sum_to_one_and_are_in_the_central_20_s():
    weights, time_s = labels.window_weights(), labels.window_times(0)
    assert weights.sum() == pytest.approx(1)
    assert (time_s.min(), time_s.max()) == (0.125, 49.875)
    assert weights[(time_s > 20) & (time_s < 30)].sum() > 0.5
    assert weights[(time_s > 15) & (time_s < 35)].sum() > 0.8


def test_visibility_is_the_weighted_strength_and_gaps_hide_it(rng):
    seed = int(rng.integers(2**32))
    for plan in plan_cohort(40, seed):
        session = draw_session(plan, seed)
        if not session.patterns:
            continue
        start_s = float(plan.eegs[0].start_s)
        no_gaps = dataclasses.replace(
            session.artifacts, gaps_s=np.empty((0, 2)), unplugged_s=np.empty((0, 2))
        )  # fmt: skip
        whole = dataclasses.replace(session, artifacts=no_gaps)
        time_s = start_s + np.arange(0, 50, 0.01)
        bell = np.exp(-0.5 * ((time_s - start_s - 25) / 7) ** 2)
        for name, value in labels.visibility(whole, start_s).items():
            curves = [strength_at(p, time_s) for p in session.patterns if p.features.name == name]
            expected = (bell * np.sum(curves, axis=0)).sum() / bell.sum() if curves else 0
            assert value == pytest.approx(expected, rel=0.02, abs=1e-3)
        all_off = dataclasses.replace(no_gaps, gaps_s=np.array([[start_s, start_s + 50]]))
        hidden = dataclasses.replace(session, artifacts=all_off)
        assert labels.visibility(hidden, start_s) == NOTHING


def test_vote_counts_are_bimodal(cohort):
    _, votes, high = cohort
    totals = votes.sum(axis=1)
    assert 0.33 < high.mean() < 0.67  # this bound and those below are 5 to 6 deviations from the mean of 15 cohorts
    assert totals[~high].min() >= 1
    assert totals[~high].max() <= 7
    assert totals[high].min() >= 8
    assert totals[high].max() <= 20
    assert totals[~high].mean() == pytest.approx(3.05, abs=0.25)
    assert totals[high].mean() == pytest.approx(14, abs=0.7)


def test_votes_are_drawn_from_the_truth(cohort):
    truths, votes, _ = cohort
    totals = votes.sum(axis=1, keepdims=True)
    for strong in CLASSES:  # rows that show one class most: their summed votes against their summed expectation
        rows = truths.argmax(axis=1) == CLASSES.index(strong)
        assert chisquare(votes[rows].sum(axis=0), (totals * truths)[rows].sum(axis=0)).pvalue > 1e-6


def test_classes_are_about_balanced(cohort):
    truths, _, _ = cohort
    share = np.bincount(truths.argmax(axis=1), minlength=6) / len(truths)
    assert share.min() > 0.07
    assert share.max() < 0.36


def test_oracle_and_constant_predictor_differ(cohort):
    truths, votes, high = cohort
    targets = votes / votes.sum(axis=1, keepdims=True)
    oracle = divergence(targets, truths)
    constant = divergence(targets, np.repeat(targets.mean(axis=0)[None], len(targets), axis=0))
    assert 0.3 < oracle[~high].mean() < 0.6
    assert 0.13 < oracle[high].mean() < 0.18
    assert constant.mean() > 0.9
    assert constant.mean() > 3 * oracle.mean()
