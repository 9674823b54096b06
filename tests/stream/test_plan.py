"""The plan of an epoch as an invariant: a permutation, whole steps, the same rows for every world."""

import numpy as np
import pandas as pd
import pytest

from hms_dist.errors import UserError
from hms_dist.labels import VOTE_COLUMNS
from hms_dist.shards.index import Index
from hms_dist.stream.plan import Batching, plan_epoch
from hms_dist.stream.selections import SELECTIONS, SelectionConfig, select


def index_of(rows=503, seed=None):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"eeg_id": np.sort(rng.integers(0, rows // 4, rows))})
    frame["eeg_sub_id"] = frame.groupby("eeg_id").cumcount()
    frame["patient_id"] = frame["eeg_id"] // 3
    frame[list(VOTE_COLUMNS)] = rng.integers(0, 4, (rows, 6))
    frame["other_vote"] += 1
    return Index(frame)


def plan(index, epoch=0, seed=5, batch=24, rows=None, **selection):
    every = np.arange(len(index)) if rows is None else rows
    return plan_epoch(index, every, SelectionConfig(**selection), seed=seed, epoch=epoch, global_batch=batch)


def test_an_epoch_is_a_permutation_up_to_the_tail():
    index = index_of()
    rows = plan(index)
    assert len(rows) == 503 // 24 * 24
    assert len(np.unique(rows)) == len(rows)
    assert set(rows) <= set(range(503))


def test_epochs_and_seeds_differ_and_so_do_their_tails():
    index = index_of()
    first, second = plan(index, epoch=0), plan(index, epoch=1)
    assert (first == plan(index, epoch=0)).all()
    assert (first != second).any()
    assert (first != plan(index, seed=6)).any()
    assert set(range(503)) - set(first) != set(range(503)) - set(second)


def test_over_many_epochs_every_row_trains_equally_often():
    index = index_of(50)
    counts = np.zeros(50)
    for epoch in range(400):
        counts[plan(index, epoch=epoch, batch=16)] += 1
    assert counts.sum() == 400 * 48
    assert abs(counts - 384).max() < 25


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [1, 2])
def test_any_world_trains_the_same_rows(num_ranks, group_size):
    rows = plan(index_of(), batch=48)
    batching = Batching(global_batch=48, group_size=group_size)
    batching.check_world(num_ranks)
    for step in range(len(rows) // 48):
        shares = [
            np.concatenate([batching.rows_of(rows, step, group) for group in batching.groups_of(rank, num_ranks)])
            for rank in range(num_ranks)
        ]
        assert len({len(share) for share in shares}) == 1
        np.testing.assert_array_equal(np.concatenate(shares), rows[step * 48 : (step + 1) * 48])


def test_only_the_rows_of_the_run_are_taken():
    index = index_of()
    rows = np.random.default_rng().permutation(503)[:200]
    assert set(plan(index, rows=rows)) <= set(rows)


@pytest.mark.parametrize("rule", sorted(SELECTIONS))
def test_selections_do_not_depend_on_the_order_of_rows(rule):
    index = index_of()
    rows = np.random.default_rng().permutation(503)[:300]
    config = SelectionConfig(rule=rule)
    one = select(index, rows, config, seed=1, epoch=2)
    other = select(index, rows[::-1], config, seed=1, epoch=2)
    np.testing.assert_array_equal(one, other)
    assert set(one) <= set(rows)


@pytest.mark.parametrize("rule", ["one_random_row_per_eeg", "centre_row_per_eeg"])
def test_one_row_of_every_eeg(rule):
    index = index_of()
    chosen = select(index, np.arange(503), SelectionConfig(rule=rule), seed=1, epoch=0)
    ids = index.frame["eeg_id"].to_numpy()
    assert sorted(ids[chosen]) == sorted(set(ids))


def test_the_random_row_is_drawn_anew_and_evenly():
    index = index_of(40)
    config = SelectionConfig(rule="one_random_row_per_eeg")
    counts = np.zeros(40)
    for epoch in range(600):
        counts[select(index, np.arange(40), config, seed=1, epoch=epoch)] += 1
    sizes = index.frame.groupby("eeg_id")["eeg_id"].transform("size").to_numpy()
    expected = 600 / sizes
    assert (abs(counts - expected) <= 5 * np.sqrt(expected)).all()


def test_the_centre_row_is_the_middle_sub_id():
    index = index_of()
    chosen = select(index, np.arange(503), SelectionConfig(rule="centre_row_per_eeg"), seed=0, epoch=0)
    for row in chosen:
        eeg = index.frame[index.frame["eeg_id"] == index.frame["eeg_id"].iloc[row]]
        assert index.frame["eeg_sub_id"].iloc[row] == len(eeg) // 2


def test_vote_bounds_are_inclusive():
    index = index_of()
    rows = select(index, np.arange(503), SelectionConfig(min_votes=8, max_votes=11), seed=0, epoch=0)
    assert set(index.num_voters[rows]) <= {8, 9, 10, 11}
    assert len(rows) == ((index.num_voters >= 8) & (index.num_voters <= 11)).sum()


def test_too_few_rows_are_refused_with_the_numbers():
    with pytest.raises(UserError, match=r"leaves 0 of 503 training rows in epoch 0, one step needs global_batch = 24"):
        plan(index_of(), min_votes=100)
    with pytest.raises(UserError, match=r"leaves 503 of 503 .* global_batch = 504"):
        plan(index_of(), batch=504)


def test_worlds_that_cannot_share_are_refused():
    with pytest.raises(UserError, match=r"24 / group_size 8 = 3 groups cannot be shared equally by 2 ranks"):
        Batching(global_batch=24, group_size=8).check_world(2)
    with pytest.raises(ValueError, match="global_batch: expected a multiple of group_size, found 10 and 4"):
        Batching(global_batch=10, group_size=4)


def test_unknown_rules_and_empty_ranges():
    with pytest.raises(UserError, match=r"unknown 'best'; one of: all, one_random_row_per_eeg"):
        SelectionConfig(rule="best")
    with pytest.raises(ValueError, match="max_votes"):
        SelectionConfig(min_votes=5, max_votes=4)
