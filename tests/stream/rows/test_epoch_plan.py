"""The plan of an epoch: a permutation, whole steps, the same rows at any number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.core.errors import UserError
from hms_dist.stream.rows import epoch_plan as plan_module
from hms_dist.stream.rows.epoch_plan import Batching, count_steps, piece_starts, plan_epoch
from hms_dist.stream.rows.locality import LocalityConfig
from hms_dist.stream.rows.selections import SELECTIONS, SelectionConfig, select

LOCALITIES = [
    None,
    LocalityConfig(block_rows=1, window_blocks=1, num_lanes=1),
    LocalityConfig(block_rows=8, window_blocks=1, num_lanes=1),
    LocalityConfig(block_rows=8, window_blocks=3, num_lanes=4),
    LocalityConfig(block_rows=64, window_blocks=2, num_lanes=24),
]


def plan(index, epoch=0, seed=5, batch=24, rows=None, locality=None, **selection):
    every = np.arange(len(index)) if rows is None else rows
    return plan_epoch(
        index, every, SelectionConfig(**selection), seed=seed, epoch=epoch, global_batch=batch, locality=locality
    )


class TestEveryOrder:
    """Properties of the plan with and without locality, for every selection."""

    pytestmark = pytest.mark.parametrize("locality", LOCALITIES)

    @pytest.mark.parametrize("rule", sorted(SELECTIONS))
    def test_an_epoch_is_a_permutation_of_the_selection_up_to_the_tail(self, index, locality, rule):
        rows = plan(index, epoch=3, locality=locality, rule=rule)
        chosen = select(index, np.arange(503), SelectionConfig(rule=rule), seed=5, epoch=3)
        assert len(rows) == len(chosen) // 24 * 24
        assert len(np.unique(rows)) == len(rows)
        assert set(rows) <= set(chosen)

    def test_epochs_and_seeds_differ_and_so_do_their_tails(self, index, locality):
        first, second = (plan(index, epoch=epoch, locality=locality) for epoch in (0, 1))
        assert (first == plan(index, epoch=0, locality=locality)).all()
        assert (first != second).any()
        assert (first != plan(index, seed=6, locality=locality)).any()
        assert set(range(503)) - set(first) != set(range(503)) - set(second)

    def test_over_many_epochs_every_row_trains_about_equally_often(self, make_index, locality, rng):
        index, counts = make_index(100, seed=rng), np.zeros(100)
        for epoch in range(400):
            counts[plan(index, epoch=epoch, batch=24, locality=locality)] += 1
        assert counts.sum() == 400 * 96
        assert abs(counts - 384).max() < 60  # the tail is 4 rows: 16 drops expected, of a block's rows together

    def test_only_the_rows_of_the_run_are_taken_whatever_their_order(self, index, locality, rng):
        rows = rng.permutation(503)[:200]
        found = plan(index, rows=rows, locality=locality)
        assert set(found) <= set(rows)
        np.testing.assert_array_equal(found, plan(index, rows=np.sort(rows), locality=locality))


@pytest.mark.parametrize(
    ("locality", "first"),
    [
        (None, [33, 30, 28, 18, 29, 24, 14, 26, 19, 11, 9, 10, 2, 32, 20, 35]),
        (LocalityConfig(block_rows=4, window_blocks=2, num_lanes=2), [7, 35, 6, 33, 4, 32, 26, 38, 36, 27, 37, 25]),
    ],
)
def test_a_plan_stays_what_it_was_in_earlier_versions(make_index, locality, first, rng):
    """A run of an earlier version continues with the rows that it has not trained on yet."""
    rows = plan(make_index(40, seed=rng, rows_per_shard=16), epoch=3, batch=12, locality=locality)
    assert rows[: len(first)].tolist() == first


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(8, 300),
    groups=st.integers(1, 8),
    group_size=st.integers(1, 5),
    block_rows=st.integers(1, 40),
    window_blocks=st.integers(1, 6),
    lane=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 99),
)
def test_any_numbers_give_a_permutation(
    make_index, num_rows, groups, group_size, block_rows, window_blocks, lane, seed, epoch
):
    batch = groups * group_size
    divisors = [number for number in range(1, batch + 1) if batch % number == 0]
    lanes = divisors[lane % len(divisors)]
    locality = LocalityConfig(block_rows=block_rows, window_blocks=window_blocks, num_lanes=lanes)
    if num_rows < batch:
        return
    rows = plan(make_index(num_rows, seed=1), epoch, seed, batch, locality=locality)
    assert len(rows) == num_rows // batch * batch
    assert len(np.unique(rows)) == len(rows)


@pytest.mark.parametrize("rule", sorted(SELECTIONS))
def test_the_steps_counted_are_those_planned(index, rule):
    selection = SelectionConfig(rule=rule, min_votes_schedule=((2, 9),))
    counted = count_steps(index, np.arange(503), selection, seed=5, num_epochs=4, global_batch=24)
    planned = [plan_epoch(index, np.arange(503), selection, seed=5, epoch=epoch, global_batch=24) for epoch in range(4)]
    assert counted == [len(rows) // 24 for rows in planned]


def test_a_step_is_found_without_a_loop_over_earlier_steps(make_index, monkeypatch):
    """Finding a step of a full-size epoch takes one hash and one sort of its rows, without a loop over steps."""
    index = make_index(106_800, seed=1)
    hashed = []
    real = plan_module.keyed_hash
    monkeypatch.setattr(plan_module, "keyed_hash", lambda *keys: hashed.append(np.size(keys[-1])) or real(*keys))
    plan(index)
    assert hashed == [106_800]


def test_too_few_rows_are_refused_with_the_numbers(index):
    with pytest.raises(UserError, match=r"leaves 0 of 503 training rows in epoch 0, one step needs global_batch = 24"):
        plan(index, min_votes=100)
    with pytest.raises(UserError, match=r"leaves 503 of 503 .* global_batch = 504"):
        plan(index, batch=504)
    late = SelectionConfig(min_votes_schedule=((3, 100),))
    with pytest.raises(UserError, match=r"leaves 0 of 503 training rows in epoch 3"):
        count_steps(index, np.arange(503), late, seed=0, num_epochs=4, global_batch=24)


SHAPES = [(24, 8), (24, 6), (24, 24), (24, 1), (32, 8), (48, 16), (30, 5)]
"""Rows of a step and of a group."""


@pytest.mark.parametrize("pass_rows", [None, 8, 24])
@pytest.mark.parametrize(("batch", "size"), SHAPES)
def test_ranks_share_the_rows_and_passes_never_split_a_rank_s_part_of_a_group(batch, size, pass_rows):
    batching = Batching(global_batch=batch, group_size=size)
    for num_ranks in [number for number in range(1, batch + 1) if batch % number == 0]:
        if pass_rows is not None and pass_rows < batching.min_pass_rows(num_ranks):
            continue
        share, split = batch // num_ranks, set(batching.split_groups(num_ranks))
        kinds = set()
        for rank in range(num_ranks):
            passes = batching.passes(rank, num_ranks, pass_rows)
            every = np.concatenate([one.places for one in passes])
            assert sorted(every) == list(range(rank * share, (rank + 1) * share))
            for number, one in enumerate(passes):
                groups = one.places // size
                assert all((batch_groups in split) == one.is_split for batch_groups in groups)
                assert not one.is_split or number == len(passes) - 1
                assert one.is_split or len(one) % size == 0
                assert pass_rows is None or len(one) <= pass_rows
            seen = [set(one.places // size) for one in passes]
            assert sum(map(len, seen)) == len(set.union(*seen))  # a group is in one pass
            kinds.add(passes[-1].is_split)
        assert len(kinds) == 1, "every rank ends with a pass of split groups, or none does"
        assert kinds == {bool(split)} == {share % size != 0}


def test_pieces_are_runs_of_rows_of_one_group():
    assert piece_starts(np.array([6, 7, 8, 9, 16]), 8) == [0, 2, 4, 5]
    assert piece_starts(np.arange(12), 4) == [0, 4, 8, 12]


def test_worlds_and_passes_that_cannot_be_are_refused():
    batching = Batching(global_batch=24, group_size=8)
    with pytest.raises(
        UserError, match=r"24 rows cannot be shared equally by 5 ranks; start 1, 2, 3, 4, 6, 8, 12 or 24"
    ):
        batching.check_world(5)
    batching.check_world(8)
    with pytest.raises(UserError, match=r"at least 8 on 2 rank\(s\) .* found 7; .*model.grad_checkpointing: true"):
        batching.check_pass_rows(7, 2)
    batching.check_pass_rows(3, 8)
    with pytest.raises(UserError, match=r"at least 3 on 8 rank\(s\)"):
        batching.check_pass_rows(2, 8)
    with pytest.raises(ValueError, match="global_batch: expected a multiple of group_size, found 10 and 4"):
        Batching(global_batch=10, group_size=4)
