"""Orders by block: adjacent rows, mixing, and which rank needs which blocks."""

import numpy as np
import pytest

from hms_dist.shards.index import read_index
from hms_dist.stream.rows.epoch_plan import Batching, plan_epoch
from hms_dist.stream.rows.locality import LocalityConfig, block_numbers, interleave_lanes, local_order
from hms_dist.stream.rows.selections import SelectionConfig


def order(index, epoch=0, rows=None, **options):
    config = LocalityConfig(**options)
    return local_order(index, np.arange(len(index)) if rows is None else rows, config, seed=3, epoch=epoch)


def runs_of(numbers):
    """Lengths of runs of equal numbers."""
    ends = np.flatnonzero(np.diff(numbers)) + 1
    return np.diff([0, *ends, len(numbers)])


def test_the_index_is_in_the_order_of_the_tars(shard_set):
    """Definition of neighbouring rows: the next sample of the same tar, or the first of the next tar."""
    frame = read_index(shard_set / "index.parquet").frame
    for _, shard in frame.groupby("shard"):
        assert (np.diff(shard["json.offset"]) > 0).all()
    assert (np.diff(frame["shard"]) >= 0).all()


def test_blocks_are_cut_within_each_tar(make_index, rng):
    index = make_index(100, seed=rng, rows_per_shard=11)
    blocks = block_numbers(index, 4)
    sizes = np.unique(blocks, return_counts=True)[1]
    assert sizes.tolist() == [4, 4, 3] * 9 + [1]
    assert all(len(set(index.ids("shard")[blocks == block])) == 1 for block in range(len(sizes)))


def test_the_rows_of_a_block_stay_together_in_their_order(index):
    rows = order(index, block_rows=8, window_blocks=1, num_lanes=1)
    blocks = block_numbers(index, 8)
    assert len(runs_of(blocks[rows])) == blocks[-1] + 1
    inside = np.diff(blocks[rows]) == 0
    assert (np.diff(rows)[inside] == 1).all()


def test_a_selection_thins_blocks_out(index, rng):
    rows = np.sort(rng.permutation(503)[:100])
    blocks = block_numbers(index, 8)
    found = order(index, rows=rows, block_rows=8, window_blocks=1, num_lanes=1)
    assert len(runs_of(blocks[found])) == len(set(blocks[rows]))


def test_blocks_come_in_another_order_each_epoch_and_evenly(make_index, rng):
    index = make_index(40, seed=rng, rows_per_shard=40)
    first = [order(index, epoch=epoch, block_rows=10, window_blocks=1)[0] // 10 for epoch in range(2000)]
    assert abs(np.bincount(first, minlength=4) - 500).max() < 5 * np.sqrt(500)


def test_windows_mix_their_blocks_and_no_others(make_index, rng):
    index = make_index(480, seed=rng, rows_per_shard=480)
    rows = order(index, block_rows=10, window_blocks=4)
    windows = (rows // 10).reshape(-1, 40)
    assert all(len(set(window)) == 4 for window in windows)
    lengths = np.concatenate([runs_of(window) for window in windows])
    assert lengths.mean() < 2  # 1.3 expected; in order it would be 10


def test_lanes_take_turns(index, rng):
    rows = rng.permutation(503)[:480]
    found = interleave_lanes(rows, 4, 24)
    parts = rows.reshape(4, 120)
    for step in range(20):
        expected = np.concatenate([part[step * 6 : (step + 1) * 6] for part in parts])
        np.testing.assert_array_equal(found[step * 24 : (step + 1) * 24], expected)
    np.testing.assert_array_equal(interleave_lanes(rows, 1, 24), rows)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_with_a_lane_a_group_ranks_share_only_blocks_at_the_lanes_ends(make_index, num_ranks, rng):
    index = make_index(4_000, seed=rng, rows_per_shard=100)
    locality = LocalityConfig(block_rows=20, window_blocks=3, num_lanes=4)
    batching = Batching(global_batch=16, group_size=4)
    rows = plan_epoch(index, np.arange(4_000), SelectionConfig(), seed=1, epoch=0, global_batch=16, locality=locality)
    blocks = block_numbers(index, 20)
    needed = [
        {
            int(block)
            for step in range(250)
            for one in batching.passes(rank, num_ranks)
            for block in blocks[rows[16 * step + one.places]]
        }
        for rank in range(num_ranks)
    ]
    assert sum(map(len, needed)) <= 200 + (num_ranks - 1) * 3


def test_a_rank_keeps_as_many_blocks_as_documented():
    default = LocalityConfig()
    assert default.num_kept * default.block_rows == 2_048
    assert LocalityConfig(block_rows=7, window_blocks=3, num_lanes=5).num_kept == 30


@pytest.mark.parametrize("name", ["block_rows", "window_blocks", "num_lanes"])
def test_options_below_one_are_refused(name):
    with pytest.raises(ValueError, match=rf"locality.{name}: expected at least 1, found 0"):
        LocalityConfig(**{name: 0})


def test_lanes_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ValueError, match=r"locality.num_lanes: expected a divisor of global_batch \(24\), found 5"):
        LocalityConfig(num_lanes=5).check_batch(24)
    LocalityConfig(num_lanes=8).check_batch(24)
