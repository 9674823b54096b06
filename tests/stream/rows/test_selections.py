"""Each selection's defining property, on random votes."""

import numpy as np
import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS
from hms_dist.shards.index import Index
from hms_dist.stream.rows.selections import SELECTIONS, SelectionConfig, VoteWeights, class_counts, select


def chosen(index, epoch=0, seed=1, rows=None, **selection):
    every = np.arange(len(index)) if rows is None else rows
    return select(index, every, SelectionConfig(**selection), seed=seed, epoch=epoch)


def classes(index, rows):
    return index.votes[rows].argmax(axis=1)


@pytest.mark.parametrize("rule", sorted(SELECTIONS))
def test_selections_do_not_depend_on_the_order_of_rows(index, rule, rng):
    rows = rng.permutation(503)[:300]
    one = chosen(index, epoch=2, rows=rows, rule=rule)
    np.testing.assert_array_equal(one, chosen(index, epoch=2, rows=rows[::-1], rule=rule))
    assert set(one) <= set(rows)
    assert (np.diff(one) > 0).all()


@pytest.mark.parametrize("rule", sorted(SELECTIONS))
def test_no_candidates_no_rows(index, rule):
    assert not len(chosen(index, rule=rule, min_votes=1000))


@pytest.mark.parametrize("rule", ["one_random_row_per_eeg", "centre_row_per_eeg"])
def test_one_row_of_every_eeg(index, rule):
    ids = index.frame["eeg_id"].to_numpy()
    assert sorted(ids[chosen(index, rule=rule)]) == sorted(set(ids))


def test_the_random_row_is_drawn_again_and_evenly(make_index, rng):
    index, counts = make_index(40, seed=rng), np.zeros(40)
    for epoch in range(600):
        counts[chosen(index, epoch=epoch, rule="one_random_row_per_eeg")] += 1
    sizes = index.frame.groupby("eeg_id")["eeg_id"].transform("size").to_numpy()
    expected = 600 / sizes
    assert (abs(counts - expected) <= 6 * np.sqrt(expected)).all()


def test_the_centre_row_is_the_middle_sub_id(index):
    for row in chosen(index, rule="centre_row_per_eeg"):
        eeg = index.frame[index.frame["eeg_id"] == index.frame["eeg_id"].iloc[row]]
        assert index.frame["eeg_sub_id"].iloc[row] == len(eeg) // 2


class TestVotes:
    """High votes, low votes, both, and bounds that change within a run."""

    def test_bounds_are_inclusive(self, index):
        rows = chosen(index, min_votes=8, max_votes=11)
        assert set(index.num_voters[rows]) <= {8, 9, 10, 11}
        assert len(rows) == ((index.num_voters >= 8) & (index.num_voters <= 11)).sum()

    def test_high_and_low_make_both(self, index):
        high, low = chosen(index, min_votes=8), chosen(index, max_votes=7)
        assert sorted([*high, *low]) == list(range(503))

    def test_a_schedule_takes_over_at_its_epochs(self, index):
        options = {"min_votes": 2, "min_votes_schedule": ((3, 8), (5, 12))}
        for epoch, least in enumerate([2, 2, 2, 8, 8, 12, 12]):
            np.testing.assert_array_equal(
                chosen(index, epoch=epoch, **options), np.flatnonzero(index.num_voters >= least)
            )


class TestClassBalanced:
    """Every class equally often."""

    def test_every_class_gives_as_many_rows_as_the_rarest(self, index):
        counts = np.bincount(classes(index, np.arange(503)), minlength=6)
        found = np.bincount(classes(index, chosen(index, rule="class_balanced")), minlength=6)
        assert set(found) == {counts.min()}

    def test_a_class_without_rows_does_not_count(self, index):
        rows = np.flatnonzero(classes(index, np.arange(503)) != 2)
        found = class_counts(index, chosen(index, rows=rows, rule="class_balanced"))
        assert found.pop("gpd") == 0
        assert len(set(found.values())) == 1
        assert found["other"] > 0

    def test_rows_of_a_large_class_take_turns_evenly(self, index):
        counts = np.zeros(503)
        for epoch in range(300):
            counts[chosen(index, epoch=epoch, rule="class_balanced")] += 1
        sizes = np.bincount(classes(index, np.arange(503)), minlength=6)
        expected = 300 * sizes.min() / sizes[classes(index, np.arange(503))]
        assert (abs(counts - expected) <= 6 * np.sqrt(expected)).all()


def test_rebalancing_keeps_rows_in_inverse_proportion_to_the_share_of_the_votes(index):
    counts = np.zeros(503)
    for epoch in range(400):
        counts[chosen(index, epoch=epoch, rule="class_rebalanced")] += 1
    votes = index.votes.sum(axis=0)
    expected = 400 * (votes.min() / votes)[classes(index, np.arange(503))]
    assert (abs(counts - expected) <= 5 * np.sqrt(expected)).all()
    assert (counts[expected == 400] == 400).all()


def test_rebalancing_keeps_the_only_row_of_a_class_with_a_single_vote(make_index, rng):
    frame = make_index(40, seed=rng).frame
    frame[list(HMS.vote_columns)] = [3, 0, 0, 0, 0, 0]
    frame.loc[7, list(HMS.vote_columns)] = [0, 0, 1, 0, 0, 0]
    assert all(7 in chosen(Index(frame), epoch=epoch, rule="class_rebalanced") for epoch in range(12))


class TestVoteWeighted:
    """Rows with few votes are rarer, and rarer with every epoch."""

    def test_rows_are_kept_with_their_weight(self, index):
        weights = VoteWeights(weights=((1, 0.2), (8, 0.6), (12, 1.0)), decay=1.0)
        counts = np.zeros(503)
        for epoch in range(400):
            counts[chosen(index, epoch=epoch, rule="vote_weighted", vote_weights=weights)] += 1
        voters = index.num_voters
        expected = 400 * np.where(voters >= 12, 1.0, np.where(voters >= 8, 0.6, 0.2))
        assert (abs(counts - expected) <= 6 * np.sqrt(expected)).all()
        assert (counts[voters >= 12] == 400).all()

    def test_weights_below_one_decay_and_one_stays(self):
        weights = VoteWeights(weights=((1, 0.3), (4, 0.5), (9, 1.0)), decay=0.5)
        found = weights.probabilities(np.array([1, 3, 4, 8, 9, 20]), epoch=2)
        np.testing.assert_allclose(found, [0.075, 0.075, 0.125, 0.125, 1, 1], rtol=1e-15)

    def test_without_options_it_has_weights_of_its_own(self, index):
        rows = chosen(index, rule="vote_weighted", epoch=200)
        np.testing.assert_array_equal(rows, np.flatnonzero(index.num_voters >= 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_votes": 5, "max_votes": 4}, r"selection.max_votes: expected at least min_votes \(5\), found 4"),
        ({"max_votes": 9, "min_votes_schedule": ((1, 10),)}, r"max_votes: expected at least min_votes \(10\), found 9"),
        ({"min_votes_schedule": ((3, 1), (2, 5))}, r"min_votes_schedule: expected epochs that rise from 0.*\[3, 2\]"),
        ({"min_votes_schedule": ((-1, 1),)}, r"expected epochs that rise from 0, found \[-1\]"),
        ({"vote_weights": VoteWeights()}, "selection.vote_weights: rule all does not use them; leave them out"),
    ],
)
def test_bad_combinations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SelectionConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": ((2, 0.5),)}, r"least votes that rise from 1, found \[2\]"),
        ({"weights": ()}, r"least votes that rise from 1, found \[\]"),
        ({"weights": ((1, 0.5), (1, 0.6))}, r"least votes that rise from 1, found \[1, 1\]"),
        ({"weights": ((1, 0.5), (3, 0.4))}, r"rising probabilities in \(0, 1\], found \[0.5, 0.4\]"),
        ({"weights": ((1, 0.0),)}, r"rising probabilities in \(0, 1\]"),
        ({"weights": ((1, 1.5),)}, r"rising probabilities in \(0, 1\]"),
        ({"decay": 0.0}, r"vote_weights.decay: expected a factor in \(0, 1\], found 0.0"),
    ],
)
def test_bad_weights_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VoteWeights(**options)


def test_unknown_rules_list_the_known_ones():
    with pytest.raises(UserError, match=r"unknown 'best'; one of: all, one_random_row_per_eeg"):
        SelectionConfig(rule="best")
